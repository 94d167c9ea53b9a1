"""How checkpoints store latent attention, whose queries and keys have a part that is rotated."""

from collections.abc import Mapping
from typing import Any

from nextword.layers import DecoderConfig
from nextword.models.formats.decoder_tables import LayerNames
from nextword.presets.weight_layouts import (
    HeadAxis,
    InterleavedRotary,
    NoHeadAxis,
    Rows,
    Transposed,
)
from nextword.presets.weight_table import Stored

_ATTENTION = "model.layers.{i}.self_attn"
TRANSFORMERS_LATENT = {
    "query": f"{_ATTENTION}.q_proj",
    "query_down": f"{_ATTENTION}.q_a_proj",
    "query_norm": f"{_ATTENTION}.q_a_layernorm",
    "query_up": f"{_ATTENTION}.q_b_proj",
    "key_value_down": f"{_ATTENTION}.kv_a_proj_with_mqa",
    "key_value_norm": f"{_ATTENTION}.kv_a_layernorm",
    "key_value_up": f"{_ATTENTION}.kv_b_proj",
}
"""What transformers calls the parts of latent attention."""

GGUF_LATENT = {
    "query": "blk.{i}.attn_q",
    "query_down": "blk.{i}.attn_q_a",
    "query_norm": "blk.{i}.attn_q_a_norm",
    "query_up": "blk.{i}.attn_q_b",
    "key_value_down": "blk.{i}.attn_kv_a_mqa",
    "key_value_norm": "blk.{i}.attn_kv_a_norm",
    "key_up": "blk.{i}.attn_k_b",
    "value_up": "blk.{i}.attn_v_b",
}
"""What GGUF calls them."""

GGUF_LATENT_JOINED = GGUF_LATENT | {"key_value_up": "blk.{i}.attn_kv_b"}
"""What it calls them in older files, which hold keys and values as one."""


def latent_names(
    config: DecoderConfig, parts: Mapping[str, str], *, is_interleaved: bool = True
) -> LayerNames:
    """Return the stored names of the layers of latent attention.

    Args:
        config: the decoder's description.
        parts: what the format calls its parts, as in `TRANSFORMERS_LATENT`.
        is_interleaved: whether the rotary embedding is of neighbouring pairs.
    """
    latent, heads = config.latent, config.num_query_heads
    assert latent is not None  # noqa: S101  # what the family's description has
    pairs = (lambda n: (InterleavedRotary(n),)) if is_interleaved else (lambda _: ())
    has_query_latent = latent.query_rank is not None
    query = parts["query_up" if has_query_latent else "query"]
    down, rank, split = parts["key_value_down"], latent.key_value_rank, HeadAxis(heads)
    unrotated = Rows(0, latent.unrotated_dim, axis=1)
    rotated = Rows(latent.unrotated_dim, config.head_dim, axis=1)
    values = Rows(latent.unrotated_dim, latent.unrotated_dim + latent.value_dim, axis=1)
    found: dict[str, Any] = {
        "self_attention/query": (query, split, unrotated, NoHeadAxis(heads)),
        "self_attention/query_rotated": (query, split, rotated, NoHeadAxis(heads), *pairs(heads)),
        "self_attention/key_value_down": (down, Rows(0, rank)),
        "self_attention/key_rotated": (down, Rows(rank, rank + latent.rotated_dim), *pairs(1)),
        "self_attention/key_value_norm": parts["key_value_norm"],
    }
    if "key_value_up" in parts:
        expanded = f"{parts['key_value_up']}.weight"
        found["self_attention/key"] = Stored(expanded, split, unrotated)
        found["self_attention/value"] = Stored(expanded, split, values)
    else:
        found["self_attention/key"] = Stored(f"{parts['key_up']}.weight", Transposed())
        found["self_attention/value"] = Stored(f"{parts['value_up']}.weight")
    if has_query_latent:
        found["self_attention/query_down"] = parts["query_down"]
        found["self_attention/query_norm"] = parts["query_norm"]
    return found
