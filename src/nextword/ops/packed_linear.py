"""The matrix product with packed weights: codes of 4 or 8 bits in groups that share a scale."""

import functools
from typing import Any

from keras import ops

from nextword.ops.linear import linear
from nextword.ops.native import can_call_kernels, kernel_calls, on_rows
from nextword.ops.packed_layout import TILE, unpack


def packed_linear(
    inputs: Any, codes: Any, scales: Any, minimums: Any | None, *, bits: int, zero_point: int
) -> Any:
    """Return `inputs @ weights.T`, where a weight is `scale * (code - zero_point)`.

    Args:
        inputs: float tensor of shape `[..., in]`.
        codes: uint8 tensor of shape `[out / 16, in / 32, 64 * bits]`. The codes of a tile of 16
            outputs and a group of 32 inputs lie together as `[input / 4, output, input % 4]`. Of
            codes of 4 bits, the low halves of the bytes are those of the first 16 inputs, the high
            halves those of the others.
        scales: float16 tensor of shape `[out / 16, in / 32, 16]`.
        minimums: float16 tensor of the same shape, and a weight is `scale * code + minimum`; or
            None.
        bits: 4 or 8.
        zero_point: the code that stands for 0, if there are no minimums.

    Returns:
        Tensor of shape `[..., out]` in the dtype of `inputs`.
    """
    if can_call_kernels(inputs):
        kernel = functools.partial(kernel_calls().packed_linear, bits=bits, zero_point=zero_point)
        return on_rows(kernel, inputs, codes, scales, minimums)
    weights = unpack(codes, scales, minimums, bits=bits, zero_point=zero_point)
    return linear(inputs, ops.cast(weights, inputs.dtype))


def packed_rows(
    indices: Any,
    codes: Any,
    scales: Any,
    minimums: Any | None,
    *,
    bits: int,
    zero_point: int,
) -> Any:
    """Return some rows of the weights.

    Args:
        indices: int32 tensor of any shape.
        codes: see `packed_linear`.
        scales: see `packed_linear`.
        minimums: see `packed_linear`.
        bits: see `packed_linear`.
        zero_point: see `packed_linear`.

    Returns:
        float32 tensor of shape `[*indices.shape, in]`.
    """
    flat = ops.reshape(indices, (-1,))
    tiles, within = flat // TILE, flat % TILE
    taken = [None if p is None else ops.take(p, tiles, axis=0) for p in (codes, scales, minimums)]
    # The tiles of the rows, of each of which one row is wanted.
    weights = unpack(*taken, bits=bits, zero_point=zero_point)
    weights = ops.reshape(weights, (-1, TILE, weights.shape[-1]))
    rows = ops.take_along_axis(weights, within[:, None, None], axis=1)
    return ops.reshape(rows, (*indices.shape, weights.shape[-1]))
