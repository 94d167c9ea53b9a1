"""`Preprocessor`: the base of what turns raw samples into a model's inputs."""

import abc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import numpy as np

from nextword.models.opened_preset import check_arguments, opened_preset
from nextword.preprocessing import deserialize_tokenizer, serialize_tokenizer
from nextword.presets import PresetError
from nextword.presets.class_presets import ClassPresets
from nextword.presets.config_reader import ConfigReader
from nextword.tokenizers import Tokenizer


class Preprocessor(abc.ABC):
    """Turns raw samples into the inputs of a model, on the way into `fit` and the like.

    A subclass defines `__call__`.

    Args:
        tokenizer: splits text into token ids.
        sequence_length: number of tokens in a sample. Can be set at any time.

    Attributes:
        config_keys: the constructor's arguments besides the tokenizer; each is an attribute, too.
        presets: the built-in presets that the class can load, by name.

    Raises:
        ValueError: `sequence_length` is not a positive integer.
    """

    config_keys: ClassVar[tuple[str, ...]] = ("sequence_length",)
    presets = ClassPresets()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable(package="nextword")(cls)

    def __init__(self, tokenizer: Tokenizer, sequence_length: int = 1024) -> None:
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length

    @classmethod
    def stored_arguments(cls, config: ConfigReader) -> dict[str, Any]:
        """Read the constructor's arguments besides the tokenizer, None for what is not stored.

        Args:
            config: what a preset says of the preprocessor.
        """
        return {"sequence_length": config.integer("sequence_length", None)}

    @classmethod
    def arguments_for(cls, tokenizer: Tokenizer) -> dict[str, Any]:
        """Return what the tokenizer of a checkpoint says of the other arguments.

        Args:
            tokenizer: of a checkpoint that was saved without a preprocessor.
        """
        return {}

    @abc.abstractmethod
    def __call__(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Return what the model takes for some samples.

        Args:
            x: inputs.
            y: labels, or None.
            sample_weight: weights, or None.

        Returns:
            `x`, `(x, y)` or `(x, y, sample_weight)`.
        """

    @property
    def sequence_length(self) -> int:
        """Number of tokens in a sample."""
        return self._sequence_length

    @sequence_length.setter
    def sequence_length(self, value: int) -> None:
        self._sequence_length = checked_length(value)

    @classmethod
    def from_preset(cls, preset: Any, **kwargs: Any) -> Self:
        """Load the preprocessor of a preset; called on a base class, it is of the right subclass.

        Args:
            preset: see `Task.from_preset`. Weights are not fetched, unless they are in one file
                with the rest.
            **kwargs: the constructor's arguments besides the tokenizer, instead of those in the
                preset.

        Raises:
            PresetError: the preset cannot be found, or has no such preprocessor.
            TypeError: an argument is not known.

        Example:
        ```python
        preprocessor = nextword.models.CausalLMPreprocessor.from_preset(
            "smollm2_135m_instruct_en", sequence_length=64
        )
        ```
        """
        check_arguments(kwargs, cls.config_keys)
        with opened_preset(preset, cls, "preprocessor_cls", weights=False) as opened:
            preprocessor: Any = opened.preprocessor(**kwargs)
        if preprocessor is None:
            raise PresetError(f"Preset {str(preset)!r} was saved without a preprocessor.")
        return preprocessor

    def save_to_preset(
        self, preset_dir: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Save the preprocessor and its tokenizer to a preset; see `Task.save_to_preset`.

        Args:
            preset_dir: the directory. A backbone of the same family in it is kept.
            overwrite: whether another preset in the directory may be replaced.

        Raises:
            PresetError: the directory holds something else, and `overwrite` is not set.
        """
        from nextword.models.saving import PresetWriter  # which needs the families, and they this

        PresetWriter(preprocessor=self).write(preset_dir, overwrite=overwrite)

    def export_to_transformers(
        self, path: str | os.PathLike[str], *, overwrite: bool = False
    ) -> None:
        """Write the tokenizer for transformers' `AutoTokenizer`.

        Args:
            path: the directory. A model that was exported to it is kept.
            overwrite: whether another model in the directory may be replaced.

        Raises:
            PresetError: transformers has no such tokenizer, or the directory holds something else,
                and `overwrite` is not set.
        """
        # Needs the families, and they this.
        from nextword.models.transformers_export import export_to_transformers

        export_to_transformers(path, preprocessor=self, overwrite=overwrite)

    def write_tokenizer_for_transformers(self, directory: Path) -> None:
        """Write the tokenizer's files, with what is put around a text.

        Args:
            directory: where to write them; it must exist.
        """
        self.tokenizer.save_for_transformers(directory, add_start_token=False)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, the tokenizer with all its files, as JSON values."""
        settings = {key: getattr(self, key) for key in self.config_keys}
        return {"tokenizer": serialize_tokenizer(self.tokenizer), **settings}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return the preprocessor of a configuration that `get_config` returned.

        Raises:
            PresetError: the tokenizer in it is missing or damaged.
            ValueError: another value in it is out of its range.
            TypeError: a key in it is not known.
        """
        return cls(**{**config, "tokenizer": deserialize_tokenizer(config.get("tokenizer"))})

    def _pad_token_id(self) -> int:
        pad_token_id = self.tokenizer.pad_token_id
        return 0 if pad_token_id is None else pad_token_id


def checked_length(value: Any) -> int:
    """Return a `sequence_length`.

    Raises:
        ValueError: it is not a positive integer.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"`sequence_length` must be a positive integer. Received: {value!r}.")
    return int(value)
