"""Checkpoints in GGUF, the format of llama.cpp: one file of metadata, tokenizer and tensors."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from nextword.errors import PresetError
from nextword.presets.gguf_reader import TensorExtent, read_header
from nextword.presets.handles import show
from nextword.presets.stored_tensors import StoredTensor, StoredTensors

_FLOATS = frozenset({"F32", "F16", "BF16"})
_QUANTIZED = frozenset(
    {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4"}
    | {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
)
_TOKENIZER = "tokenizer."
_NOT_IN_FILE = "GGUF."  # how the package's reader names the counts before the first key
_CHUNK_ELEMENTS = 2**18  # 1 MiB of float32: dequantising works in the processor's cache


@dataclass(frozen=True)
class QuantizedTensor(StoredTensor):
    """A tensor stored in blocks of small integers that share a scale."""

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def read(self) -> np.ndarray:
        """Return the tensor dequantised, as a float32 array of its own."""
        kind = GGMLQuantizationType[self.encoding]
        block, block_bytes = GGML_QUANT_SIZES[kind]
        row = self.shape[-1]
        rows = math.prod(self.shape[:-1])
        blocks = self._map(np.dtype(np.uint8), (rows, row // block * block_bytes))
        result = np.empty((rows, row), np.float32)
        step = max(1, _CHUNK_ELEMENTS // row)
        # Scales that are not finite are the file's: they give the weights that the file says.
        with np.errstate(invalid="ignore", over="ignore"):
            for start in range(0, rows, step):
                result[start : start + step] = dequantize(blocks[start : start + step], kind)
        return result.reshape(self.shape)


class GGUFCheckpoint(StoredTensors):
    """A model in one GGUF file. Opening it reads the header only.

    Tensors keep the names and the layout that they have in the file; their shapes are in numpy's
    order, so that a linear kernel is `[out, in]`.

    Args:
        path: the file.
        name: what to call it in messages. Defaults to the path.

    Attributes:
        format: `"gguf"`.
        architecture: the value of `general.architecture`.
        config: every key of the file but those of the tokenizer, to its plain Python value.
        tokenizer_data: every key that begins with `tokenizer.`, to its plain Python value; tokens,
            their kinds, their scores and merges are lists.

    Raises:
        PresetError: the file cannot be read, is damaged, lies about what it holds, is one part of
            several, names no architecture, or has tensors of a type that is not supported.

    Example:
        ```python
        source = nextword.presets.resolve_preset("smollm2_135m_instruct_en")
        checkpoint = GGUFCheckpoint(source.gguf_path())
        checkpoint.config["llama.block_count"]                  # 30
        checkpoint.tensor("blk.0.attn_k.weight").shape          # (192, 576)
        checkpoint.tokenizer_data["tokenizer.ggml.tokens"][1]   # "<|im_start|>"
        ```
    """

    format = "gguf"

    def __init__(self, path: Path, name: str | None = None) -> None:
        self._path = path
        header = read_header(path)
        tensors = [self._stored(extent) for extent in header.extents]
        super().__init__(str(path) if name is None else name, tensors)
        self.config: Mapping[str, Any] = {
            key: header.value(key)
            for key in header.fields
            if not key.startswith((_TOKENIZER, _NOT_IN_FILE))
        }
        self.tokenizer_data: Mapping[str, Any] = {
            key: header.value(key) for key in header.fields if key.startswith(_TOKENIZER)
        }
        self.architecture = self._architecture()
        self._check_whole()

    def _stored(self, extent: TensorExtent) -> StoredTensor:
        encoding = extent.type.name
        if encoding not in _FLOATS | _QUANTIZED:
            supported = ", ".join(sorted(_FLOATS | _QUANTIZED))
            raise PresetError(
                f"The tensor {show(extent.name)} of {show(str(self._path))} must be of a type that "
                f"nextword reads, which are {supported}. Received: {encoding}."
            )
        kind = StoredTensor if encoding in _FLOATS else QuantizedTensor
        return kind(extent.name, self._path, extent.offset, extent.shape, encoding)

    def _architecture(self) -> str:
        architecture = self.config.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise PresetError(
                f"{show(str(self._path))} must name its architecture in 'general.architecture'. "
                f"Received: {show(str(architecture))}."
            )
        return architecture

    def _check_whole(self) -> None:
        parts = self.config.get("split.count", 1)
        if parts not in (0, 1):
            raise PresetError(
                f"{show(str(self._path))} is one of {show(str(parts))[1:-1]} parts of a model: "
                "make one file of them with `llama-gguf-split --merge`."
            )
