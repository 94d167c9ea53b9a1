"""How a tokenizer is written to files and read again."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from nextword.errors import PresetError, did_you_mean
from nextword.presets.class_presets import ClassPresets
from nextword.tokenizers.assets import (
    CONFIGURATION_FILES,
    END_TOKEN_IDS,
    write_configuration,
)
from nextword.tokenizers.chat_template import ChatTemplate

if TYPE_CHECKING:
    from nextword.tokenizers.tokenizer import Tokenizer

# What a Keras layer's configuration holds and a tokenizer, which is none here, has no use for.
_LAYER_KEYS = frozenset(["name", "trainable", "dtype", "config_file"])

_TEXTS = ("suffix_indicator", "oov_token", "split_pattern")
_MAX_SEQUENCE = 1 << 24  # every text takes so much memory


class SavedTokenizer(ABC):
    """The part of `Tokenizer` that has to do with files.

    Attributes:
        asset_files: names of the files with the vocabulary, as KerasHub's presets have them.
        own_asset_files: names of the files that `save_assets` may write beside them.
        config_keys: keys of `get_config`, which are arguments of the constructor.
        presets: the built-in presets that the class can load, by name.
    """

    asset_files: ClassVar[tuple[str, ...]] = ()
    own_asset_files: ClassVar[tuple[str, ...]] = CONFIGURATION_FILES
    config_keys: ClassVar[tuple[str, ...]] = ("sequence_length",)
    presets = ClassPresets()

    end_token_ids: tuple[int, ...]
    add_start_token: bool
    chat_template: ChatTemplate | None
    _roles: dict[str, str]

    @abstractmethod
    def _save_vocabulary(self, directory: Path) -> None:
        """Write the files with the vocabulary."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor that are no assets, as JSON values."""
        return {key: getattr(self, key) for key in self.config_keys}

    def save_assets(self, directory: str | Path) -> None:
        """Write the files from which `from_assets` makes the same tokenizer again.

        Beside the files of KerasHub (`asset_files`) there are others in the format of
        transformers, which hold what KerasHub's cannot: how text is split, the special tokens,
        the end tokens, the chat template.

        Args:
            directory: where to write them; it must exist.
        """
        directory = Path(directory)
        self._save_vocabulary(directory)
        template = self.chat_template
        write_configuration(
            directory,
            roles=self._roles,
            chat_template=None if template is None else template.source,
            further={
                "add_bos_token": self.add_start_token,
                END_TOKEN_IDS: list(self.end_token_ids),
                **self._further_configuration(),
            },
        )

    @abstractmethod
    def _save_for_transformers(
        self, directory: Path, *, start_token: str | None, end_token: str | None = None
    ) -> None:
        """Write the vocabulary as transformers keeps it, with what is put around a text."""

    def save_for_transformers(
        self, directory: str | Path, *, add_start_token: bool, add_end_token: bool = False
    ) -> None:
        """Write the files from which transformers' `AutoTokenizer` makes the same tokenizer.

        Args:
            directory: where to write them; it must exist.
            add_start_token: whether the start token, if there is one, is put before every text.
            add_end_token: whether the end token is put behind every text, and behind the second of
                a pair, which then has no start token. For models that are told the two apart.

        Raises:
            PresetError: transformers has no such tokenizer.

        Example:
        ```python
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_for_transformers(folder, add_start_token=False)
        ```
        """
        directory = Path(directory)
        adds = add_start_token and "bos_token" in self._roles
        self._save_for_transformers(
            directory,
            start_token=self._roles["bos_token"] if adds else None,
            end_token=self._roles["eos_token"] if add_end_token else None,
        )
        # Where it is said what begins a text, transformers makes up what is around a pair.
        further: dict[str, Any] = (
            {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
            if add_end_token
            else {"add_bos_token": adds}
        )
        template = self.chat_template
        write_configuration(
            directory,
            roles=self._roles,
            chat_template=None if template is None else template.source,
            # The class that does what tokenizer.json says, whatever the model.
            further={"tokenizer_class": "PreTrainedTokenizerFast", **further},
        )

    def _further_configuration(self) -> dict[str, Any]:
        """Return more keys for tokenizer_config.json."""
        return {}

    @classmethod
    def from_preset(cls, preset: Any, **kwargs: Any) -> "Tokenizer":
        """Return the tokenizer of a preset. Weights that are in files of their own are not fetched.

        Args:
            preset: a built-in name, a handle, a local directory or a `.gguf` file.
            **kwargs: `sequence_length`.

        Returns:
            The tokenizer, of the class that the preset tells.

        Raises:
            PresetError: the preset cannot be found, is not what it should be, or holds a tokenizer
                of another class.
            TypeError: an argument is not known.

        Example:
        ```python
        tokenizer = nextword.tokenizers.Tokenizer.from_preset("smollm2_135m_instruct_en")
        ```
        """
        # Which class it is, the families know. They are in a room above, so they are asked at run
        # time, which the rest of this room does without.
        above = importlib.import_module("nextword.models.opened_preset")
        tokenizer: Tokenizer = above.tokenizer_from_preset(preset, cls, **kwargs)
        return tokenizer

    @classmethod
    @abstractmethod
    def from_assets(cls, config: Mapping[str, Any], directory: str | Path) -> "Tokenizer":
        """Return the tokenizer that `save_assets` wrote, or KerasHub.

        Args:
            config: what `get_config` returned. The keys that KerasHub writes beside these, such
                as "name" and "dtype", are ignored.
            directory: where the files are.

        Returns:
            The tokenizer. It is of this class where only KerasHub's files are there; a
            tokenizer.json beside them may need another.

        Raises:
            PresetError: a file is missing or damaged, or the configuration has unknown keys.
        """

    @classmethod
    def _arguments(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the constructor's arguments that a stored configuration holds."""
        assets = ("vocabulary", "merges", "proto")
        known = {*cls.config_keys, *_LAYER_KEYS, *assets}
        for key in config.keys() - known:
            raise PresetError(
                f"The configuration of a {cls.__name__} must have no key {str(key)[:80]!r}."
                f"{did_you_mean(str(key)[:80], cls.config_keys)}"
            )
        arguments = {key: config[key] for key in cls.config_keys if key in config}
        for key, value in arguments.items():
            if not _is_valid(key, value):
                raise PresetError(
                    f"The configuration of a {cls.__name__} must have another value for {key!r}. "
                    f"Received: {str(value)[:80]!r}."
                )
        return arguments


def _is_valid(key: str, value: Any) -> bool:
    if key == "sequence_length":
        return value is None or (type(value) is int and 0 < value <= _MAX_SEQUENCE)
    if key in ("unsplittable_tokens", "special_tokens"):
        return value is None or (isinstance(value, list) and set(map(type, value)) <= {str})
    return isinstance(value, str if key in _TEXTS else bool)
