"""An opened preset, and the parts of a model that are made from it."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from nextword.errors import PresetError, did_you_mean
from nextword.layers import WeightSource
from nextword.models.backbone import Backbone
from nextword.models.family import Family, StoredFormat, find_family
from nextword.models.formats.keras import KerasClasses, PresetFormat, keras_hub_format
from nextword.models.loading import load_backbone
from nextword.models.quantizing import weight_format
from nextword.presets import resolve_preset
from nextword.presets.checkpoint import Checkpoint, open_checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.keras_config import (
    PREPROCESSOR,
    TASK,
    TOKENIZER,
    read_serialized,
)
from nextword.presets.sources import PresetSource
from nextword.tokenizers import Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from nextword.models.preprocessor import Preprocessor

_ASSETS = "assets/tokenizer"


@dataclass(frozen=True)
class OpenedPreset:
    """A preset of a known family.

    Attributes:
        checkpoint: its configuration and its tensors.
        family: the family that it belongs to.
        stored: how the family is stored in its file format.
    """

    checkpoint: Checkpoint
    family: Family
    stored: StoredFormat

    def backbone(
        self,
        *,
        load_weights: bool = True,
        dtype: Any = None,
        quantization: str | None = None,
        **overrides: Any,
    ) -> Backbone:
        """Return the backbone; see `load_backbone`.

        Raises:
            PresetError: the configuration or the weights are not what the family knows.
        """
        return load_backbone(
            self.checkpoint,
            self.family,
            self.stored,
            load_weights=load_weights,
            dtype=dtype,
            form=None if quantization is None else weight_format(quantization),
            overrides=overrides,
        )

    def preprocessor(self, **overrides: Any) -> "Preprocessor | None":
        """Return the preprocessor, None for a model that was saved without one.

        Args:
            **overrides: arguments of the preprocessor to use instead of the stored ones.

        Raises:
            PresetError: there is no tokenizer, or its files are not what they should be.
        """
        source = self._keras_source()
        if source is not None and _was_saved_without_preprocessor(source):
            return None
        tokenizer = self.tokenizer()
        cls = self.family.task.preprocessor_cls
        if source is None:
            arguments = cls.arguments_for(tokenizer)
        else:
            arguments = self._stored_preprocessor_arguments(source)
        try:
            return cls(tokenizer, **(arguments | overrides))
        except ValueError as error:
            raise PresetError(f"Preset {self.checkpoint.name!r} is not valid: {error}") from None

    def _stored_preprocessor_arguments(self, source: PresetSource) -> dict[str, Any]:
        """Return what preprocessor.json says, nothing where it is another task's."""
        path = source.find(PREPROCESSOR)
        task = self.family.task
        if path is None:
            return {}
        serialized = read_serialized(path)
        kinds = [classes.kind_of(serialized, task) for classes in self._keras_classes()]
        if f"{task.kind}Preprocessor" not in kinds:
            return {}
        config = ConfigReader(serialized.config, name=f"{PREPROCESSOR} of {source.name}")
        arguments = task.preprocessor_cls.stored_arguments(config)
        return {name: value for name, value in arguments.items() if value is not None}

    def head(
        self, given: Mapping[str, Any], *, load_weights: bool = True
    ) -> tuple[dict[str, Any], WeightSource | None]:
        """Return what the model has beside its backbone.

        Args:
            given: arguments to use instead of the stored ones. With the one that says how large the
                head is, it is a new one.
            load_weights: whether to take the stored weights of a stored head.

        Returns:
            The arguments of the task, and a source of the stored weights, None for random ones.

        Raises:
            PresetError: there is no head, or it is not what it should be.
        """
        task = self.family.task
        stored = self.stored.head(self.checkpoint, task)
        arguments = {**(stored.arguments if stored else {}), **given}
        if task.head_size is not None and task.head_size not in arguments:
            raise PresetError(
                f"{self.checkpoint.name} holds no head of a {task.__name__}. Pass "
                f"`{task.head_size}` for a new one with random weights."
            )
        if stored is None or task.head_size in given or not load_weights:
            return arguments, None
        return arguments, stored.weights()

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer.

        Raises:
            PresetError: there is none, or its files are not what they should be.
        """
        source = self._keras_source()
        if source is None:
            return load_tokenizer(self.checkpoint)
        return _keras_tokenizer(source, self._keras_classes())

    def check_vocabulary(self, backbone: Backbone, tokenizer: Tokenizer) -> None:
        """Check that a model has an embedding for every token of its tokenizer.

        Checkpoints of transformers are let pass: many list tokens that were never trained, and
        generation refuses them one by one.

        Raises:
            PresetError: it has not.
        """
        size = tokenizer.vocabulary_size()
        if self._keras_source() is not None and size > backbone.config.vocabulary_size:
            raise PresetError(
                f"The tokenizer of {self.checkpoint.name} must have at most the "
                f"{backbone.config.vocabulary_size} tokens of the model. Received: {size} tokens."
            )

    def _keras_classes(self) -> tuple[KerasClasses, ...]:
        assert isinstance(self.stored, PresetFormat)  # noqa: S101  # there is a source
        return self.stored.classes

    def _keras_source(self) -> PresetSource | None:
        if not isinstance(self.stored, PresetFormat):
            return None
        checkpoint: Any = self.checkpoint
        source: PresetSource = checkpoint.source
        return source


@contextmanager
def opened_preset(
    preset: Any, cls: type, part: str, *, weights: bool = True
) -> Iterator[OpenedPreset]:
    """Open a preset whose model, or a part of it, is of a class.

    Args:
        preset: see `resolve_preset`.
        cls: the class that `from_preset` was called on.
        part: how to get from the family's model to its class of this kind: "backbone_cls",
            "preprocessor_cls", or "" for the model itself.
        weights: whether the tensors are wanted. They are not fetched for a model that cannot be
            computed or is of another class.

    Raises:
        PresetError: the preset cannot be found, is not what it should be, or holds another class.
    """
    source = resolve_preset(preset)
    checkpoint = open_checkpoint(source, weights=False)
    try:
        family, stored = find_family(checkpoint)
        held = getattr(family.task, part) if part else family.task
        if not issubclass(held, cls):
            base = held.__mro__[1]  # of all families' models or parts of this kind
            raise PresetError(
                f"{checkpoint.name} holds a {held.__name__}, which is no {cls.__name__}. Load it "
                f"with {held.__name__}.from_preset or {base.__name__}.from_preset."
            )
        if weights and not checkpoint.tensor_names():  # they are in files of their own
            checkpoint.close()
            checkpoint = open_checkpoint(source)
        yield OpenedPreset(checkpoint, family, stored)
    finally:
        checkpoint.close()


def tokenizer_from_preset(preset: Any, cls: type[Tokenizer], **kwargs: Any) -> Tokenizer:
    """Return the tokenizer of a preset; see `Tokenizer.from_preset`."""
    check_arguments(kwargs, ("sequence_length",))
    checkpoint = open_checkpoint(resolve_preset(preset), weights=False)
    try:
        family, stored = find_family(checkpoint)
        tokenizer = OpenedPreset(checkpoint, family, stored).tokenizer()
    finally:
        checkpoint.close()
    # What is loaded from other formats than KerasHub's is of the kind, but not of the family's
    # class, whose rules it has from its files.
    keras_format = keras_hub_format(family)
    known = keras_format.classes if keras_format else ()
    if not isinstance(tokenizer, cls) and cls not in [each.tokenizer_cls for each in known]:
        raise PresetError(
            f"{checkpoint.name} holds a {type(tokenizer).__name__}, which is no {cls.__name__}. "
            "Load it with Tokenizer.from_preset."
        )
    for name, value in kwargs.items():
        setattr(tokenizer, name, value)
    return tokenizer


def check_arguments(
    given: Mapping[str, Any], allowed: Iterable[str], *, load_weights: Any = True
) -> None:
    """Check the keyword arguments of a `from_preset` before any work is done.

    Args:
        given: the arguments.
        allowed: the names there are.
        load_weights: the argument of this name.

    Raises:
        TypeError: an argument is not known or of the wrong type.
        ValueError: `dtype` is no dtype, or `quantization` no format.
    """
    allowed = tuple(allowed)
    for argument in given.keys() - set(allowed):
        hint = did_you_mean(argument, ("preset", "load_weights", *allowed))
        raise TypeError(f"`from_preset` has no argument {argument!r}.{hint}")
    if not isinstance(load_weights, bool):
        raise TypeError(
            f"`load_weights` must be True or False. Received: load_weights={load_weights!r}."
        )
    if given.get("dtype") is not None:
        keras.dtype_policies.get(given["dtype"])
    if given.get("quantization") is not None:
        weight_format(given["quantization"])


def backbone_arguments(cls: type[Backbone]) -> list[str]:
    """Return the names of the arguments that `from_preset` of a backbone takes."""
    own = inspect.signature(cls.describe).parameters
    is_concrete = not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in own.values())
    return ["dtype", "quantization", "name", "trainable", *(own if is_concrete else ())]


def _was_saved_without_preprocessor(source: PresetSource) -> bool:
    path = source.find(TASK)
    return path is not None and read_serialized(path).config.get("preprocessor", path) is None


def _keras_tokenizer(source: PresetSource, known: tuple[KerasClasses, ...]) -> Tokenizer:
    path = source.find(TOKENIZER)
    if path is None:
        raise PresetError(
            f"Preset {source.name!r} has no tokenizer: it has no {TOKENIZER}. Pass "
            "`preprocessor=None` to load the model without one."
        )
    serialized = read_serialized(path)
    own = [classes for classes in known if classes.package == serialized.package]
    by_name = {classes.name_of("Tokenizer"): classes for classes in own}
    classes = by_name.get(serialized.class_name)
    if classes is None or classes.tokenizer_cls is None:
        raise PresetError(
            f"Preset {source.name!r} has a {serialized.class_name}, which is not supported."
            f"{did_you_mean(serialized.class_name, by_name)}"
        )
    config = {k: v for k, v in serialized.config.items() if k not in classes.tokenizer_roles}
    return classes.tokenizer_cls.from_assets(config, _asset_directory(source, classes))


def _asset_directory(source: PresetSource, classes: KerasClasses) -> Path:
    """Return the local directory of the tokenizer's files, all of which are fetched."""
    cls = classes.tokenizer_cls
    assert cls is not None  # noqa: S101  # the caller has looked
    paths = [source.find(f"{_ASSETS}/{name}") for name in (*cls.asset_files, *cls.own_asset_files)]
    directories = {path.parent for path in paths if path is not None}
    if len(directories) != 1:
        raise PresetError(
            f"Preset {source.name!r} must have the files of its tokenizer in {_ASSETS!r}: "
            f"{', '.join(cls.asset_files)}."
        )
    return directories.pop()
