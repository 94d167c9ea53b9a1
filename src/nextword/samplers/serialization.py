"""From names and configurations to samplers and back.

A fixed table decides which class a name means, and Keras' registry of custom objects for classes of
your own. Nothing is imported because a configuration says so.
"""

from collections.abc import Mapping
from reprlib import repr as short_repr
from typing import Any

import keras

from nextword.errors import did_you_mean
from nextword.samplers.beam_sampler import BeamSampler
from nextword.samplers.contrastive_sampler import ContrastiveSampler
from nextword.samplers.greedy_sampler import GreedySampler
from nextword.samplers.random_sampler import RandomSampler
from nextword.samplers.sampler import Sampler
from nextword.samplers.speculative_sampler import SpeculativeSampler
from nextword.samplers.top_k_sampler import TopKSampler
from nextword.samplers.top_p_sampler import TopPSampler

_BY_NAME: dict[str, type[Sampler]] = {
    "beam": BeamSampler,
    "contrastive": ContrastiveSampler,
    "greedy": GreedySampler,
    "random": RandomSampler,
    "speculative": SpeculativeSampler,
    "top_k": TopKSampler,
    "top_p": TopPSampler,
}
_BY_CLASS_NAME = {cls.__name__: cls for cls in _BY_NAME.values()}
_PACKAGES = ("keras_hub", "keras_nlp", "nextword")
_CONFIG_KEYS = ("module", "class_name", "config", "registered_name")


def get(identifier: Any) -> Sampler | None:
    """Return the sampler that a name, class, configuration or sampler stands for.

    Args:
        identifier: a name such as `"top_k"`, a `Sampler` (returned as it is), a subclass of
            `Sampler` (called without arguments), a dict such as `serialize` makes, or None.

    Returns:
        The sampler; None for None.

    Raises:
        ValueError: the name is unknown, or the dict is not a sampler's configuration.
        TypeError: the identifier is none of these.

    Example:
    >>> get("top_k")
    TopKSampler(temperature=1.0, k=5, seed=None)
    """
    if identifier is None or isinstance(identifier, Sampler):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Sampler):
        return identifier()
    if isinstance(identifier, (str, Mapping)):
        return deserialize(identifier)
    raise TypeError(
        "A sampler must be a name, a `Sampler`, a subclass of it, or a configuration dict. "
        f"Received: {short_repr(identifier)}."
    )


def serialize(sampler: Sampler) -> dict[str, Any]:
    """Return a sampler's configuration, as JSON values that KerasHub can read too.

    Args:
        sampler: the sampler.

    Returns:
        A dict with the keys `module`, `class_name`, `config` and `registered_name`.

    Raises:
        TypeError: it is not a `Sampler`.
    """
    if not isinstance(sampler, Sampler):
        raise TypeError(f"`sampler` must be a `Sampler`. Received: sampler={short_repr(sampler)}.")
    cls = type(sampler)
    is_ours = _BY_CLASS_NAME.get(cls.__name__) is cls
    registered = keras.saving.get_registered_name(cls)
    name = registered if ">" in registered else f"Custom>{registered}"
    return {
        "module": "keras_hub.samplers" if is_ours else cls.__module__,
        "class_name": cls.__name__,
        "config": sampler.get_config(),
        "registered_name": f"keras_hub>{cls.__name__}" if is_ours else name,
    }


def deserialize(
    config: str | Mapping[str, Any], custom_objects: Mapping[str, type[Sampler]] | None = None
) -> Sampler:
    """Return the sampler that a name or a configuration describes.

    Args:
        config: a name (`"top_k"`, `"TopKSampler"`, `"keras_hub>TopKSampler"`), or a dict with a
            name as `class_name`, the constructor's arguments as `config`, and, if it was
            written by `serialize` or by KerasHub, `module` and `registered_name`.
        custom_objects: class name to class, for your own subclasses of `Sampler` that Keras does
            not know (`keras.saving.register_keras_serializable`, `keras.saving.CustomObjectScope`).

    Returns:
        The sampler.

    Raises:
        ValueError: the name is unknown, or the dict is not a sampler's configuration.
        TypeError: the constructor does not take the given arguments.
    """
    if isinstance(config, str):
        return _class_named(config, config, custom_objects or {})()
    _check_config(config)
    class_name = config["class_name"]
    registered_name = config.get("registered_name") or class_name
    cls = _class_named(class_name, registered_name, custom_objects or {})
    arguments = dict(config.get("config") or {})
    if issubclass(cls, SpeculativeSampler):
        return cls.from_config(arguments, custom_objects)
    return cls.from_config(arguments)


def _class_named(
    class_name: str, registered_name: str, custom_objects: Mapping[str, type[Sampler]]
) -> type[Sampler]:
    custom = custom_objects.get(registered_name) or custom_objects.get(class_name)
    if custom is not None:
        return custom
    package, separator, name = registered_name.rpartition(">")
    if not separator or package in _PACKAGES:
        found = _BY_NAME.get(name) or _BY_CLASS_NAME.get(name)
        if found is not None:
            return found
    for key in (registered_name, class_name):
        registered = keras.saving.get_registered_object(key)
        if isinstance(registered, type) and issubclass(registered, Sampler):
            return registered
    known = [*_BY_NAME, *custom_objects]
    raise ValueError(
        f"Unknown sampler {short_repr(registered_name)}."
        f"{did_you_mean(name, [*known, *_BY_CLASS_NAME])} "
        f"Known samplers: {', '.join(map(repr, known))}."
    )


def _check_config(config: Mapping[str, Any]) -> None:
    unknown = [key for key in config if key not in _CONFIG_KEYS]
    if unknown:
        raise ValueError(
            f"A sampler's configuration has the keys {', '.join(map(repr, _CONFIG_KEYS))}. "
            f"Received: {short_repr(unknown)}."
        )
    for key in ("class_name", "registered_name"):
        name = config.get(key)
        if not isinstance(name, str) and (key == "class_name" or name is not None):
            raise ValueError(
                f"`{key}` of a sampler's configuration must be a string. "
                f"Received: {key}={short_repr(name)}."
            )
    if not isinstance(config.get("config") or {}, Mapping):
        raise ValueError(
            "`config` of a sampler's configuration must be a dict of constructor arguments. "
            f"Received: config={short_repr(config['config'])}."
        )
