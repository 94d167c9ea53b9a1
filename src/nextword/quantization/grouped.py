"""Weights of 4 or 8 bits in groups of 32 that share a scale, laid out for the native kernels.

A matrix `[out, in]` becomes unsigned codes, each standing for `scale * code + minimum`. Codes of 16
outputs lie interleaved, so that one vector load feeds 16 sums; that is the only difference to the
blocks of GGUF, whose codes, scales and minimums are kept bit for bit
(https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h).
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from nextword.ops.packed_layout import GROUP, TILE


@dataclasses.dataclass(frozen=True)
class GroupedFormat:
    """How the codes of a matrix are to be understood.

    Attributes:
        bits: 4 or 8.
        zero_point: the code that stands for 0, where a group has no minimum of its own; None where
            it has.
    """

    bits: int
    zero_point: int | None

    @property
    def group_bytes(self) -> int:
        """Number of bytes of the codes of a group of inputs and a tile of outputs."""
        return TILE * GROUP * self.bits // 8


Q4_0 = GroupedFormat(bits=4, zero_point=8)
Q4_1 = GroupedFormat(bits=4, zero_point=None)
Q8_0 = GroupedFormat(bits=8, zero_point=128)
GGUF_FORMATS = {"Q4_0": Q4_0, "Q4_1": Q4_1, "Q8_0": Q8_0}
"""The types of GGUF whose blocks are kept as they are."""


class GroupedMatrix(NamedTuple):
    """A packed matrix `[out, in]`; `out` is rounded up to a multiple of 16.

    Attributes:
        codes: uint8 array of shape `[out / 16, in / 32, group_bytes]`.
        scales: float16 array of shape `[out / 16, in / 32, 16]`.
        minimums: float16 array of the same shape; of size 0 where the format has a zero point.
    """

    codes: np.ndarray
    scales: np.ndarray
    minimums: np.ndarray


def shapes(out: int, inputs: int, form: GroupedFormat) -> GroupedMatrix:
    """Return the shapes of a packed matrix's arrays, each as an array of no elements' shape.

    Args:
        out: number of outputs.
        inputs: number of inputs, a multiple of 32.
        form: the format.

    Returns:
        A `GroupedMatrix` of uninitialised arrays.
    """
    tiles, groups = -(-out // TILE), inputs // GROUP
    parameters = (tiles, groups, TILE)
    return GroupedMatrix(
        np.empty((tiles, groups, form.group_bytes), np.uint8),
        np.empty(parameters, np.float16),
        np.empty(parameters if form.zero_point is None else (0, 0, 0), np.float16),
    )


def from_gguf(blocks: np.ndarray, form: GroupedFormat) -> GroupedMatrix:
    """Lay out the blocks of a GGUF tensor. Nothing is rounded.

    Args:
        blocks: uint8 array of shape `[out, bytes]`, the blocks of each output.
        form: their format.

    Example:
    >>> block = np.frombuffer(np.float16(0.5).tobytes() + bytes(range(32)), np.uint8)[None]
    >>> dequantize(from_gguf(block, Q8_0), Q8_0, out=1)[0, :3].tolist()
    [0.0, 0.5, 1.0]
    """
    codes_bytes = GROUP * form.bits // 8
    parameters = 1 if form.zero_point is not None else 2
    blocks = blocks.reshape(len(blocks), -1, 2 * parameters + codes_bytes)
    floats = np.ascontiguousarray(blocks[..., : 2 * parameters]).view("<f2")
    codes = blocks[..., 2 * parameters :]
    if form.bits == 8:
        codes = codes ^ 128  # signed to unsigned, 128 for 0
    # [out, groups, words, 4] to [tiles, groups, words, 16, 4]
    words = _tiled(codes.reshape(*codes.shape[:2], -1, 4)).transpose(0, 2, 3, 1, 4)
    scales, *minimums = (_tiled(floats[..., i]).transpose(0, 2, 1) for i in range(parameters))
    return GroupedMatrix(
        np.ascontiguousarray(words).reshape(*words.shape[:2], -1),
        np.ascontiguousarray(scales),
        np.ascontiguousarray(minimums[0]) if minimums else np.empty((0, 0, 0), np.float16),
    )


def _tiled(rows: np.ndarray) -> np.ndarray:
    """Split axis 0 into tiles, the last filled up with zeros."""
    missing = -len(rows) % TILE
    if missing:
        rows = np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
    return rows.reshape(-1, TILE, *rows.shape[1:])


def to_gguf(matrix: GroupedMatrix, form: GroupedFormat, *, out: int) -> np.ndarray:
    """Return the blocks that `from_gguf` takes, as a uint8 array of shape `[out, bytes]`.

    Args:
        matrix: the packed matrix.
        form: its format.
        out: number of outputs.
    """
    tiles, groups, _ = matrix.codes.shape
    words = matrix.codes.reshape(tiles, groups, -1, TILE, 4).transpose(0, 3, 1, 2, 4)
    codes = words.reshape(tiles * TILE, groups, -1)[:out]
    if form.bits == 8:
        codes = codes ^ 128
    floats = [matrix.scales] + ([matrix.minimums] if form.zero_point is None else [])
    parameters = [f.transpose(0, 2, 1).reshape(tiles * TILE, groups, 1)[:out] for f in floats]
    head = np.ascontiguousarray(np.concatenate(parameters, axis=-1)).view(np.uint8)
    return np.concatenate([head, codes], axis=-1).reshape(out, -1)


def dequantize(matrix: GroupedMatrix, form: GroupedFormat, *, out: int) -> np.ndarray:
    """Return the matrix, a float32 array of shape `[out, in]`.

    Args:
        matrix: the packed matrix.
        form: its format.
        out: number of outputs.
    """
    tiles, groups, _ = matrix.codes.shape
    words = matrix.codes.reshape(tiles, groups, -1, TILE, 4)
    if form.bits == 4:
        words = np.concatenate([words & 15, words >> 4], axis=2)
    codes = words.transpose(0, 3, 1, 2, 4).reshape(tiles, TILE, groups, GROUP)
    scales = matrix.scales.transpose(0, 2, 1)[..., None].astype(np.float32)
    if form.zero_point is None:
        minimums = matrix.minimums.transpose(0, 2, 1)[..., None].astype(np.float32)
        values = scales * codes + minimums
    else:
        values = scales * (codes.astype(np.float32) - form.zero_point)
    return values.reshape(tiles * TILE, groups * GROUP)[:out]


def quantize(matrix: np.ndarray, form: GroupedFormat) -> GroupedMatrix:
    """Round a matrix to the nearest codes of each group's range.

    Args:
        matrix: float array of shape `[out, in]`, `in` a multiple of 32.
        form: the format: with minimums a group's codes span its smallest to its largest value, with
            a zero point they are symmetric around it.

    Returns:
        The packed matrix.
    """
    groups = matrix.astype(np.float32).reshape(len(matrix), -1, GROUP)
    levels = 2**form.bits - 1
    if form.zero_point is None:
        low, high = groups.min(-1, keepdims=True), groups.max(-1, keepdims=True)
        minimums = low.astype(np.float16)
        scales = ((high - minimums) / levels).astype(np.float16)
    else:
        # The value of the largest magnitude gets the code that is the farthest from zero's.
        largest = np.take_along_axis(groups, np.abs(groups).argmax(-1)[..., None], -1)
        scales = (largest / -form.zero_point).astype(np.float16)
        minimums = -form.zero_point * scales.astype(np.float32)
    divisors = scales.astype(np.float32)
    divisors = np.where(divisors == 0, 1, divisors)
    codes = np.rint((groups - minimums.astype(np.float32)) / divisors).clip(0, levels)
    codes = codes.astype(np.uint8)
    codes = codes[..., :16] | codes[..., 16:] << 4 if form.bits == 4 else codes ^ 128
    floats = [scales, minimums] if form.zero_point is None else [scales]
    head = np.concatenate(floats, axis=-1).astype("<f2").view(np.uint8)
    return from_gguf(np.concatenate([head, codes], axis=-1).reshape(len(matrix), -1), form)
