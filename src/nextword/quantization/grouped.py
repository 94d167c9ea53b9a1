"""Weights of 4 or 8 bits in groups of 32 that share a scale, laid out for the native kernels.

A matrix `[out, in]` becomes unsigned codes, each standing for `scale * code + minimum`. Codes of 16
outputs lie interleaved, so that one vector load feeds 16 sums; that is the only difference to the
blocks of GGUF, whose codes, scales and minimums are kept bit for bit
(https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from nextword.ops import packed_linear, packed_rows
from nextword.ops.native.step_program import NativeMatrix
from nextword.ops.packed_layout import GROUP, TILE, unpack
from nextword.quantization.weight_format import Part

# Rounding takes several arrays of floats of the size of what is rounded: 4 MB each.
_CHUNK_ELEMENTS = 2**20


@dataclasses.dataclass(frozen=True)
class GroupedFormat:
    """A matrix as codes, scales and perhaps minimums.

    Its parts, with `out` rounded up to a multiple of 16 by rows of zeros:

    - "values": uint8 array of shape `[out / 16, in / 32, 64 * bits]`, the codes;
    - "scales": float16 array of shape `[out / 16, in / 32, 16]`;
    - "minimums": float16 array of that shape, if the format has them.

    Attributes:
        mode: what GGUF calls the type of its blocks, in lower case.
        bits: 4 or 8.
        zero_point: the code that stands for 0, where a group has no minimum of its own; None where
            it has.

    Example:
    >>> block = np.frombuffer(np.float16(0.5).tobytes() + bytes(range(32)), np.uint8)[None]
    >>> parts = Q8_0.from_gguf(block)
    >>> Q8_0.dequantize(parts)[0, :3].tolist()
    [0.0, 0.5, 1.0]
    """

    mode: str
    bits: int
    zero_point: int | None

    @property
    def block_bytes(self) -> int:
        """Number of bytes that GGUF takes for a group of one output."""
        return 2 * len(self._parameters) + GROUP * self.bits // 8

    def fits(self, shape: tuple[int, int]) -> bool:
        """Return whether the matrix has whole groups."""
        return shape[1] % GROUP == 0

    def parts(self, shape: tuple[int, int]) -> dict[str, Part]:
        """Return the parts of a matrix; see `WeightFormat`."""
        tiles, groups = -(-shape[0] // TILE), shape[1] // GROUP
        parameters = Part((tiles, groups, TILE), "float16")
        codes = Part((tiles, groups, TILE * GROUP * self.bits // 8), "uint8")
        return {"values": codes, **dict.fromkeys(self._parameters, parameters)}

    def apply(self, inputs: Any, parts: Mapping[str, Any]) -> Any:
        """Return `inputs @ matrix.T`; see `WeightFormat`."""
        return packed_linear(inputs, *self._arguments(parts), **self._options)

    def rows(self, indices: Any, parts: Mapping[str, Any]) -> Any:
        """Return some rows of the matrix; see `WeightFormat`."""
        return packed_rows(indices, *self._arguments(parts), **self._options)

    def floats(self, parts: Mapping[str, Any]) -> Any:
        """Return the matrix as a float32 tensor; see `WeightFormat`."""
        return unpack(*self._arguments(parts), **self._options)

    def native(self, shape: tuple[int, int], parts: Mapping[str, Any]) -> NativeMatrix:
        """Return the matrix as the native kernels read it; see `WeightFormat`."""
        return NativeMatrix(*shape, *self._arguments(parts), **self._options)

    def from_gguf(self, blocks: np.ndarray) -> dict[str, np.ndarray]:
        """Lay out the blocks of a GGUF tensor. Nothing is rounded.

        Args:
            blocks: uint8 array of shape `[out, bytes]`, the blocks of each output.

        Returns:
            The parts.
        """
        blocks = _tiled(blocks.reshape(len(blocks), -1, self.block_bytes))
        floats = 2 * len(self._parameters)
        # Words of four codes: [tiles, 16, groups, words] to [tiles, groups, words, 16].
        words = blocks[..., floats:].view("<u4").transpose(0, 2, 3, 1)
        words = np.ascontiguousarray(words)
        if self.bits == 8:
            words ^= np.uint32(0x80808080)  # signed to unsigned, 128 for 0
        parts = {"values": words.view(np.uint8).reshape(*words.shape[:2], -1)}
        parameters = blocks[..., :floats].view("<f2").transpose(3, 0, 2, 1)
        for name, values in zip(self._parameters, parameters, strict=True):
            parts[name] = np.ascontiguousarray(values)
        return parts

    def to_gguf(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the blocks that `from_gguf` takes, and those of the rows that fill up a tile."""
        tiles, groups, _ = parts["values"].shape
        words = parts["values"].reshape(tiles, groups, -1, TILE, 4).transpose(0, 3, 1, 2, 4)
        codes = words.reshape(tiles * TILE, groups, -1)
        if self.bits == 8:
            codes = codes ^ 128
        parameters = [self._per_output(parts[name]) for name in self._parameters]
        head = np.ascontiguousarray(np.concatenate(parameters, axis=-1)).view(np.uint8)
        return np.concatenate([head, codes], axis=-1).reshape(tiles * TILE, -1)

    def dequantize(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the matrix, float32; see `WeightFormat`."""
        tiles, groups, _ = parts["values"].shape
        words = parts["values"].reshape(tiles, groups, -1, TILE, 4)
        if self.bits == 4:
            words = np.concatenate([words & 15, words >> 4], axis=2)
        codes = words.transpose(0, 3, 1, 2, 4).reshape(tiles * TILE, groups, GROUP)
        scales = self._per_output(parts["scales"]).astype(np.float32)
        if self.zero_point is None:
            values = scales * codes + self._per_output(parts["minimums"]).astype(np.float32)
        else:
            values = scales * (codes.astype(np.float32) - self.zero_point)
        return values.reshape(tiles * TILE, groups * GROUP)

    def quantize(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        """Return the parts that `quantized_blocks` stand for; see `WeightFormat`."""
        return self.from_gguf(self.quantized_blocks(matrix))

    def quantized_blocks(self, matrix: np.ndarray) -> np.ndarray:
        """Return a matrix in GGUF's blocks, with the nearest codes of each group's range.

        With minimums a group's codes span its smallest to its largest value; with a zero point they
        are symmetric around it, and the value of the largest magnitude gets the farthest code.

        Args:
            matrix: float array of shape `[out, in]`.

        Returns:
            uint8 array of shape `[out, bytes]`.
        """
        step = max(1, _CHUNK_ELEMENTS // matrix.shape[1])
        starts = range(0, max(1, len(matrix)), step)
        return np.concatenate([self._rounded_rows(matrix[start:][:step]) for start in starts])

    def _rounded_rows(self, matrix: np.ndarray) -> np.ndarray:
        groups = matrix.astype(np.float32).reshape(len(matrix), -1, GROUP)
        levels = 2**self.bits - 1
        if self.zero_point is None:
            minimums = groups.min(-1, keepdims=True).astype(np.float16)
            scales = (groups.max(-1, keepdims=True) - minimums) / levels
            parameters = [scales.astype(np.float16), minimums]
            zeros = minimums.astype(np.float32)
        else:
            largest = np.take_along_axis(groups, np.abs(groups).argmax(-1)[..., None], -1)
            parameters = [(largest / -self.zero_point).astype(np.float16)]
            zeros = -self.zero_point * parameters[0].astype(np.float32)
        steps = parameters[0].astype(np.float32)
        steps = np.where(steps == 0, 1, steps)
        codes = np.rint((groups - zeros) / steps).clip(0, levels).astype(np.uint8)
        codes = codes[..., :16] | codes[..., 16:] << 4 if self.bits == 4 else codes ^ 128
        head = np.concatenate(parameters, axis=-1).astype("<f2").view(np.uint8)
        return np.concatenate([head, codes], axis=-1).reshape(len(matrix), -1)

    @property
    def _parameters(self) -> tuple[str, ...]:
        return ("scales", "minimums") if self.zero_point is None else ("scales",)

    @property
    def _options(self) -> dict[str, int]:
        return {"bits": self.bits, "zero_point": self.zero_point or 0}

    def _arguments(self, parts: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        return parts["values"], parts["scales"], parts.get("minimums")

    @staticmethod
    def _per_output(parameters: np.ndarray) -> np.ndarray:
        """Turn `[tiles, groups, 16]` into `[out, groups, 1]`."""
        return parameters.transpose(0, 2, 1).reshape(-1, parameters.shape[1], 1)


Q4_0 = GroupedFormat("q4_0", bits=4, zero_point=8)
Q4_1 = GroupedFormat("q4_1", bits=4, zero_point=None)
Q8_0 = GroupedFormat("q8_0", bits=8, zero_point=128)


def _tiled(rows: np.ndarray) -> np.ndarray:
    """Split axis 0 into tiles, the last filled up with zeros."""
    missing = -len(rows) % TILE
    if missing:
        rows = np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
    return rows.reshape(-1, TILE, *rows.shape[1:])
