"""How transformers stores families: the names of layers, and the settings read into our words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nextword.errors import PresetError
from nextword.layers import Activation, DecoderConfig
from nextword.models.family import ArgumentsReader, StoredFormat
from nextword.models.formats.decoder_tables import (
    LayerNames,
    NamesReader,
    interleaved_rotary,
    table_reader,
)
from nextword.models.formats.rotary import factored, rotary_arguments
from nextword.models.formats.transformers_head import ClassifierHead
from nextword.models.shared_arguments import all_but_last
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader, transformers_settings
from nextword.presets.weight_table import WeightTable

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu_squared",
    "silu": "silu",
}


@dataclass(frozen=True, kw_only=True)
class TransformersFormat(StoredFormat):
    """How a family is stored in checkpoints of transformers.

    Attributes:
        classifier: how a classifier is, None where the family has none.
    """

    classifier: ClassifierHead | None = None


TRANSFORMERS_NAMES = {
    "token_embedding": "model.embed_tokens",
    "head": "lm_head",
    "output_norm": "model.norm",
    "self_attention_norm": "model.layers.{i}.input_layernorm",
    "self_attention/query": "model.layers.{i}.self_attn.q_proj",
    "self_attention/key": "model.layers.{i}.self_attn.k_proj",
    "self_attention/value": "model.layers.{i}.self_attn.v_proj",
    "self_attention/query_norm": "model.layers.{i}.self_attn.q_norm",
    "self_attention/key_norm": "model.layers.{i}.self_attn.k_norm",
    "self_attention/attention_output": "model.layers.{i}.self_attn.o_proj",
    "feed_forward_norm": "model.layers.{i}.post_attention_layernorm",
    "feed_forward/gate": "model.layers.{i}.mlp.gate_proj",
    "feed_forward/intermediate": "model.layers.{i}.mlp.up_proj",
    "feed_forward/feed_forward_output": "model.layers.{i}.mlp.down_proj",
}
"""What most families call their layers in transformers."""

TRANSFORMERS_NORMS_BEHIND = {
    "self_attention_post_norm": "model.layers.{i}.post_attention_layernorm",
    "feed_forward_norm": "model.layers.{i}.pre_feedforward_layernorm",
    "feed_forward_post_norm": "model.layers.{i}.post_feedforward_layernorm",
}
"""What most families with norms behind attention and feed-forward call them in transformers."""

_EXPERT = "model.layers.{i}.mlp.experts.*"
TRANSFORMERS_EXPERTS = {
    "feed_forward/router": "model.layers.{i}.mlp.gate",
    "feed_forward/expert_gate": f"{_EXPERT}.gate_proj",
    "feed_forward/expert_intermediate": f"{_EXPERT}.up_proj",
    "feed_forward/expert_output": f"{_EXPERT}.down_proj",
}
"""What many families with experts call them in transformers."""


def shared_expert_names(name: str) -> dict[str, str]:
    """Return what transformers calls the network beside the experts that every token takes.

    Args:
        name: the network's own name, which holds `{i}`.
    """
    return {
        "feed_forward/shared/gate": f"{name}.gate_proj",
        "feed_forward/shared/intermediate": f"{name}.up_proj",
        "feed_forward/shared/feed_forward_output": f"{name}.down_proj",
    }


TRANSFORMERS_IGNORED = (
    # Written by old versions, and computed here; or a copy of the tied embedding.
    r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",
    r"lm_head\.weight",
)
"""Tensors beside those of `TRANSFORMERS_NAMES` that are no weights."""

DENSE_NAMES = {
    "token_embedding": "transformer.word_embeddings",
    "embedding_norm": "transformer.word_embeddings_layernorm",
    "output_norm": "transformer.ln_f",
    "self_attention_norm": "transformer.h.{i}.input_layernorm",
    "self_attention/attention_output": "transformer.h.{i}.self_attention.dense",
    "feed_forward_norm": "transformer.h.{i}.post_attention_layernorm",
    "feed_forward/intermediate": "transformer.h.{i}.mlp.dense_h_to_4h",
    "feed_forward/feed_forward_output": "transformer.h.{i}.mlp.dense_4h_to_h",
}
"""What families that write `h.{i}` and `dense` call their layers in transformers."""


def transformers_format(
    architectures: Mapping[str, str],
    reader: ArgumentsReader,
    names: LayerNames | NamesReader = TRANSFORMERS_NAMES,
    *,
    prefix: str | None = None,
    ignored: tuple[str, ...] = TRANSFORMERS_IGNORED,
    head: ClassifierHead | None = None,
) -> TransformersFormat:
    """Return how a family is stored in checkpoints of transformers.

    Args:
        architectures: see `StoredFormat`.
        reader: see `StoredFormat`.
        names: stored names of the layers, see `decoder_table`, or what finds them.
        prefix: what they begin with, and lack in checkpoints that were saved without the model
            around the decoder; None in families that have no such checkpoints.
        ignored: see `StoredFormat`.
        head: that of a classifier, None where the family has none.
    """
    whole_table = table_reader(names)

    def table(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
        found = whole_table(checkpoint, config)
        stored = checkpoint.tensor_names()
        # Without names it is a checkpoint that is about to be written.
        if prefix is None or not stored or any(name.startswith(prefix) for name in stored):
            return found
        return without_prefix(found, prefix)

    return TransformersFormat(
        architectures=architectures,
        settings=transformers_settings,
        reader=reader,
        weights=table,
        ignored=ignored,
        head=head.read if head else lambda *_: None,
        classifier=head,
    )


def interleaved_transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    """Return the usual names, of a rotary embedding of neighbouring pairs."""
    return interleaved_rotary(config, TRANSFORMERS_NAMES)


def without_prefix(table: WeightTable, prefix: str) -> WeightTable:
    """Return a table of the same tensors, whose names have lost what they begin with."""
    return {path: entry.renamed(entry.name.removeprefix(prefix)) for path, entry in table.items()}


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


def ungrouped(config: ConfigReader, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a family with as many key/value heads as query heads.

    Args:
        config: the model's configuration, which must not say otherwise.
        arguments: with `num_query_heads` and `num_key_value_heads`, which `num_heads` takes the
            place of.
    """
    num_heads, others = arguments["num_query_heads"], ("num_query_heads", "num_key_value_heads")
    config.expect(num_key_value_heads=num_heads)
    return {name: v for name, v in arguments.items() if name not in others} | {
        "num_heads": num_heads
    }


