"""How GGUF stores families: the names of layers, and the metadata read into our words."""

from collections.abc import Callable
from typing import Any

from nextword.layers import DecoderConfig
from nextword.models.family import ArgumentsReader, HeadReader, StoredFormat
from nextword.models.formats.decoder_tables import (
    LayerNames,
    NamesReader,
    interleaved_rotary,
    query_key_value,
    table_reader,
)
from nextword.models.formats.rotary import factored, gguf_partial_rotary, gguf_scaling
from nextword.models.shared_arguments import all_but_last
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader, gguf_settings
from nextword.presets.weight_layouts import HeadAxis, Shifted

GGUF_NAMES: dict[str, Any] = {
    "token_embedding": "token_embd",
    "position_embedding": "position_embd",
    "embedding_norm": "token_embd_norm",
    "head": "output",
    "output_norm": "output_norm",
    "self_attention_norm": "blk.{i}.attn_norm",
    "self_attention/query": "blk.{i}.attn_q",
    "self_attention/key": "blk.{i}.attn_k",
    "self_attention/value": "blk.{i}.attn_v",
    "self_attention/query_norm": "blk.{i}.attn_q_norm",
    "self_attention/key_norm": "blk.{i}.attn_k_norm",
    "self_attention/attention_output": "blk.{i}.attn_output",
    "self_attention_post_norm": "blk.{i}.post_attention_norm",
    "feed_forward_norm": "blk.{i}.ffn_norm",
    "feed_forward_post_norm": "blk.{i}.post_ffw_norm",
    "feed_forward/gate": "blk.{i}.ffn_gate",
    "feed_forward/intermediate": "blk.{i}.ffn_up",
    "feed_forward/feed_forward_output": "blk.{i}.ffn_down",
    "feed_forward/router": "blk.{i}.ffn_gate_inp",
    "feed_forward/expert_gate": "blk.{i}.ffn_gate_exps",
    "feed_forward/expert_intermediate": "blk.{i}.ffn_up_exps",
    "feed_forward/expert_output": "blk.{i}.ffn_down_exps",
    "feed_forward/shared_gate": ("blk.{i}.ffn_gate_inp_shexp", HeadAxis(1)),
    "feed_forward/shared/gate": "blk.{i}.ffn_gate_shexp",
    "feed_forward/shared/intermediate": "blk.{i}.ffn_up_shexp",
    "feed_forward/shared/feed_forward_output": "blk.{i}.ffn_down_shexp",
}
"""What GGUF calls the layers of most families."""


def gguf_format(
    architectures: tuple[str, ...],
    reader: ArgumentsReader,
    names: LayerNames | NamesReader = GGUF_NAMES,
    *,
    holds: Callable[[Checkpoint], bool] = lambda _: True,
    divides_logits: bool = False,
    ignored: tuple[str, ...] = (),
    head: HeadReader = lambda *_: None,
) -> StoredFormat:
    """Return how a family is stored in GGUF files.

    Args:
        architectures: see `StoredFormat`.
        reader: see `StoredFormat`.
        names: stored names of the layers, see `decoder_table`, or what finds them.
        holds: see `StoredFormat`.
        divides_logits: see `StoredFormat`.
        ignored: see `StoredFormat`.
        head: see `StoredFormat`.
    """
    return StoredFormat(
        architectures=architectures,
        settings=gguf_settings,
        reader=reader,
        weights=table_reader(names),
        holds=holds,
        divides_logits=divides_logits,
        ignored=ignored,
        head=head,
    )


def fused_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    """Return the usual names, of query, key and value projections that are stored as one."""
    return {**GGUF_NAMES, **query_key_value(config, "blk.{i}.attn_qkv")}


def interleaved_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    """Return the usual names, of a rotary embedding of neighbouring pairs."""
    return interleaved_rotary(config, GGUF_NAMES)


def shifted_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    """Return the usual names, of norms that are stored with their offset added."""
    norms = {
        path: (name, Shifted(config.norm_offset))
        for path, name in GGUF_NAMES.items()
        if path.endswith("_norm")
    }
    return {**GGUF_NAMES, **norms}


