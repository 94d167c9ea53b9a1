"""Scaled dot-product attention with grouped key/value heads."""

from typing import Any

from keras import ops


def attention(
    query: Any,
    key: Any,
    value: Any,
    mask: Any,
    *,
    scale: float,
    bias: Any | None = None,
    soft_cap: float | None = None,
    sinks: Any | None = None,
) -> Any:
    """Attend from each query to the keys that its mask row allows.

    Key/value heads are shared by consecutive groups of query heads and are never repeated in
    memory (grouped-query attention, https://arxiv.org/abs/2305.13245). Scores and softmax are
    computed in float32 whatever the dtype of the inputs.

    Args:
        query: float tensor of shape `[batch, query_heads, query_length, head_dim]`.
        key: float tensor of shape `[batch, key_value_heads, key_length, head_dim]`;
            `query_heads` is a multiple of `key_value_heads`.
        value: float tensor of the shape of `key`, or of another `value_dim` than its `head_dim`.
        mask: boolean tensor of shape `[batch, query_length, key_length]`, true where the query may
            look at the key.
        scale: factor applied to the dot products before the softmax.
        bias: optional float32 tensor of shape `[batch or 1, query_heads, query_length or 1,
            key_length]`, added to the scaled dot products.
        soft_cap: optional bound `c` of the scaled dot products, as `c * tanh(scores / c)`.
        sinks: optional float tensor of shape `[query_heads]`: one more score of each head, for a
            key whose value is zero.

    Returns:
        Tensor of shape `[batch, query_heads, query_length, value_dim]` in the dtype of `value`.
    """
    _, query_heads, query_length, head_dim = query.shape
    key_value_heads, key_length = key.shape[1], key.shape[2]
    group = query_heads // key_value_heads
    batch = ops.shape(query)[0]

    grouped = ops.reshape(query, (batch, key_value_heads, group * query_length, head_dim))
    scores = ops.cast(ops.matmul(grouped, ops.swapaxes(key, -1, -2)), "float32") * scale
    scores = ops.reshape(scores, (batch, key_value_heads, group, query_length, key_length))
    if soft_cap is not None:
        scores = soft_cap * ops.tanh(scores / soft_cap)
    if bias is not None:
        grouped_bias = (bias.shape[0], key_value_heads, group, bias.shape[2], key_length)
        scores = scores + ops.reshape(bias, grouped_bias)
    # A large finite number rather than -inf: a row whose keys are all masked stays free of NaN.
    scores = ops.where(mask[:, None, None], scores, -1e30)
    # `ops.softmax` would warn about a single key, which is what the first token sees.
    largest = ops.max(scores, axis=-1, keepdims=True)
    if sinks is not None:
        sinks = ops.reshape(ops.cast(sinks, "float32"), (key_value_heads, group, 1, 1))
        largest = ops.maximum(largest, sinks)
    weights = ops.exp(scores - largest)
    total = ops.sum(weights, axis=-1, keepdims=True)
    if sinks is not None:
        total = total + ops.exp(sinks - largest)
    weights = ops.cast(weights / total, value.dtype)
    weights = ops.reshape(weights, (batch, key_value_heads, group * query_length, key_length))
    outputs = ops.matmul(weights, value)
    return ops.reshape(outputs, (batch, query_heads, query_length, value.shape[-1]))
