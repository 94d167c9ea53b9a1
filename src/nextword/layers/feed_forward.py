"""The feed-forward network of a transformer layer."""

from typing import Any

import keras
from keras import ops

from nextword.layers.config import Activation, DecoderConfig
from nextword.layers.layer import Layer
from nextword.layers.linear import Linear
from nextword.ops.native.step_program import Register, StepProgram


def activation_function(name: Activation) -> Any:
    """Return the activation called `name`.

    Example:
    >>> activation_function("relu")([-1.0, 2.0]).tolist()
    [0.0, 2.0]
    """
    if name == "gelu_tanh":
        return lambda inputs: keras.activations.gelu(inputs, approximate=True)
    if name == "gelu":
        return lambda inputs: keras.activations.gelu(inputs, approximate=False)
    if name == "quick_gelu":
        return lambda inputs: inputs * ops.sigmoid(1.702 * inputs)
    if name == "relu_squared":
        return lambda inputs: ops.square(ops.relu(inputs))
    return keras.activations.get(name)


def gated(config: DecoderConfig, gate: Any, intermediate: Any) -> Any:
    """Return the product of an activated gate and what it gates.

    Args:
        config: the decoder's description.
        gate: float tensor.
        intermediate: float tensor of the same shape.
    """
    if (limit := config.gate_limit) is not None:
        gate = ops.minimum(gate, ops.cast(limit, gate.dtype))
        intermediate = ops.clip(intermediate, -limit, limit) + 1
    return activation_function(config.activation)(gate) * intermediate


class FeedForward(Layer):
    """Two projections with an activation between, optionally gated.

    Args:
        config: the decoder's description.
        intermediate_dim: width inside, if it is not that of `config`.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.
    """

    def __init__(
        self, config: DecoderConfig, intermediate_dim: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.config = config
        width = intermediate_dim or config.intermediate_dim
        self.gate = self._linear("gate", width, config) if config.feed_forward_gate else None
        self.intermediate = self._linear("intermediate", width, config)
        self.feed_forward_output = self._linear("feed_forward_output", config.hidden_dim, config)
        self.feed_forward_dropout = keras.layers.Dropout(config.dropout, dtype=self.dtype_policy)

    def _linear(self, name: str, units: int, config: DecoderConfig) -> Linear:
        use_bias = config.feed_forward_bias
        return Linear(units, use_bias=use_bias, name=name, dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if self.gate is not None:
            self.gate.build(input_shape)
        self.intermediate.build(input_shape)
        self.feed_forward_output.build((*input_shape[:-1], self.intermediate.units))

    def call(self, hidden_states: Any, training: bool | None = None) -> Any:
        """Transform each token on its own.

        Args:
            hidden_states: float tensor of shape `[batch, length, hidden_dim]`.
            training: whether dropout is active.

        Returns:
            Float tensor of the same shape.
        """
        intermediate = self.intermediate(hidden_states)
        if self.gate is None:
            intermediate = activation_function(self.config.activation)(intermediate)
        else:
            intermediate = gated(self.config, self.gate(hidden_states), intermediate)
        outputs = self.feed_forward_output(intermediate)
        return self.feed_forward_dropout(outputs, training=training)

    def emit(self, program: StepProgram, inputs: Register) -> Register:
        """Compute in a native step what `call` returns."""
        layers = [self.intermediate] if self.gate is None else [self.gate, self.intermediate]
        projected = program.linear(inputs, *(layer.native() for layer in layers))
        activated = program.activate(
            self.config.activation, *projected, limit=self.config.gate_limit
        )
        (outputs,) = program.linear(activated, self.feed_forward_output.native())
        return outputs