def decoder_arguments(
    config: ConfigReader,
    *,
    context_length: int,
    epsilon: float = 1e-6,
    head_dim: int | None = None,
    hidden_act: str = "silu",
    tie_word_embeddings: bool = False,
) -> dict[str, Any]:
    """Read what the families with RMS normalization and SwiGLU share, but for what they rotate.

    Args:
        config: the model's configuration.
        context_length: the family's, where none is given.
        epsilon: the family's, where none is given.
        head_dim: the family's, where none is given; None for `hidden_dim` shared by the heads.
        hidden_act: the one activation that the family has.
        tie_word_embeddings: whether the family ties its head, where that is not said.

    Returns:
        The sizes of `decoder_sizes`, and `layer_norm_epsilon`, `tie_word_embeddings`, `head_dim`
        and `context_length`.
    """
    config.expect(hidden_act=hidden_act)
    return decoder_sizes(config) | {
        "layer_norm_epsilon": config.number("rms_norm_eps", epsilon),
        "tie_word_embeddings": config.boolean("tie_word_embeddings", tie_word_embeddings),
        "head_dim": config.integer("head_dim", head_dim),
        "context_length": config.integer("max_position_embeddings", context_length),
    }


def rotary_decoder_arguments(
    config: ConfigReader,
    *,
    theta: float = 10000.0,
    fraction: float | None = None,
    has_scaling_factor: bool = False,
    **defaults: Any,
) -> dict[str, Any]:
    """Read what the families with RMS normalization, SwiGLU and rotary embedding share.

    Args:
        config: the model's configuration.
        theta: the base of the wavelengths, where none is given.
        fraction: the part of a head that is rotated, where none is given; None in families that
            rotate whole heads.
        has_scaling_factor: whether the family's backbone has `rope_scaling_factor`, see `factored`.
        **defaults: see `decoder_arguments`.

    Returns:
        What `decoder_arguments` and `rotary_arguments` return.
    """
    arguments = decoder_arguments(config, **defaults)
    arguments |= rotary_arguments(config, arguments["context_length"], theta, fraction)
    return arguments | (factored(arguments["rope_scaling"]) if has_scaling_factor else {})


def sliding_layers(
    config: ConfigReader, num_layers: int, period: int | None = None
) -> list[bool] | None:
    """Read which layers have a sliding window.

    Args:
        config: the model's configuration.
        num_layers: number of layers.
        period: where `layer_types` is not given, all but the last of every so many layers have one.

    Returns:
        None where neither is given.
    """
    kinds = config.choices("layer_types", ["full_attention", "sliding_attention"], num_layers, None)
    if kinds is None:
        return None if period is None else all_but_last(num_layers, period)
    return [kind == "sliding_attention" for kind in kinds]


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


def experts_arguments(
    config: ConfigReader, *keys: str, num_experts: int | None = None, top_k: int
) -> dict[str, Any]:
    """Read how many experts there are, and how many of them a token takes.

    Args:
        config: the model's configuration.
        *keys: spellings of the number of experts.
        num_experts: the family's, where none is given; None where one must be.
        top_k: the family's, where none is given.

    Returns:
        `num_experts` and `top_k`.
    """
    # What is added to the loss in training only.
    config.skip("output_router_logits", "router_aux_loss_coef")
    return {
        "num_experts": spelled_integer(config, *keys, default=num_experts),
        "top_k": config.integer("num_experts_per_tok", top_k),
    }


def mixture_arguments(config: ConfigReader, num_layers: int) -> dict[str, Any]:
    """Read how experts are spread over the layers, as Qwen models have it.

    Returns:
        `moe_intermediate_dim`, `norm_top_k_prob`, `decoder_sparse_step` and `mlp_only_layers`.
    """
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


def spelled_integer(config: ConfigReader, *keys: str, default: int | None = None) -> int:
    """Read an integer that has several spellings.

    Args:
        config: the model's configuration.
        *keys: the spellings.
        default: the integer where none of the keys is there; None where one must be.

    Raises:
        PresetError: none of the keys is there, and one must be; or they disagree.
    """
    values = {key: config.integer(key, None) for key in keys}
    given = {key: value for key, value in values.items() if value is not None}
    if len(set(given.values())) > 1:
        raise PresetError(f"These settings must be equal. Received: {given}.")
    return next(iter(given.values()), default) or config.integer(keys[0])
