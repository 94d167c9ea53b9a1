"""Tensors stored in the blocks of GGUF: small integers that share a scale."""

import math
from dataclasses import dataclass

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from nextword.presets.stored_tensors import StoredTensor

QUANTIZED = frozenset(
    {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "MXFP4"}
    | {"Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
)
"""The types of blocks that are read."""

_CHUNK_ELEMENTS = 2**18  # 1 MiB of float32: dequantising works in the processor's cache


@dataclass(frozen=True)
class QuantizedTensor(StoredTensor):
    """A tensor stored in blocks of small integers that share a scale."""

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.float32)

    def blocks(self) -> np.ndarray:
        """Return the blocks of each row, uint8 of shape `[rows, bytes]`, memory-mapped."""
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[self.encoding]]
        bytes_of_a_row = self.shape[-1] // block * block_bytes
        return self._map(np.dtype(np.uint8), (math.prod(self.shape[:-1]), bytes_of_a_row))

    def read(self) -> np.ndarray:
        """Return the tensor dequantised, as a float32 array of its own."""
        kind = GGMLQuantizationType[self.encoding]
        blocks = self.blocks()
        row = self.shape[-1]
        result = np.empty((len(blocks), row), np.float32)
        step = max(1, _CHUNK_ELEMENTS // row)
        # Scales that are not finite are the file's: they give the weights that the file says.
        with np.errstate(invalid="ignore", over="ignore"):
            for start in range(0, len(blocks), step):
                result[start : start + step] = dequantize(blocks[start : start + step], kind)
        return result.reshape(self.shape)
