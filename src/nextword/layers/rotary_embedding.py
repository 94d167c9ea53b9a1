"""Rotary position embedding (https://arxiv.org/abs/2104.09864), half-split layout.

Dimension `j` of a head is rotated together with dimension `j + head_dim / 2`. Checkpoints that
rotate neighbouring pairs are permuted to this layout when they are read.
"""

import math
from typing import Any

import numpy as np
from keras import ops

from nextword.layers.rotary_config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    PairScaling,
    RotaryConfig,
    YarnScaling,
)


class RotaryEmbedding:
    """Rotates queries and keys by angles proportional to the token's position.

    Args:
        rotary: base and scaling of the frequencies.
        head_dim: width of a head.

    Attributes:
        pairs: how many pairs of a head's numbers are rotated.

    Example:
    >>> rotary = RotaryEmbedding(RotaryConfig(theta=100.0), 4)
    >>> rotary.frequencies().tolist()
    [1.0, 0.10000000149011612]
    """

    def __init__(self, rotary: RotaryConfig, head_dim: int) -> None:
        self._rotary = rotary
        self._dimensions = rotary.dimensions(head_dim)
        self.pairs = self._dimensions // 2

    @property
    def angles(self) -> tuple[RotaryConfig, int]:
        """What the angles follow from: two embeddings that agree on it rotate alike."""
        return self._rotary, self._dimensions

    def frequencies(self, lengths: Any = None) -> Any:
        """Return the angle per position of each rotated pair, in radians.

        Args:
            lengths: int32 tensor of shape `[batch]`, the number of tokens of each text. Only
                scalings that depend on it need it.

        Returns:
            float32 array of shape `[pairs]`, or `[batch, pairs]` where it depends on `lengths`.
        """
        theta, dimensions = self._rotary.theta, self._dimensions
        exponents = np.arange(0, dimensions, 2, dtype="float64") / dimensions
        frequencies = theta**-exponents
        match self._rotary.scaling:
            case LinearScaling(factor=factor):
                frequencies = frequencies / factor
            case Llama3Scaling() as scaling:
                frequencies = _llama3_scaled(frequencies, scaling)
            case PairScaling(factors=factors):
                frequencies = frequencies / np.asarray(factors)
            case YarnScaling() as scaling:
                frequencies = _yarn_scaled(frequencies, scaling, theta)
            case DynamicScaling(factor=factor, original_context_length=context):
                excess = ops.maximum(ops.cast(lengths, "float32") / context - 1, 0)[:, None]
                growth = (1 + factor * excess) ** (dimensions / (dimensions - 2))
                shrunk = ops.power(growth, ops.convert_to_tensor(-exponents.astype("float32")))
                return ops.convert_to_tensor(frequencies.astype("float32")) * shrunk
            case LongRopeScaling(original_context_length=context) as scaling:
                short, long = (
                    (frequencies / np.asarray(factors)).astype("float32")
                    for factors in (scaling.short_factors, scaling.long_factors)
                )
                return ops.where(ops.expand_dims(lengths > context, -1), long, short)
        return frequencies.astype("float32")

    def cosines_and_sines(self, positions: Any, lengths: Any) -> tuple[Any, Any]:
        """Return what the pairs of a head are rotated by.

        Args:
            positions: int32 tensor of shape `[batch or 1, length]`.
            lengths: int32 tensor of shape `[batch or 1]`, see `frequencies`.

        Returns:
            Two float32 tensors of shape `[batch or 1, 1, length, pairs]`.
        """
        frequencies = ops.convert_to_tensor(self.frequencies(lengths))
        if len(frequencies.shape) == 2:
            frequencies = frequencies[:, None, None, :]
        angles = ops.cast(positions, "float32")[:, None, :, None] * frequencies
        cos, sin = ops.cos(angles), ops.sin(angles)
        if (scaling := self._rotary.scaling) is not None and scaling.magnitude != 1:
            cos, sin = cos * scaling.magnitude, sin * scaling.magnitude
        return cos, sin

    def table(self, positions: Any, lengths: Any) -> Any:
        """Return what `cosines_and_sines` does as one tensor `[batch or 1, length, 2 * pairs]`."""
        return ops.concatenate(self.cosines_and_sines(positions, lengths), axis=-1)[:, 0]

    def __call__(self, heads: Any, rotation: tuple[Any, Any]) -> Any:
        """Rotate heads.

        Args:
            heads: float tensor of shape `[batch, num_heads, length, head_dim]`.
            rotation: the `cosines_and_sines` of the tokens.

        Returns:
            Tensor of the shape and dtype of `heads`. Dimensions behind the rotated ones stay as
            they are.
        """
        cos, sin = rotation
        pairs = self.pairs
        first = ops.cast(heads[..., :pairs], "float32")
        second = ops.cast(heads[..., pairs : 2 * pairs], "float32")
        rotated = [first * cos - second * sin, second * cos + first * sin]
        parts = [ops.cast(part, heads.dtype) for part in rotated]
        if 2 * pairs < heads.shape[-1]:
            parts.append(heads[..., 2 * pairs :])
        return ops.concatenate(parts, axis=-1)


def _llama3_scaled(frequencies: np.ndarray, scaling: Llama3Scaling) -> np.ndarray:
    turns_in_context = scaling.original_context_length * frequencies / (2 * np.pi)
    # 0 where the wavelength is to be stretched, 1 where it is kept.
    kept = (turns_in_context - scaling.low_frequency_factor) / (
        scaling.high_frequency_factor - scaling.low_frequency_factor
    )
    kept = np.clip(kept, 0.0, 1.0)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def _yarn_scaled(frequencies: np.ndarray, scaling: YarnScaling, theta: float) -> np.ndarray:
    pairs = len(frequencies)

    def pair_that_turns(times: float) -> float:
        """Return the index of the pair that turns that often in the context, as a fraction."""
        wavelength = scaling.original_context_length / times
        return pairs * math.log(wavelength / (2 * math.pi)) / math.log(theta)

    first, last = pair_that_turns(scaling.fast_turns), pair_that_turns(scaling.slow_turns)
    if scaling.whole_pairs:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, 2 * pairs - 1)
    # 0 where the frequency is kept, 1 where it is stretched.
    stretched = np.clip((np.arange(pairs) - first) / max(last - first, 1e-3), 0, 1)
    return frequencies / scaling.factor * stretched + frequencies * (1 - stretched)
