"""Attention with linear biases (ALiBi, https://arxiv.org/abs/2108.12409)."""

from typing import Any

import numpy as np
from keras import ops


def alibi_slopes(num_heads: int) -> np.ndarray:
    """Return each head's penalty per token of distance.

    The slopes are a geometric series for a power of two of heads; for other numbers those of the
    next lower power of two, followed by every other slope of the next higher.

    Args:
        num_heads: number of attention heads.

    Returns:
        float32 array of shape `[num_heads]`.

    Example:
    >>> alibi_slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    power = 1 << (num_heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * (i + 1) / power) for i in range(power)]
    between = [2.0 ** (-4.0 * (i + 1) / power) for i in range(0, 2 * (num_heads - power), 2)]
    return np.array(slopes + between, dtype="float32")


def alibi_bias(
    slopes: np.ndarray, key_positions: Any, *, dtype: str = "float32", scale: float = 1.0
) -> Any:
    """Return what is added to attention scores.

    A head's bias is its slope times the key's position. That differs from minus the slope times the
    distance only by a constant for each query, which the softmax takes out.

    Args:
        slopes: float32 array of shape `[num_heads]`.
        key_positions: int32 tensor of shape `[batch or 1, key_length]`.
        dtype: slopes, positions and their products are rounded to it.
        scale: factor of the products.

    Returns:
        float32 tensor of shape `[batch or 1, num_heads, 1, key_length]`.
    """
    slopes = ops.cast(ops.convert_to_tensor(slopes), dtype)[None, :, None, None]
    biases = slopes * ops.cast(key_positions, dtype)[:, None, None, :]
    return ops.cast(biases, "float32") * scale
