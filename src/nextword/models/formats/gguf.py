"""What the metadata of many GGUF files has in common, read into our words."""

from typing import Any

from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def gguf_arguments(
    config: ConfigReader, checkpoint: Checkpoint, *, norm: str = "rms"
) -> dict[str, Any]:
    """Read what the families with rotary embedding and grouped heads share.

    Args:
        config: the model's metadata.
        checkpoint: the GGUF file, whose tensors tell what the metadata may leave out.
        norm: the kind of normalization, "rms" or "layer".

    Returns:
        `vocabulary_size`, `num_layers`, `num_query_heads`, `num_key_value_heads`, `hidden_dim`,
        `intermediate_dim`, `head_dim`, `rope_max_wavelength`, `layer_norm_epsilon`,
        `tie_word_embeddings` and `context_length`.
    """
    arguments = gguf_sizes(config, checkpoint)
    num_query_heads = config.integer("attention.head_count")
    head_dim = config.integer("attention.key_length", arguments["hidden_dim"] // num_query_heads)
    config.choice("attention.value_length", [head_dim], head_dim)
    epsilon = "layer_norm_rms_epsilon" if norm == "rms" else "layer_norm_epsilon"
    return arguments | {
        "num_query_heads": num_query_heads,
        "num_key_value_heads": config.integer("attention.head_count_kv", num_query_heads),
        "head_dim": head_dim,
        "rope_max_wavelength": config.number("rope.freq_base", 10000.0),
        "layer_norm_epsilon": config.number(f"attention.{epsilon}"),
        "tie_word_embeddings": not has_tensor(checkpoint, "output.weight"),
        "context_length": config.integer("context_length"),
    }


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
    """Read how many experts there are, and how wide they are.

    Returns:
        `num_experts`, `top_k` and `moe_intermediate_dim`.
    """
    return {
        "num_experts": config.integer("expert_count"),
        "top_k": config.integer("expert_used_count"),
        "moe_intermediate_dim": config.integer("expert_feed_forward_length"),
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
    return [period == 0 or layer % period < period - 1 for layer in range(num_layers)]


def has_tensor(checkpoint: Checkpoint, name: str) -> bool:
    """Return whether a GGUF file has a tensor, by which it tells what its metadata leaves out."""
    return name in checkpoint.tensor_names()
