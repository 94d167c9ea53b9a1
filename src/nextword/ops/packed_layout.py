"""How packed weights lie in memory, and the way back to floats."""

from typing import Any

from keras import ops

GROUP = 32
"""Number of inputs whose weights for one output share a scale."""
TILE = 16
"""Number of outputs whose codes lie interleaved."""


def unpack(codes: Any, scales: Any, minimums: Any | None, *, bits: int, zero_point: int) -> Any:
    """Return packed weights as a float32 tensor of shape `[out, in]`; see `packed_linear`."""
    tiles, groups = codes.shape[:2]
    words = ops.reshape(codes, (tiles, groups, -1, TILE, 4))
    if bits == 4:
        words = ops.concatenate([ops.bitwise_and(words, 15), ops.right_shift(words, 4)], axis=2)
    words = ops.cast(ops.transpose(words, (0, 3, 1, 2, 4)), "float32")
    words = ops.reshape(words, (tiles, TILE, groups, GROUP))
    scales = _per_output(scales)
    if minimums is None:
        values = scales * (words - zero_point)
    else:
        values = scales * words + _per_output(minimums)
    return ops.reshape(values, (tiles * TILE, groups * GROUP))


def _per_output(parameters: Any) -> Any:
    return ops.cast(ops.transpose(parameters, (0, 2, 1)), "float32")[..., None]
