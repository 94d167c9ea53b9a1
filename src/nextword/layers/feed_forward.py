"""The feed-forward network of a transformer layer."""

from typing import Any

import keras

from nextword.layers.config import Activation, DecoderConfig
from nextword.layers.layer import Layer
from nextword.layers.linear import Linear


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
    return keras.activations.get(name)


class FeedForward(Layer):
    """Two projections with an activation between, optionally gated.

    Args:
        config: the decoder's description.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.
    """

    def __init__(self, config: DecoderConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation_function(config.activation)
        self.gate = (
            self._linear("gate", config.intermediate_dim, config)
            if config.feed_forward_gate
            else None
        )
        self.intermediate = self._linear("intermediate", config.intermediate_dim, config)
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
            intermediate = self.activation(intermediate)
        else:
            intermediate = self.activation(self.gate(hidden_states)) * intermediate
        outputs = self.feed_forward_output(intermediate)
        return self.feed_forward_dropout(outputs, training=training)
