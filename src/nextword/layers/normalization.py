"""Normalization of the residual stream."""

from typing import Any, Literal

from keras import ops

from nextword.layers.layer import Layer


class Normalization(Layer):
    """Normalize the last axis, in float32 whatever the compute dtype.

    Args:
        kind: "rms" (https://arxiv.org/abs/1910.07467: no mean, no bias) or "layer"
            (https://arxiv.org/abs/1607.06450).
        epsilon: added to the variance before its square root.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.

    Example:
    >>> import numpy as np
    >>> Normalization("rms", epsilon=1e-6)(np.full((1, 4), 3.0, "float32"))[0, 0].item()
    1.0
    """

    def __init__(self, kind: Literal["rms", "layer"], *, epsilon: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (input_shape[-1],)
        self.scale = self.add_weight(name="scale", shape=shape, initializer="ones")
        self.bias = (
            self.add_weight(name="bias", shape=shape, initializer="zeros")
            if self.kind == "layer"
            else None
        )

    def call(self, inputs: Any) -> Any:
        hidden = ops.cast(inputs, "float32")
        if self.kind == "layer":
            hidden = hidden - ops.mean(hidden, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(hidden), axis=-1, keepdims=True)
        hidden = hidden * ops.rsqrt(variance + self.epsilon)
        hidden = hidden * ops.cast(self.scale, "float32")
        if self.bias is not None:
            hidden = hidden + ops.cast(self.bias, "float32")
        return ops.cast(hidden, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "kind": self.kind, "epsilon": self.epsilon}
