"""Self-attention with grouped key/value heads."""

from typing import Any, Protocol

import keras
from keras import ops

from nextword import ops as nextword_ops
from nextword.layers.alibi import alibi_bias, alibi_slopes
from nextword.layers.config import DecoderConfig
from nextword.layers.layer import Layer
from nextword.layers.linear import Linear
from nextword.layers.normalization import Normalization, norm_layer
from nextword.layers.rotary_embedding import RotaryEmbedding
from nextword.ops.native.step_program import Cache, NotCoveredError, Register, StepProgram


class LayerCache(Protocol):
    """The keys and values that one attention layer has computed for earlier tokens.

    Attributes:
        lengths: int32 tensor of shape `[batch]`, the number of tokens of each row, those included
            that are computed now, and in the case of a prompt, later.
        buffers: keys and values.
        in_place: whether `buffers` have the shape `[rows, heads, capacity, width]`, and others than
            `update` may put there what holds each row's new tokens as well, from the position
            `lengths - 1` on.
    """

    lengths: Any
    buffers: Any
    in_place: bool

    def update(self, key: Any, value: Any) -> tuple[Any, Any, Any]:
        """Store new keys and values and return those to attend to.

        Args:
            key: tensor of shape `[batch, key_value_heads, length, head_dim]`.
            value: tensor of the same shape.

        Returns:
            Keys and values of shape `[batch, key_value_heads, key_length, head_dim]`, and the
            position of each as an int32 tensor of shape `[batch or 1, key_length]`.
        """
        ...


