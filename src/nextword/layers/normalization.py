"""Normalization of the residual stream."""

from typing import Any, Literal

import keras
from keras import ops

from nextword.layers.config import DecoderConfig
from nextword.layers.layer import Layer
from nextword.ops.native.step_program import Register, StepProgram


class Normalization(Layer):
    """Normalize the last axis, in float32 whatever the compute dtype.

    Args:
        kind: "rms" (https://arxiv.org/abs/1910.07467: no mean, no bias) or "layer"
            (https://arxiv.org/abs/1607.06450).
        epsilon: added to the variance before its square root.
        offset: added to the scale, which then starts at `1 - offset`.
        use_bias: whether layer normalization has a bias.
        each_head: whether the last axis but one is heads, each with a scale of its own.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.

    Example:
    >>> import numpy as np
    >>> round(Normalization("rms", epsilon=1e-6)(np.full((1, 4), 3.0, "float32"))[0, 0].item(), 5)
    1.0
    """

    def __init__(
        self,
        kind: Literal["rms", "layer"],
        *,
        epsilon: float,
        offset: float = 0.0,
        use_bias: bool = True,
        each_head: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.epsilon = epsilon
        self.offset = offset
        self.use_bias = use_bias
        self.each_head = each_head

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = input_shape[-2:] if self.each_head else input_shape[-1:]
        self.scale = self.add_weight(
            name="scale", shape=shape, initializer=keras.initializers.Constant(1 - self.offset)
        )
        self.bias = (
            self.add_weight(name="bias", shape=shape, initializer="zeros")
            if self.kind == "layer" and self.use_bias
            else None
        )

    def call(self, inputs: Any) -> Any:
        hidden = ops.cast(inputs, "float32")
        if self.kind == "layer":
            hidden = hidden - ops.mean(hidden, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(hidden), axis=-1, keepdims=True)
        hidden = hidden * ops.rsqrt(variance + self.epsilon)
        hidden = hidden * (ops.cast(self.scale, "float32") + self.offset)
        if self.bias is not None:
            hidden = hidden + ops.cast(self.bias, "float32")
        return ops.cast(hidden, self.compute_dtype)

    def emit(self, program: StepProgram, inputs: Register, heads: int = 1) -> Register:
        """Normalize in a native step.

        Args:
            program: what the instruction is added to.
            inputs: what to normalize.
            heads: how many heads the inputs are, each of which is normalized.
        """
        return program.norm(
            inputs,
            self.scale,
            self.bias,
            heads=heads,
            is_centered=self.kind == "layer",
            epsilon=self.epsilon,
            offset=self.offset,
        )

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kind": self.kind,
            "epsilon": self.epsilon,
            "offset": self.offset,
            "use_bias": self.use_bias,
            "each_head": self.each_head,
        }


def norm_layer(config: DecoderConfig, **kwargs: Any) -> Normalization:
    """Return a normalization of the kind that a decoder uses.

    Args:
        config: the decoder's description.
        **kwargs: `name`, `dtype` and the like, and arguments of `Normalization`.
    """
    own = {"use_bias": config.norm_bias, "epsilon": config.norm_epsilon}
    return Normalization(config.norm, offset=config.norm_offset, **(own | kwargs))
