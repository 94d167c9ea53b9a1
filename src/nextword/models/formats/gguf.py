"""What the metadata of many GGUF files has in common, read into our words."""

from typing import Any

from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    """Read what the families with RMS normalization, rotary embedding and SwiGLU share.

    Args:
        config: the model's metadata.
        checkpoint: the GGUF file, whose tensors tell what the metadata may leave out.

    Returns:
        `vocabulary_size`, `num_layers`, `num_query_heads`, `num_key_value_heads`, `hidden_dim`,
        `intermediate_dim`, `head_dim`, `rope_max_wavelength`, `layer_norm_epsilon`,
        `tie_word_embeddings` and `context_length`.
    """
    num_query_heads = config.integer("attention.head_count")
    hidden_dim = config.integer("embedding_length")
    head_dim = config.integer("attention.key_length", hidden_dim // num_query_heads)
    config.choice("attention.value_length", [head_dim], head_dim)
    return {
        "vocabulary_size": config.integer("vocab_size", checkpoint.shape("token_embd.weight")[0]),
        "num_layers": config.integer("block_count"),
        "num_query_heads": num_query_heads,
        "num_key_value_heads": config.integer("attention.head_count_kv", num_query_heads),
        "hidden_dim": hidden_dim,
        "intermediate_dim": config.integer("feed_forward_length"),
        "head_dim": head_dim,
        "rope_max_wavelength": config.number("rope.freq_base", 10000.0),
        "layer_norm_epsilon": config.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in checkpoint.tensor_names(),
        "context_length": config.integer("context_length"),
    }


def layer_norm_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    """Read what the families with layer normalization share.

    Args:
        config: the model's metadata.
        checkpoint: the GGUF file, whose tensors tell what the metadata may leave out.

    Returns:
        `vocabulary_size`, `num_layers`, `num_heads`, `hidden_dim`, `intermediate_dim` and
        `layer_norm_epsilon`.
    """
    return {
        "vocabulary_size": config.integer("vocab_size", checkpoint.shape("token_embd.weight")[0]),
        "num_layers": config.integer("block_count"),
        "num_heads": config.integer("attention.head_count"),
        "hidden_dim": config.integer("embedding_length"),
        "intermediate_dim": config.integer("feed_forward_length"),
        "layer_norm_epsilon": config.number("attention.layer_norm_epsilon"),
    }
