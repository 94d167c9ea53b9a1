"""`Matrix`: the matrix of a layer, and the low-rank update of it that LoRA trains."""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from nextword.layers.layer import Layer
from nextword.ops import linear


@dataclass(frozen=True)
class LowRankUpdate:
    """What LoRA adds to a matrix: `alpha / rank * b @ a` (https://arxiv.org/abs/2106.09685).

    It is kept and computed in float32, whatever the dtype of the matrix.

    Attributes:
        a: variable of shape `[rank, in]`.
        b: variable of shape `[out, rank]`.
        alpha: the strength of the update.
    """

    a: keras.Variable
    b: keras.Variable
    alpha: float

    @property
    def rank(self) -> int:
        """The most dimensions that the update has."""
        rank: int = self.a.shape[0]
        return rank

    @property
    def factors(self) -> tuple[keras.Variable, keras.Variable]:
        """The variables."""
        return self.a, self.b

    @property
    def scale(self) -> float:
        """The factor of `b @ a`."""
        return self.alpha / self.rank

    def apply(self, inputs: Any) -> Any:
        """Return what is added to `inputs @ matrix.T`."""
        outputs = linear(linear(ops.cast(inputs, "float32"), self.a), self.b)
        return ops.cast(outputs * self.scale, inputs.dtype)

    def rows(self, indices: Any) -> Any:
        """Return what is added to some rows of the matrix, in float32."""
        return ops.matmul(ops.take(self.b, indices, axis=0), self.a) * self.scale


class Matrix:
    """A matrix `[out, in]` that a layer projects with, or looks rows up in.

    Its variables belong to the layer and bear the layer's path.

    Args:
        layer: the layer, while it is built.
        name: name of the variable.
        shape: `(out, in)`.

    Attributes:
        shape: as given.
        variable: the matrix without its update.
        update: the low-rank update that is trained instead of it, or None.
    """

    def __init__(self, layer: Layer, name: str, shape: tuple[int, int]) -> None:
        self._layer = layer
        self._name = name
        self.shape = shape
        self.variable = layer.add_weight(
            name=name, shape=shape, initializer=keras.initializers.RandomNormal(stddev=0.02)
        )
        self.update: LowRankUpdate | None = None

    @property
    def path(self) -> str:
        """The path of the variable."""
        return f"{self._layer.path}/{self._name}"

    def apply(self, inputs: Any, bias: Any | None = None) -> Any:
        """Return `inputs @ matrix.T + bias`.

        Args:
            inputs: float tensor of shape `[..., in]`.
            bias: optional tensor of shape `[out]`.

        Returns:
            Float tensor of shape `[..., out]`.
        """
        outputs = linear(inputs, self.variable, bias)
        return outputs if self.update is None else outputs + self.update.apply(inputs)

    def rows(self, indices: Any) -> Any:
        """Return some rows.

        Args:
            indices: integer tensor of any shape `[...]`.

        Returns:
            Float tensor of shape `[..., in]`.
        """
        rows = ops.take(self.variable, indices, axis=0)
        if self.update is None:
            return rows
        return rows + ops.cast(self.update.rows(indices), rows.dtype)

    def enable_lora(self, rank: int, alpha: float) -> None:
        """Add a low-rank update, zero at first, and freeze the matrix itself.

        Args:
            rank: rank of the update.
            alpha: the update is `alpha / rank` times the product of its factors.
        """
        rows, columns = self.shape
        limit = math.sqrt(6 / columns)  # He's uniform initialization of `columns` inputs
        uniform = keras.initializers.RandomUniform(-limit, limit)
        with self._layer.unlocked():
            self.update = LowRankUpdate(
                a=self._add_factor("a", (rank, columns), uniform),
                b=self._add_factor("b", (rows, rank), "zeros"),
                alpha=alpha,
            )
        self.variable.trainable = False

    def _add_factor(self, name: str, shape: tuple[int, int], initializer: Any) -> keras.Variable:
        return self._layer.add_weight(
            name=f"lora_{self._name}_{name}",
            shape=shape,
            initializer=initializer,
            dtype="float32",
            autocast=False,
        )

    def merged(self) -> np.ndarray:
        """Return the matrix with its update, in the dtype of the matrix."""
        value = np.asarray(ops.convert_to_numpy(self.variable))
        if self.update is not None:
            a, b = map(ops.convert_to_numpy, self.update.factors)
            value = value.astype("float32") + np.float32(self.update.scale) * (b @ a)
        return value.astype(self.variable.dtype, copy=False)
