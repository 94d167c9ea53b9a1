"""What the configurations of many transformers models have in common, read into our words."""

from typing import Any

from nextword.errors import PresetError
from nextword.layers import Activation
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu_squared",
    "silu": "silu",
}


def decoder_sizes(config: ConfigReader) -> dict[str, Any]:
    """Read the sizes of a decoder, in the spelling that most families share.

    Returns:
        `vocabulary_size`, `num_layers`, `num_query_heads`, `num_key_value_heads`, `hidden_dim` and
        `intermediate_dim`.
    """
    num_query_heads = config.integer("num_attention_heads")
    return {
        "vocabulary_size": config.integer("vocab_size"),
        "num_layers": config.integer("num_hidden_layers"),
        "num_query_heads": num_query_heads,
        "num_key_value_heads": config.integer("num_key_value_heads", num_query_heads),
        "hidden_dim": config.integer("hidden_size"),
        "intermediate_dim": config.integer("intermediate_size"),
    }


def decoder_arguments(
    config: ConfigReader,
    *,
    context_length: int,
    epsilon: float = 1e-6,
    hidden_act: str = "silu",
    tie_word_embeddings: bool = False,
) -> dict[str, Any]:
    """Read what the families with RMS normalization and SwiGLU share.

    Args:
        config: the model's configuration.
        context_length: the family's, where none is given.
        epsilon: the family's, where none is given.
        hidden_act: the one activation that the family has.
        tie_word_embeddings: whether the family ties its head, where that is not said.

    Returns:
        The sizes of `decoder_sizes`, and `layer_norm_epsilon`, `tie_word_embeddings`, `head_dim`
        and `context_length`.
    """
    config.choice("hidden_act", [hidden_act], hidden_act)
    return decoder_sizes(config) | {
        "layer_norm_epsilon": config.number("rms_norm_eps", epsilon),
        "tie_word_embeddings": config.boolean("tie_word_embeddings", tie_word_embeddings),
        "head_dim": config.integer("head_dim", None),
        "context_length": config.integer("max_position_embeddings", context_length),
    }


def sliding_layers(config: ConfigReader, num_layers: int) -> list[bool] | None:
    """Read which layers have a sliding window; None where `layer_types` is not given."""
    kinds = config.choices("layer_types", ["full_attention", "sliding_attention"], num_layers, None)
    return kinds and [kind == "sliding_attention" for kind in kinds]


def optional_sliding_window(config: ConfigReader, num_layers: int) -> dict[str, Any]:
    """Read a sliding window that `use_sliding_window` switches on, as Qwen models have it.

    Returns:
        `sliding_window_size`, None where it is off, and `sliding_layers`, None for all layers.
    """
    if not config.boolean("use_sliding_window", False):
        config.choices("layer_types", ["full_attention"], num_layers, None)
        config.skip("sliding_window", "max_window_layers")
        return {"sliding_window_size": None, "sliding_layers": None}
    first = config.integer("max_window_layers", 28, minimum=0)
    return {
        "sliding_window_size": config.integer("sliding_window"),
        "sliding_layers": sliding_layers(config, num_layers)
        or [layer >= first for layer in range(num_layers)],
    }


def mixture_arguments(config: ConfigReader, num_layers: int) -> dict[str, Any]:
    """Read how experts are spread over the layers, as Qwen models have it.

    Returns:
        `moe_intermediate_dim`, `norm_top_k_prob`, `decoder_sparse_step` and `mlp_only_layers`.
    """
    # What is added to the loss in training only.
    config.skip("output_router_logits", "router_aux_loss_coef")
    return {
        "moe_intermediate_dim": config.integer("moe_intermediate_size"),
        "norm_top_k_prob": config.boolean("norm_topk_prob", False),
        "decoder_sparse_step": config.integer("decoder_sparse_step", 1),
        "mlp_only_layers": config.indices("mlp_only_layers", num_layers, []),
    }


def activation(config: ConfigReader, key: str, default: str) -> Activation:
    """Read the name of an activation, and return that of `DecoderConfig`.

    Args:
        config: the model's configuration.
        key: where the name is.
        default: transformers' name of the activation where none is given.
    """
    return _ACTIVATIONS[config.choice(key, list(_ACTIVATIONS), default)]


def spelled_integer(config: ConfigReader, *keys: str) -> int:
    """Read an integer that has several spellings.

    Raises:
        PresetError: none of the keys is there, or they disagree.
    """
    values = {key: config.integer(key, None) for key in keys}
    given = {key: value for key, value in values.items() if value is not None}
    if len(set(given.values())) > 1:
        raise PresetError(f"These settings must be equal. Received: {given}.")
    return next(iter(given.values()), None) or config.integer(keys[0])


def decoder_prefix(checkpoint: Checkpoint, prefix: str) -> str:
    """Return what stands before the names of a decoder's tensors: `prefix`, or nothing.

    Checkpoints saved without the language model around the decoder lack the prefix.
    """
    names = checkpoint.tensor_names()
    has_prefix = any(name.startswith(prefix) for name in names)
    # Without names it is a checkpoint that is about to be written.
    return prefix if has_prefix or not names else ""
