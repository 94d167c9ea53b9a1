"""Presets of families that KerasHub does not have: its files, with classes and names of our own.

A family declares nothing for them. The classes are nextword's, and each variable is stored as it
is, under its path.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from nextword.errors import PresetError
from nextword.layers import DecoderConfig
from nextword.models.family import Family
from nextword.models.formats.keras import KerasClasses, PresetFormat
from nextword.models.formats.keras_arguments import keras_arguments
from nextword.models.formats.keras_quantization import block_modes, in_blocks, stored_in_blocks
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import keras_settings
from nextword.presets.keras_config import NEXTWORD, serialized_dtype, serialized_policies
from nextword.presets.weight_table import Stored, WeightTable
from nextword.quantization import FORMATS, INT8, WeightFormat
from nextword.tokenizers import (
    BytePairTokenizer,
    ConvertedSentencePieceTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
)

_TOKENIZERS: tuple[type[Tokenizer], ...] = (
    BytePairTokenizer,
    ConvertedSentencePieceTokenizer,
    SentencePieceTokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
)


class OwnFormat(PresetFormat):
    """How a family is stored that KerasHub does not have."""

    def classes_for(self, tokenizer: Tokenizer | None) -> KerasClasses:
        """Return the classes with the tokenizer's.

        Raises:
            PresetError: a preset cannot hold a tokenizer of this class.
        """
        for classes in self.classes:
            if tokenizer is None or isinstance(tokenizer, classes.tokenizer_cls or ()):
                return classes
        names = ", ".join(cls.__name__ for cls in _TOKENIZERS)
        raise PresetError(
            f"A preset can hold a tokenizer of the classes {names}. Received: a "
            f"{type(tokenizer).__name__}."
        )

    def table_of(
        self, config: DecoderConfig, paths: Iterable[str], modes: Mapping[str, str]
    ) -> WeightTable:
        return {**{path: Stored(path) for path in paths}, **stored_in_blocks(modes)}

    def dtype_of(self, policy: str, modes: Mapping[str, str]) -> dict[str, Any]:
        int8 = [path for path, mode in modes.items() if not in_blocks(mode)]
        if not int8:
            return serialized_dtype(policy)
        return serialized_policies(policy, {p.rpartition("/")[0]: INT8.mode for p in int8})


def with_presets(family: Family) -> Family:
    """Return a family that can be saved as a preset."""
    if "keras" in family.formats:
        return family
    return dataclasses.replace(family, formats={**family.formats, "nextword": _format(family)})


def _format(family: Family) -> OwnFormat:
    task = family.task
    backbone_cls = task.backbone_cls

    def table(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
        # Which variables there are, the tables of another format tell.
        tables = (stored.weights(checkpoint, config) for stored in elsewhere)
        return {path: Stored(path) for table in tables for path in table}

    def weights(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
        in_floats = table(checkpoint, config)
        scales = (f"{path}_scale" for path in _int8_matrices(checkpoint, in_floats))
        blocks = stored_in_blocks(block_modes(checkpoint, in_floats))
        return {**in_floats, **{path: Stored(path) for path in scales}, **blocks}

    elsewhere = tuple(family.stored_in("transformers"))
    return OwnFormat(
        architectures=(backbone_cls.__name__,),
        settings=keras_settings,
        reader=lambda config, _: keras_arguments(config, backbone_cls),
        weights=weights,
        packed=_int8_matrices,
        classes=tuple(
            KerasClasses(
                prefix=task.__name__.removesuffix(task.kind),
                module=backbone_cls.__module__.rpartition(".")[2],
                tokenizer_cls=cls,
                tokenizer_name=cls.__name__,
                package=NEXTWORD,
            )
            for cls in _TOKENIZERS
        ),
        backbone_cls=backbone_cls,
    )


def _int8_matrices(checkpoint: Any, table: WeightTable) -> dict[str, WeightFormat]:
    """Return the matrices of a preset that are int8, see `StoredFormat.packed`."""
    stored = checkpoint.tensor_names()
    return {
        path: FORMATS[checkpoint.int8_mode]
        for path in table
        if path.endswith(("/kernel", "embeddings"))
        and path in stored
        and checkpoint.encoding(path) == "I8"
    }
