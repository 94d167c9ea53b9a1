"""Attention whose keys and values are made of one small latent vector for each token."""

from typing import Any

import keras
from keras import ops

from nextword import ops as nextword_ops
from nextword.layers.attention import LayerCache, attention_mask, merge_heads, text_lengths
from nextword.layers.config import DecoderConfig
from nextword.layers.layer import Layer
from nextword.layers.linear import Linear
from nextword.layers.normalization import Normalization
from nextword.layers.rotary_embedding import RotaryEmbedding


class LatentAttention(Layer):
    """Causal multi-head latent attention (https://arxiv.org/abs/2405.04434, section 2.1).

    A token's key and value in each head are linear in a latent vector that all heads share, apart
    from a few rotated dimensions of the key, which they share, too. Only the latent and these are
    cached. They are never expanded: queries are projected into the latent space instead, and so is
    what attention returns into the values' space.

    Args:
        config: the decoder's description, with `latent`.
        layer: index of the layer that the attention belongs to.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.
    """

    def __init__(self, config: DecoderConfig, layer: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if config.latent is None:
            raise ValueError("Latent attention needs `latent`. Received: None.")
        self.config = config
        self.latent = latent = config.latent
        self.window = config.window(layer)
        heads, bias = config.num_query_heads, config.query_key_value_bias
        has_query_latent = latent.query_rank is not None
        self.query_down = (
            self._linear("query_down", latent.query_rank, bias) if has_query_latent else None
        )
        self.query_norm = self._norm("query_norm") if has_query_latent else None
        self.query = self._linear("query", heads * latent.unrotated_dim)
        self.query_rotated = self._linear("query_rotated", heads * latent.rotated_dim)
        self.key_value_down = self._linear("key_value_down", latent.key_value_rank, bias)
        self.key_value_norm = self._norm("key_value_norm")
        self.key_rotated = self._linear("key_rotated", latent.rotated_dim, bias)
        self.attention_output = self._linear(
            "attention_output", config.hidden_dim, config.attention_output_bias
        )
        self.attention_dropout = keras.layers.Dropout(config.dropout, dtype=self.dtype_policy)
        rotary = config.rotary_of(layer)
        self.rotary = RotaryEmbedding(rotary, latent.rotated_dim) if rotary else None

    def _linear(self, name: str, units: Any, use_bias: bool = False) -> Linear:
        return Linear(units, use_bias=use_bias, name=name, dtype=self.dtype_policy)

    def _norm(self, name: str) -> Normalization:
        epsilon = self.latent.norm_epsilon
        return Normalization("rms", epsilon=epsilon, name=name, dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        latent, heads = self.latent, self.config.num_query_heads
        query_shape = input_shape
        if self.query_down is not None and self.query_norm is not None:
            self.query_down.build(input_shape)
            query_shape = (*input_shape[:-1], latent.query_rank)
            self.query_norm.build(query_shape)
        self.query.build(query_shape)
        self.query_rotated.build(query_shape)
        self.key_value_down.build(input_shape)
        self.key_value_norm.build((*input_shape[:-1], latent.key_value_rank))
        self.key_rotated.build(input_shape)
        initializer = keras.initializers.RandomNormal(stddev=0.02)
        self.key, self.value = (
            self.add_weight(
                name=name, shape=(heads, width, latent.key_value_rank), initializer=initializer
            )
            for name, width in (("key", latent.unrotated_dim), ("value", latent.value_dim))
        )
        self.attention_output.build((*input_shape[:-1], heads * latent.value_dim))

    def call(
        self,
        hidden_states: Any,
        positions: Any,
        padding_mask: Any | None = None,
        cache: LayerCache | None = None,
        rotation: tuple[Any, Any] | None = None,
        training: bool | None = None,
    ) -> Any:
        """Attend from each token to itself and the tokens before it; see `Attention.call`.

        The cache is given the rotated part of keys as keys, and the latents as values, each with
        one head.
        """
        config = self.config
        queried = hidden_states
        if self.query_down is not None and self.query_norm is not None:
            queried = self.query_norm(self.query_down(hidden_states))
        query = self._split_heads(self.query(queried))
        query_rotated = self._split_heads(self.query_rotated(queried))
        latents = ops.expand_dims(self.key_value_norm(self.key_value_down(hidden_states)), 1)
        key_rotated = ops.expand_dims(self.key_rotated(hidden_states), 1)
        if self.rotary is not None:
            if rotation is None:
                lengths = text_lengths(positions, padding_mask) if cache is None else cache.lengths
                rotation = self.rotary.cosines_and_sines(positions, lengths)
            query_rotated = self.rotary(query_rotated, rotation)
            key_rotated = self.rotary(key_rotated, rotation)

        key_positions = positions
        if cache is not None:
            key_rotated, latents, key_positions = cache.update(key_rotated, latents)
        query = ops.einsum("bhtn,hnr->bhtr", query, self.key)
        outputs = nextword_ops.attention(
            ops.concatenate([query, query_rotated], axis=-1),
            ops.concatenate([latents, key_rotated], axis=-1),
            latents,
            attention_mask(positions, key_positions, padding_mask, window=self.window),
            scale=config.attention_scale or config.head_dim**-0.5,
        )
        outputs = ops.einsum("bhtr,hvr->bhtv", outputs, self.value)
        outputs = self.attention_output(merge_heads(outputs))
        return self.attention_dropout(outputs, training=training)

    def _split_heads(self, projected: Any) -> Any:
        batch, length = ops.shape(projected)[:2]
        heads = ops.reshape(projected, (batch, length, self.config.num_query_heads, -1))
        return ops.transpose(heads, (0, 2, 1, 3))
