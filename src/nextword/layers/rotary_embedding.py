"""Rotary position embedding (https://arxiv.org/abs/2104.09864), half-split layout.

Dimension `j` of a head is rotated together with dimension `j + head_dim / 2`. Checkpoints that
rotate neighbouring pairs are permuted to this layout when they are read.
"""

from typing import Any

import numpy as np
from keras import ops

from nextword.layers.config import LinearScaling, Llama3Scaling, RotaryConfig


def inverse_frequencies(rotary: RotaryConfig, dimensions: int) -> np.ndarray:
    """Return the angle per position of each rotated pair, in radians.

    Args:
        rotary: base and scaling of the frequencies.
        dimensions: number of rotated dimensions of a head; even.

    Returns:
        float32 array of shape `[dimensions / 2]`.

    Example:
    >>> inverse_frequencies(RotaryConfig(theta=100.0), 4).tolist()
    [1.0, 0.10000000149011612]
    """
    frequencies = rotary.theta ** -(np.arange(0, dimensions, 2, dtype="float64") / dimensions)
    match rotary.scaling:
        case LinearScaling(factor=factor):
            frequencies = frequencies / factor
        case Llama3Scaling() as scaling:
            frequencies = _llama3_scaled(frequencies, scaling)
    return frequencies.astype("float32")


def _llama3_scaled(frequencies: np.ndarray, scaling: Llama3Scaling) -> np.ndarray:
    turns_in_context = scaling.original_context_length * frequencies / (2 * np.pi)
    # 0 where the wavelength is to be stretched, 1 where it is kept.
    kept = (turns_in_context - scaling.low_frequency_factor) / (
        scaling.high_frequency_factor - scaling.low_frequency_factor
    )
    kept = np.clip(kept, 0.0, 1.0)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def rotate(heads: Any, positions: Any, frequencies: np.ndarray) -> Any:
    """Rotate each head's dimensions by angles proportional to the token's position.

    Args:
        heads: float tensor of shape `[batch, num_heads, length, head_dim]`.
        positions: int32 tensor of shape `[batch, length]`.
        frequencies: float32 array with the frequency of each rotated pair, see
            `inverse_frequencies`. Dimensions behind the pairs stay as they are.

    Returns:
        Tensor of the shape and dtype of `heads`. Angles are computed in float32.
    """
    angles = ops.cast(positions, "float32")[:, None, :, None] * ops.convert_to_tensor(frequencies)
    cos, sin = ops.cos(angles), ops.sin(angles)
    pairs = len(frequencies)
    first = ops.cast(heads[..., :pairs], "float32")
    second = ops.cast(heads[..., pairs : 2 * pairs], "float32")
    rotated = [first * cos - second * sin, second * cos + first * sin]
    parts = [ops.cast(part, heads.dtype) for part in rotated]
    if 2 * pairs < heads.shape[-1]:
        parts.append(heads[..., 2 * pairs :])
    return ops.concatenate(parts, axis=-1)
