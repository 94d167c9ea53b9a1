"""What KerasHub's weight files call the layers of its decoders."""

from collections.abc import Mapping


def attention_names(attention: str, prefix: str = "") -> dict[str, str]:
    """Return what KerasHub calls the projections of attention.

    Args:
        attention: the layer that they are in.
        prefix: what their names begin with.

    Example:
    >>> attention_names("layers/decoder_{i}/attention")["self_attention/attention_output"]
    'layers/decoder_{i}/attention/output_dense'
    """
    return {
        "self_attention/query": f"{attention}/{prefix}query_dense",
        "self_attention/key": f"{attention}/{prefix}key_dense",
        "self_attention/value": f"{attention}/{prefix}value_dense",
        "self_attention/attention_output": f"{attention}/{prefix}output_dense",
    }


def feed_forward_names(network: str, prefix: str = "_") -> dict[str, str]:
    """Return what KerasHub calls the projections of a feed-forward network, gated or not.

    Args:
        network: the layer that they are in.
        prefix: what their names begin with.

    Example:
    >>> feed_forward_names("layers/decoder_{i}")["feed_forward/gate"]
    'layers/decoder_{i}/_feedforward_gate_dense'
    """
    return {
        "feed_forward/intermediate": f"{network}/{prefix}feedforward_intermediate_dense",
        "feed_forward/gate": f"{network}/{prefix}feedforward_gate_dense",
        "feed_forward/feed_forward_output": f"{network}/{prefix}feedforward_output_dense",
    }


_LAYER = "layers/transformer_decoder_{i}"
TRANSFORMER_DECODER_NAMES = {
    "output_norm": "layers/layer_normalization",
    **attention_names(f"{_LAYER}/_self_attention_layer"),
    "self_attention_norm": f"{_LAYER}/_self_attention_layer_norm",
    **feed_forward_names(_LAYER),
    "feed_forward_norm": f"{_LAYER}/_feedforward_layer_norm",
}
"""What KerasHub calls the layers of the families that are made of its `TransformerDecoder`."""


def decoder_names(
    decoder: str, output_norm: str, network: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return what KerasHub calls the layers of most decoders with a gated feed-forward network.

    Args:
        decoder: what the file calls a transformer layer: its class's name in snake case.
        output_norm: what the file calls the last normalization.
        network: the names within "feed_forward/" of a decoder that has others, or experts.

    Example:
    >>> names = decoder_names("llama_transformer_decoder", "llama_layer_norm")
    >>> names["output_norm"], names["feed_forward/gate"]
    ('layers/llama_layer_norm', 'layers/llama_transformer_decoder_{i}/_feedforward_gate_dense')
    """
    layer = f"layers/{decoder}_{{i}}"
    attention = attention_names(f"{layer}/_self_attention_layer", prefix="_")
    query, key = attention["self_attention/query"], attention["self_attention/key"]
    return {
        "token_embedding": "layers/reversible_embedding",
        "output_norm": f"layers/{output_norm}",
        "self_attention/query": query,
        "self_attention/query_norm": f"{query}_layer_norm",
        "self_attention/key": key,
        "self_attention/key_norm": f"{key}_layer_norm",
        **attention,
        "self_attention_norm": f"{layer}/_self_attention_layernorm",
        **(feed_forward_names(layer) if network is None else network),
        "feed_forward_norm": f"{layer}/_feedforward_layernorm",
    }
