"""IBM's Granite 3, dense or with experts (https://arxiv.org/abs/2408.13359: its multipliers)."""

from collections.abc import Mapping
from typing import Any

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import LayerNames, gate_and_intermediate
from nextword.models.formats.gguf import (
    gguf_experts,
    gguf_format,
    gguf_rotary_arguments,
    has_tensor,
    interleaved_names,
)
from nextword.models.formats.rotary import GGUF_PAIR_FACTORS
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    experts_arguments,
    rotary_decoder_arguments,
    transformers_format,
)
from nextword.models.shared_arguments import decoder_fields, experts_config
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


class GraniteBackbone(Backbone):
    """The Granite decoder: like Llama's, with factors of the embedding, attention and residuals.

    Args:
        embedding_multiplier: factor of embedded tokens.
        attention_multiplier: factor of dot products of queries and keys.
        residual_multiplier: factor of what attention and feed-forward add.
        logits_scaling: divides the logits.
        num_experts: number of experts in each layer, whose width is `intermediate_dim`; None for
            one network.
        top_k: with experts, their number for each token.
        shared_intermediate_dim: with experts, width inside one that every token takes, or None.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        num_key_value_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        *,
        embedding_multiplier: float = 1.0,
        attention_multiplier: float = 1.0,
        residual_multiplier: float = 1.0,
        logits_scaling: float = 1.0,
        rope_max_wavelength: float = 10000,
        rope_scaling: Mapping[str, Any] | None = None,
        num_experts: int | None = None,
        top_k: int = 2,
        shared_intermediate_dim: int | None = None,
        layer_norm_epsilon: float = 1e-6,
        attention_bias: bool = False,
        feed_forward_bias: bool = False,
        tie_word_embeddings: bool = False,
        dropout: float = 0.0,
        head_dim: int | None = None,
        context_length: int | None = None,
    ) -> DecoderConfig:
        experts = experts_config(locals(), shared_dim=shared_intermediate_dim)
        return DecoderConfig(
            **decoder_fields(locals()),
            embedding_scale=embedding_multiplier,
            residual_scale=residual_multiplier,
            attention_scale=attention_multiplier,
            logit_scale=1 / logits_scaling,
        )


class GraniteCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `GraniteCausalLM`; see `CausalLMPreprocessor`."""


class GraniteCausalLM(CausalLM):
    """A Granite model that generates text; see `CausalLM`."""

    backbone_cls = GraniteBackbone
    preprocessor_cls = GraniteCausalLMPreprocessor


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = rotary_decoder_arguments(config, context_length=2048)
    arguments["attention_bias"] = config.boolean("attention_bias", False)
    if checkpoint.architecture == "granite":
        arguments["feed_forward_bias"] = config.boolean("mlp_bias", False)
    else:
        arguments |= experts_arguments(config, "num_local_experts", num_experts=8, top_k=2)
    if checkpoint.architecture == "granitemoeshared":
        shared = config.integer("shared_intermediate_size", 0, minimum=0)
        arguments["shared_intermediate_dim"] = shared or None
    for key in (
        "embedding_multiplier",
        "attention_multiplier",
        "residual_multiplier",
        "logits_scaling",
    ):
        arguments[key] = config.number(key, 1.0)
    return arguments


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    names: dict[str, Any] = dict(TRANSFORMERS_NAMES)
    if config.experts is not None:
        experts, shared = "model.layers.{i}.block_sparse_moe", "model.layers.{i}.shared_mlp"
        names |= {
            "feed_forward/router": f"{experts}.router.layer",
            **gate_and_intermediate(config, f"{experts}.input_linear", of="expert_"),
            "feed_forward/expert_output": f"{experts}.output_linear",
            **gate_and_intermediate(config, f"{shared}.input_linear", of="shared/"),
            "feed_forward/shared/feed_forward_output": f"{shared}.output_linear",
        }
    return names


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(config, checkpoint)
    arguments |= {
        "embedding_multiplier": config.number("embedding_scale", 1.0),
        "attention_multiplier": config.number("attention.scale", arguments["head_dim"] ** -0.5),
        "residual_multiplier": config.number("residual_scale", 1.0),
        "logits_scaling": config.number("logit_scale"),
        "attention_bias": has_tensor(checkpoint, "blk.0.attn_q.bias"),
        "feed_forward_bias": has_tensor(checkpoint, "blk.0.ffn_up.bias"),
    }
    if checkpoint.architecture == "granitemoe":
        arguments |= gguf_experts(config)
        shared = config.integer("expert_shared_feed_forward_length", 0, minimum=0)
        arguments["shared_intermediate_dim"] = shared or None
    return arguments


FAMILY = Family(
    task=GraniteCausalLM,
    formats={
        "transformers": transformers_format(
            {
                "granite": "GraniteForCausalLM",
                "granitemoe": "GraniteMoeForCausalLM",
                "granitemoeshared": "GraniteMoeSharedForCausalLM",
            },
            _transformers_arguments,
            _transformers_names,
        ),
        "gguf": gguf_format(
            ("granite", "granitemoe"),
            _gguf_arguments,
            interleaved_names,
            divides_logits=True,
            ignored=(GGUF_PAIR_FACTORS,),
        ),
    },
)