class Attention(Layer):
    """Self-attention as a `DecoderConfig` describes it.

    Args:
        config: the decoder's description.
        layer: index of the layer that the attention belongs to.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.
    """

    def __init__(self, config: DecoderConfig, layer: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.window = config.window(layer)
        heads, bias = config.head_dim, config.query_key_value_bias
        self.query = self._linear("query", config.num_query_heads * heads, bias)
        self.key = self._linear("key", config.num_key_value_heads * heads, bias)
        self.value = self._linear("value", config.num_key_value_heads * heads, bias)
        self.attention_output = self._linear(
            "attention_output", config.hidden_dim, config.attention_output_bias
        )
        self.attention_dropout = keras.layers.Dropout(config.dropout, dtype=self.dtype_policy)
        self.query_norm = self._head_norm("query_norm") if config.query_key_norm else None
        self.key_norm = self._head_norm("key_norm") if config.query_key_norm else None
        rotary, is_alibi = config.rotary_of(layer), config.position_embedding == "alibi"
        self.rotary = RotaryEmbedding(rotary, config.head_dim) if rotary else None
        self.slopes = alibi_slopes(config.num_query_heads) if is_alibi else None

    def _linear(self, name: str, units: int, use_bias: bool) -> Linear:
        return Linear(units, use_bias=use_bias, name=name, dtype=self.dtype_policy)

    def _head_norm(self, name: str) -> Normalization:
        each = {"each_head": True, "use_bias": False}
        own = each if self.config.query_key_norm == "each_head" else {}
        return norm_layer(self.config, name=name, dtype=self.dtype_policy, **own)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        config = self.config
        for norm, heads in (
            (self.query_norm, config.num_query_heads),
            (self.key_norm, config.num_key_value_heads),
        ):
            if norm is not None:
                is_joint = config.query_key_norm == "projection"
                shape = (heads * config.head_dim,) if is_joint else (heads, config.head_dim)
                norm.build((None, None, *shape))
        self.sinks = (
            self.add_weight(name="sinks", shape=(config.num_query_heads,), initializer="zeros")
            if config.attention_sinks
            else None
        )
        self.query.build(input_shape)
        self.key.build(input_shape)
        self.value.build(input_shape)
        self.attention_output.build((*input_shape[:-1], self.query.units))

    def call(
        self,
        hidden_states: Any,
        positions: Any,
        padding_mask: Any | None = None,
        cache: LayerCache | None = None,
        rotation: tuple[Any, Any] | None = None,
        training: bool | None = None,
    ) -> Any:
        """Attend from each token to itself and those before it, or to all.

        Args:
            hidden_states: float tensor of shape `[batch, length, hidden_dim]`.
            positions: int32 tensor of shape `[batch or 1, length]`.
            padding_mask: optional tensor of shape `[batch, length]`, zero where a token is padding
                that nobody may look at. Not used with a cache, whose rows have no padding.
            cache: where keys and values of earlier tokens are kept, or None.
            rotation: what the layer's rotary embedding makes of the positions, where it is known.
            training: whether dropout is active.

        Returns:
            Float tensor of shape `[batch, length, hidden_dim]`.
        """
        config = self.config
        num_heads, num_shared = config.num_query_heads, config.num_key_value_heads
        query = self._split_heads(self.query(hidden_states), num_heads, self.query_norm)
        key = self._split_heads(self.key(hidden_states), num_shared, self.key_norm)
        value = self._split_heads(self.value(hidden_states), num_shared)
        if self.rotary is not None:
            if rotation is None:
                lengths = text_lengths(positions, padding_mask) if cache is None else cache.lengths
                rotation = self.rotary.cosines_and_sines(positions, lengths)
            query = self.rotary(query, rotation)
            key = self.rotary(key, rotation)

        key_positions = positions
        if cache is not None:
            key, value, key_positions = cache.update(key, value)
        outputs = nextword_ops.attention(
            query,
            key,
            value,
            attention_mask(
                positions, key_positions, padding_mask, causal=config.causal, window=self.window
            ),
            scale=config.attention_scale or config.head_dim**-0.5,
            bias=self._alibi_bias(key_positions),
            soft_cap=config.attention_soft_cap,
            sinks=self.sinks,
        )
        outputs = self.attention_output(merge_heads(outputs))
        return self.attention_dropout(outputs, training=training)

    def emit(
        self,
        program: StepProgram,
        inputs: Register,
        cache: tuple[Cache, Cache],
    ) -> Register:
        """Compute in a native step what `call` returns; see `TransformerLayer.emit`."""
        config = self.config
        num_heads, num_shared = config.num_query_heads, config.num_key_value_heads
        layers = self.query, self.key, self.value
        query, key, value = program.linear(inputs, *(layer.native() for layer in layers))
        is_joint = config.query_key_norm == "projection"
        if self.query_norm is not None and self.key_norm is not None:
            query = self.query_norm.emit(program, query, 1 if is_joint else num_heads)
            key = self.key_norm.emit(program, key, 1 if is_joint else num_shared)
        if self.rotary is not None:
            program.rotate(query, num_heads, self.rotary)
            program.rotate(key, num_shared, self.rotary)
        for heads, part in zip((key, value), cache, strict=True):
            program.store(heads, num_shared, part)
        slopes = None
        if self.slopes is not None:
            if config.alibi_dtype != "float32":
                raise NotCoveredError
            slopes = ops.convert_to_tensor(self.slopes * config.alibi_scale, "float32")
        attended = program.attend(
            query,
            num_heads,
            cache,
            scale=config.attention_scale or config.head_dim**-0.5,
            soft_cap=config.attention_soft_cap,
            slopes=slopes,
            sinks=self.sinks,
            window=self.window,
        )
        (outputs,) = program.linear(attended, self.attention_output.native())
        return outputs

    def _alibi_bias(self, key_positions: Any) -> Any | None:
        if self.slopes is None:
            return None
        dtype, scale = self.config.alibi_dtype, self.config.alibi_scale
        return alibi_bias(self.slopes, key_positions, dtype=dtype, scale=scale)

    def _split_heads(
        self, projected: Any, num_heads: int, norm: Normalization | None = None
    ) -> Any:
        batch, length = ops.shape(projected)[:2]
        is_joint = self.config.query_key_norm == "projection"
        if norm is not None and is_joint:
            projected = norm(projected)
        heads = ops.reshape(projected, (batch, length, num_heads, self.config.head_dim))
        if norm is not None and not is_joint:
            heads = norm(heads)
        return ops.transpose(heads, (0, 2, 1, 3))


def attention_mask(
    positions: Any,
    key_positions: Any,
    padding_mask: Any | None,
    *,
    causal: bool = True,
    window: int | None = None,
) -> Any:
    """Return which keys each query may look at.

    Args:
        positions: int32 tensor of shape `[batch or 1, length]`, the queries' positions.
        key_positions: int32 tensor of shape `[batch or 1, key_length]`.
        padding_mask: see `Attention.call`.
        causal: whether a token sees itself and those before it, or all of them.
        window: number of tokens, itself included, that a token sees; None for all.

    Returns:
        Boolean tensor of shape `[batch or 1, length, key_length]`.
    """
    distance = ops.expand_dims(positions, 2) - ops.expand_dims(key_positions, 1)
    mask = distance >= 0 if causal else ops.full_like(distance, True, dtype="bool")
    if window is not None:
        mask = ops.logical_and(mask, distance < window)
    if padding_mask is not None:
        mask = ops.logical_and(mask, ops.cast(padding_mask, "bool")[:, None, :])
    return mask


def merge_heads(heads: Any) -> Any:
    """Return `[batch, num_heads, length, width]` as `[batch, length, num_heads * width]`."""
    batch, num_heads, length, width = ops.shape(heads)
    merged = num_heads * width
    return ops.reshape(ops.transpose(heads, (0, 2, 1, 3)), (batch, length, merged))


def text_lengths(positions: Any, padding_mask: Any | None) -> Any:
    """Return the number of tokens of each row, `[batch or 1]`.

    Args:
        positions: int32 tensor of shape `[batch or 1, length]`.
        padding_mask: see `Attention.call`.
    """
    if padding_mask is not None:
        positions = ops.where(ops.cast(padding_mask, "bool"), positions, -1)
    return ops.max(positions, axis=1) + 1
