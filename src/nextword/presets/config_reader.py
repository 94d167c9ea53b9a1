"""Read a checkpoint's configuration key by key, trusting none of it.

Every value is checked for type and range as it is read, and `check_all_read` names the keys that
nobody asked for: a setting that is silently ignored computes a different model.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from nextword.errors import PresetError
from nextword.presets.checkpoint import Checkpoint

_REQUIRED: Any = object()

# Keys of config.json that never change what a decoder computes at inference.
_TRANSFORMERS_BOOKKEEPING = frozenset(
    {
        "architectures",
        "auto_map",
        "attention_dropout",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "gradient_checkpointing",
        "initializer_range",
        "model_type",
        "name_or_path",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "return_dict",
        "task_specific_params",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "unk_token_id",
        "use_cache",
        "use_return_dict",
    }
)


# What every layer of Keras has, and `KerasCheckpoint` reads.
_KERAS_BOOKKEEPING = frozenset({"dtype", "name", "trainable"})


class ConfigReader:
    """A configuration whose keys are read with their type and range.

    Args:
        config: keys and values, from a file.
        name: what the configuration belongs to, for messages.
        bookkeeping: keys that need not be read. Nor need keys that begin with an underscore.

    Example:
    >>> config = ConfigReader({"hidden_size": 64}, name="config.json")
    >>> config.integer("hidden_size"), config.integer("head_dim", None)
    (64, None)
    """

    def __init__(
        self, config: Mapping[str, Any], *, name: str, bookkeeping: Collection[str] = ()
    ) -> None:
        self._config = config
        self._name = name
        self._known = set(bookkeeping)

    def integer(
        self, key: str, default: Any = _REQUIRED, *, minimum: int = 1, maximum: int = 2**31 - 1
    ) -> Any:
        """Return an integer in that range, or `default` where the key is absent or null."""

        def accepts(value: Any) -> bool:
            return type(value) is int and minimum <= value <= maximum

        return self._value(key, default, f"an integer from {minimum} to {maximum}", accepts)

    def number(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return a finite positive number, or `default` where the key is absent or null."""
        value = self._value(key, default, "a finite positive number", _is_positive)
        return float(value) if type(value) is int else value

    def fraction(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return a number in [0, 1), or `default` where the key is absent or null."""

        def accepts(value: Any) -> bool:
            return type(value) in (int, float) and 0 <= value < 1

        return self._value(key, default, "a number in [0, 1)", accepts)

    def boolean(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return true or false, or `default` where the key is absent or null."""
        return self._value(key, default, "true or false", lambda value: type(value) is bool)

    def booleans(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return a list of true and false, or `default` where the key is absent or null."""
        return self._list(key, default, "true and false", lambda value: type(value) is bool)

    def indices(self, key: str, size: int, default: Any = _REQUIRED) -> Any:
        """Return a list of integers below `size`, or `default` where the key is absent or null."""

        def accepts(value: Any) -> bool:
            return type(value) is int and 0 <= value < size

        return self._list(key, default, f"integers from 0 to {size - 1}", accepts)

    def numbers(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return a list of positive numbers, or `default` where the key is absent or null."""
        return self._list(key, default, "finite positive numbers", _is_positive)

    def strings(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return a list of strings, or `default` where the key is absent or null."""
        return self._list(key, default, "strings", lambda value: type(value) is str)

    def choice(self, key: str, choices: Collection[Any], default: Any = _REQUIRED) -> Any:
        """Return one of `choices`, or `default` where the key is absent or null."""
        expected = " or ".join(map(repr, choices))
        return self._value(key, default, expected, lambda value: _is_one_of(value, choices))

    def expect(self, **settings: Any) -> None:
        """Check settings that have but one value, which is also that of an absent or null key.

        Args:
            **settings: the value by the key.

        Raises:
            PresetError: a setting has another value.

        Example:
        >>> ConfigReader({"mlp_bias": False}, name="config.json").expect(mlp_bias=False)
        """
        for key, value in settings.items():
            self.choice(key, [value], value)

    def choices(
        self, key: str, choices: Collection[Any], length: int, default: Any = _REQUIRED
    ) -> Any:
        """Return a list of `length` of `choices`, or `default` where the key is absent or null."""

        def accepts(value: Any) -> bool:
            return (
                isinstance(value, list)
                and len(value) == length
                and all(_is_one_of(entry, choices) for entry in value)
            )

        return self._value(
            key, default, f"a list of {length} of {' or '.join(map(repr, choices))}", accepts
        )

    def section(self, key: str) -> "ConfigReader | None":
        """Return a reader of a nested object, or None where the key is absent or null."""
        value = self.mapping(key, None)
        return None if value is None else ConfigReader(value, name=f"{key!r} in {self._name}")

    def mapping(self, key: str, default: Any = _REQUIRED) -> Any:
        """Return an object with nothing in it checked, or `default` where the key is absent."""
        return self._value(key, default, "an object", lambda value: isinstance(value, Mapping))

    def integer_or_null(self, key: str, default: int) -> int | None:
        """Return an integer, `default` where the key is absent, and None where it is null."""
        return None if self.is_null(key) else self.integer(key, default)

    def number_or_null(self, key: str, default: float) -> float | None:
        """Return a number, `default` where the key is absent, and None where it is null."""
        return None if self.is_null(key) else self.number(key, default)

    def is_null(self, key: str) -> bool:
        """Return whether the key is there and null, where that differs from its absence."""
        return key in self._config and self._config[key] is None

    def skip(self, *keys: str) -> None:
        """Mark keys as known to change nothing."""
        self._known.update(keys)

    def check_all_read(self) -> None:
        """Raise if the configuration has a key that nobody has read.

        Raises:
            PresetError: names the keys.
        """
        unread = [
            f"{key}={_shortened(value)}"
            for key, value in self._config.items()
            if key not in self._known and not key.startswith("_") and value is not None
        ]
        if unread:
            raise PresetError(
                f"{self._name} has settings that nextword does not know and that could change what "
                f"the model computes: {', '.join(unread[:5])}."
            )

    def _list(self, key: str, default: Any, expected: str, accepts: Callable[[Any], bool]) -> Any:
        def accepts_list(value: Any) -> bool:
            return isinstance(value, list) and all(map(accepts, value))

        return self._value(key, default, f"a list of {expected}", accepts_list)

    def _value(self, key: str, default: Any, expected: str, accepts: Callable[[Any], bool]) -> Any:
        self._known.add(key)
        value = self._config.get(key)
        if value is None:
            if default is _REQUIRED:
                raise PresetError(f"{self._name} lacks the key {key!r}, {expected}.")
            return default
        if not accepts(value):
            raise PresetError(
                f"The key {key!r} of {self._name} must be {expected}. Received: "
                f"{_shortened(value)}."
            )
        return value


def transformers_settings(checkpoint: Checkpoint) -> ConfigReader:
    """Return a reader of a transformers checkpoint's config.json."""
    return ConfigReader(
        checkpoint.config, name=checkpoint.name, bookkeeping=_TRANSFORMERS_BOOKKEEPING
    )


def keras_settings(checkpoint: Checkpoint) -> ConfigReader:
    """Return a reader of the arguments of a backbone in a KerasHub preset."""
    return ConfigReader(checkpoint.config, name=checkpoint.name, bookkeeping=_KERAS_BOOKKEEPING)


def gguf_settings(checkpoint: Checkpoint) -> ConfigReader:
    """Return a reader of the keys that a GGUF file holds under its architecture's name."""
    settings = _WithoutPrefix(checkpoint.config, f"{checkpoint.architecture}.")
    return ConfigReader(settings, name=checkpoint.name)


class _WithoutPrefix(Mapping[str, Any]):
    """The entries of a mapping whose keys have a prefix, without it.

    Args:
        mapping: looked into whenever an entry is asked for.
        prefix: what their keys begin with.
    """

    def __init__(self, mapping: Mapping[str, Any], prefix: str) -> None:
        self._mapping = mapping
        self._prefix = prefix

    def __getitem__(self, key: str) -> Any:
        return self._mapping[f"{self._prefix}{key}"]

    def __iter__(self) -> Iterator[str]:
        for key in self._mapping:
            if key.startswith(self._prefix):
                yield key.removeprefix(self._prefix)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _is_one_of(value: Any, choices: Collection[Any]) -> bool:
    return any(type(value) is type(choice) and value == choice for choice in choices)


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def _shortened(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"