def gguf_arguments(
    config: ConfigReader, checkpoint: Checkpoint, *, norm: str = "rms", has_head_dim: bool = True
) -> dict[str, Any]:
    """Read what the families with rotary embedding and grouped heads share, but for its scaling.

    Args:
        config: the model's metadata.
        checkpoint: the GGUF file, whose tensors tell what the metadata may leave out.
        norm: the kind of normalization, "rms" or "layer".
        has_head_dim: whether heads may be together wider or narrower than `hidden_dim`.

    Returns:
        `vocabulary_size`, `num_layers`, `num_query_heads`, `num_key_value_heads`, `hidden_dim`,
        `intermediate_dim`, `head_dim` where there is a choice, `rope_max_wavelength`,
        `layer_norm_epsilon`, `tie_word_embeddings` and `context_length`.
    """
    arguments = gguf_sizes(config, checkpoint)
    num_query_heads = config.integer("attention.head_count")
    width = arguments["hidden_dim"] // num_query_heads
    head_dim = config.integer("attention.key_length", width) if has_head_dim else width
    for key in ("attention.key_length", "attention.value_length"):
        config.choice(key, [head_dim], head_dim)
    epsilon = "layer_norm_rms_epsilon" if norm == "rms" else "layer_norm_epsilon"
    if has_head_dim:
        arguments["head_dim"] = head_dim
    return arguments | {
        "num_query_heads": num_query_heads,
        "num_key_value_heads": config.integer("attention.head_count_kv", num_query_heads),
        "rope_max_wavelength": config.number("rope.freq_base", 10000.0),
        "layer_norm_epsilon": config.number(f"attention.{epsilon}"),
        "tie_word_embeddings": not has_tensor(checkpoint, "output.weight"),
        "context_length": config.integer("context_length"),
    }


def gguf_rotary_arguments(
    config: ConfigReader,
    checkpoint: Checkpoint,
    *,
    norm: str = "rms",
    has_head_dim: bool = True,
    is_partial: bool = False,
    has_scaling_factor: bool = False,
) -> dict[str, Any]:
    """Read what the families share whose rotary embedding is scaled as GGUF files tell.

    Args:
        config: the model's metadata.
        checkpoint: the GGUF file.
        norm: see `gguf_arguments`.
        has_head_dim: see `gguf_arguments`.
        is_partial: whether the family may rotate a part of each head.
        has_scaling_factor: whether the family's backbone has `rope_scaling_factor`, see `factored`.

    Returns:
        What `gguf_arguments` returns; `rope_scaling`, or what `factored` makes of it; and
        `partial_rotary_factor` where a part may be rotated.
    """
    arguments = gguf_arguments(config, checkpoint, norm=norm, has_head_dim=has_head_dim)
    head_dim = arguments.get("head_dim", arguments["hidden_dim"] // arguments["num_query_heads"])
    if is_partial:
        return arguments | gguf_partial_rotary(config, checkpoint, head_dim)
    scaling = gguf_scaling(config, checkpoint, head_dim)
    return arguments | (factored(scaling) if has_scaling_factor else {"rope_scaling": scaling})


def layer_norm_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    """Read what the families with layer normalization and as many key/value heads share.

    Args:
        config: the model's metadata.
        checkpoint: the GGUF file, whose tensors tell what the metadata may leave out.

    Returns:
        `vocabulary_size`, `num_layers`, `num_heads`, `hidden_dim`, `intermediate_dim` and
        `layer_norm_epsilon`.
    """
    return gguf_sizes(config, checkpoint) | {
        "num_heads": config.integer("attention.head_count"),
        "layer_norm_epsilon": config.number("attention.layer_norm_epsilon"),
    }


def gguf_sizes(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    """Read the sizes that every decoder has.

    Returns:
        `vocabulary_size`, `num_layers`, `hidden_dim` and `intermediate_dim`.
    """
    return {
        "vocabulary_size": config.integer("vocab_size", checkpoint.shape("token_embd.weight")[0]),
        "num_layers": config.integer("block_count"),
        "hidden_dim": config.integer("embedding_length"),
        "intermediate_dim": config.integer("feed_forward_length"),
    }


def gguf_experts(config: ConfigReader) -> dict[str, Any]:
    """Read how many experts there are, and how many of them a token takes.

    Returns:
        `num_experts` and `top_k`.
    """
    return {
        "num_experts": config.integer("expert_count"),
        "top_k": config.integer("expert_used_count"),
    }


def has_experts(checkpoint: Checkpoint) -> bool:
    """Return whether the layers of a GGUF file have experts, for an architecture with both."""
    return bool(checkpoint.config.get(f"{checkpoint.architecture}.expert_count"))


def gguf_sliding_layers(config: ConfigReader, num_layers: int, period: int) -> list[bool]:
    """Read which layers have a sliding window: all but the last of every period.

    Args:
        config: the model's metadata.
        num_layers: number of layers.
        period: the family's, where none is given; 0 stands for all layers.
    """
    period = config.integer("attention.sliding_window_pattern", period, minimum=0)
    return all_but_last(num_layers, period) if period else [True] * num_layers


def has_tensor(checkpoint: Checkpoint, name: str) -> bool:
    """Return whether a GGUF file has a tensor, by which it tells what its metadata leaves out."""
    return name in checkpoint.tensor_names()
