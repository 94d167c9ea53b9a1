"""One layer of the decoder: attention and feed-forward, each around the residual stream."""

from typing import Any

import keras
from keras import ops

from nextword.layers.attention import Attention, LayerCache
from nextword.layers.config import DecoderConfig
from nextword.layers.feed_forward import FeedForward
from nextword.layers.layer import Layer
from nextword.layers.normalization import Normalization


class TransformerLayer(Layer):
    """A pre-normalized transformer layer as a `DecoderConfig` describes it.

    Args:
        config: the decoder's description.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.
    """

    def __init__(self, config: DecoderConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        policy = self.dtype_policy
        self.self_attention_norm = Normalization(
            config.norm, epsilon=config.norm_epsilon, name="self_attention_norm", dtype=policy
        )
        self.self_attention = Attention(config, name="self_attention", dtype=policy)
        self.feed_forward_norm = Normalization(
            config.norm, epsilon=config.norm_epsilon, name="feed_forward_norm", dtype=policy
        )
        self.feed_forward = FeedForward(config, name="feed_forward", dtype=policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.self_attention_norm.build(input_shape)
        self.self_attention.build(input_shape)
        self.feed_forward_norm.build(input_shape)
        self.feed_forward.build(input_shape)

    def call(
        self,
        hidden_states: Any,
        padding_mask: Any | None = None,
        positions: Any | None = None,
        cache: LayerCache | None = None,
        training: bool | None = None,
    ) -> Any:
        """Add what attention and feed-forward say to the residual stream.

        Args:
            hidden_states: float tensor of shape `[batch, length, hidden_dim]`.
            padding_mask: see `Attention.call`.
            positions: int32 tensor of shape `[batch or 1, length]`; by default 0, 1, 2, …
            cache: see `Attention.call`.
            training: whether dropout is active.

        Returns:
            Float tensor of shape `[batch, length, hidden_dim]`.
        """
        if positions is None:
            positions = ops.expand_dims(ops.arange(ops.shape(hidden_states)[1], dtype="int32"), 0)
        hidden_states = hidden_states + self.self_attention(
            self.self_attention_norm(hidden_states),
            positions,
            padding_mask=padding_mask,
            cache=cache,
            training=training,
        )
        return hidden_states + self.feed_forward(
            self.feed_forward_norm(hidden_states), training=training
        )

    def compute_output_spec(self, hidden_states: Any, **kwargs: Any) -> keras.KerasTensor:
        # Known without tracing the call, which makes building a deep model cheap.
        return keras.KerasTensor(hidden_states.shape, dtype=self.compute_dtype)
