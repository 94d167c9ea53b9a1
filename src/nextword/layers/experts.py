"""A mixture of expert feed-forward networks (https://arxiv.org/abs/2101.03961)."""

from typing import Any

import keras
from keras import ops

from nextword.layers.config import DecoderConfig
from nextword.layers.feed_forward import activation_function
from nextword.layers.layer import Layer
from nextword.layers.linear import Linear


class Experts(Layer):
    """Gated feed-forward networks, of which a router chooses a few for each token.

    The router's probabilities of the chosen experts, divided by their sum, weigh the experts'
    outputs. Every expert computes every token, and those that were not chosen get weight 0: that
    keeps shapes fixed, at the price of work that grows with the number of experts.

    Args:
        config: the decoder's description, with `num_experts`.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.
    """

    def __init__(self, config: DecoderConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if config.num_experts is None or not config.feed_forward_gate or config.feed_forward_bias:
            raise ValueError(
                "Experts need `num_experts`, and are gated and without biases. Received: "
                f"num_experts={config.num_experts}, feed_forward_gate={config.feed_forward_gate}, "
                f"feed_forward_bias={config.feed_forward_bias}."
            )
        self.num_experts = config.num_experts
        self.experts_per_token = config.experts_per_token
        self.intermediate_dim = config.intermediate_dim
        self.activation = activation_function(config.activation)
        self.router = Linear(self.num_experts, name="router", dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.router.build(input_shape)
        hidden_dim, inner = input_shape[-1], self.intermediate_dim
        initializer = keras.initializers.RandomNormal(stddev=0.02)
        for name, shape in (
            ("gate", (self.num_experts, inner, hidden_dim)),
            ("intermediate", (self.num_experts, inner, hidden_dim)),
            ("feed_forward_output", (self.num_experts, hidden_dim, inner)),
        ):
            setattr(self, name, self.add_weight(name=name, shape=shape, initializer=initializer))

    def call(self, hidden_states: Any, training: bool | None = None) -> Any:
        """Transform each token by the experts chosen for it.

        Args:
            hidden_states: float tensor of shape `[batch, length, hidden_dim]`.
            training: not used.

        Returns:
            Float tensor of the same shape.
        """
        weights = ops.cast(self._router_weights(hidden_states), hidden_states.dtype)
        gates = ops.einsum("bth,eih->btei", hidden_states, self.gate)
        intermediate = ops.einsum("bth,eih->btei", hidden_states, self.intermediate)
        intermediate = self.activation(gates) * intermediate * ops.expand_dims(weights, -1)
        return ops.einsum("btei,ehi->bth", intermediate, self.feed_forward_output)

    def _router_weights(self, hidden_states: Any) -> Any:
        """Return each expert's weight for each token, `[batch, length, num_experts]`."""
        probabilities = ops.softmax(ops.cast(self.router(hidden_states), "float32"), axis=-1)
        chosen, experts = ops.top_k(probabilities, self.experts_per_token)
        chosen = chosen / ops.sum(chosen, axis=-1, keepdims=True)
        one_hot = ops.one_hot(experts, self.num_experts, dtype="float32")
        return ops.sum(one_hot * ops.expand_dims(chosen, -1), axis=-2)
