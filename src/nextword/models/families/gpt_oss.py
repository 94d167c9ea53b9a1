"""GPT-OSS (https://arxiv.org/abs/2508.10925)."""

from collections.abc import Mapping, Sequence
from typing import Any

from nextword.layers import DecoderConfig, ExpertsConfig, RotaryConfig, rotary_scaling
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family, StoredFormat
from nextword.models.formats.decoder_tables import (
    TRANSFORMERS_IGNORED,
    TRANSFORMERS_NAMES,
    decoder_table,
)
from nextword.models.formats.rotary import factored, rotary_arguments
from nextword.models.formats.transformers import decoder_arguments, sliding_layers
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import transformers_settings
from nextword.presets.weight_layouts import AlternatingRows, Rows, Transposed
from nextword.presets.weight_table import Stored, WeightTable


class GptOssBackbone(Backbone):
    """The GPT-OSS decoder: experts with clamped gates, attention sinks, windows in turns.

    Args:
        intermediate_dim: width inside an expert.
        sliding_layers: for each layer whether it has the sliding window; by default the second,
            the fourth and so on.
        gate_limit: bound of the experts' gates.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        num_key_value_heads: int,
        num_experts: int,
        top_k: int = 2,
        rope_max_wavelength: float = 10000,
        rope_scaling_factor: float = 1.0,
        layer_norm_epsilon: float = 1e-6,
        sliding_window: int | None = 4096,
        head_dim: int | None = None,
        dropout: float = 0,
        output_router_logits: bool = False,
        *,
        sliding_layers: Sequence[bool] | None = None,
        attention_bias: bool = True,
        gate_limit: float = 7.0,
        tie_word_embeddings: bool = False,
        context_length: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
    ) -> DecoderConfig:
        if output_router_logits:
            raise ValueError("`output_router_logits` must be False. Received: True.")
        if sliding_layers is None:
            sliding_layers = [layer % 2 == 1 for layer in range(num_layers)]
        return DecoderConfig(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            num_query_heads=num_query_heads,
            num_key_value_heads=num_key_value_heads,
            head_dim=head_dim or hidden_dim // num_query_heads,
            context_length=context_length,
            rotary=RotaryConfig(
                theta=rope_max_wavelength,
                scaling=rotary_scaling(rope_scaling, factor=rope_scaling_factor),
            ),
            norm_epsilon=layer_norm_epsilon,
            attention_sinks=True,
            sliding_window=sliding_window,
            sliding_layers=tuple(sliding_layers),
            query_key_value_bias=attention_bias,
            attention_output_bias=attention_bias,
            feed_forward_bias=True,
            activation="quick_gelu",
            gate_limit=gate_limit,
            experts=ExpertsConfig(
                num_experts=num_experts,
                experts_per_token=top_k,
                intermediate_dim=intermediate_dim,
            ),
            tie_word_embeddings=tie_word_embeddings,
            dropout=dropout,
        )


class GptOssCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `GptOssCausalLM`; see `CausalLMPreprocessor`."""


class GptOssCausalLM(CausalLM):
    """A GPT-OSS model that generates text; see `CausalLM`."""

    backbone_cls = GptOssBackbone
    preprocessor_cls = GptOssCausalLMPreprocessor


def _transformers_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    config = transformers_settings(checkpoint)
    arguments = decoder_arguments(config, context_length=131072, epsilon=1e-5)
    num_layers = arguments["num_layers"]
    arguments |= rotary_arguments(config, arguments["context_length"], 150000.0)
    arguments |= factored(arguments["rope_scaling"]) | {
        "num_experts": config.integer("num_local_experts", 128),
        "top_k": config.integer("num_experts_per_tok", 4),
        "head_dim": arguments["head_dim"] or 64,
        "attention_bias": config.boolean("attention_bias", True),
        "gate_limit": config.number("swiglu_limit", 7.0),
        "sliding_window": config.integer("sliding_window", 128),
        "sliding_layers": sliding_layers(config, num_layers)
        or [layer % 2 == 0 for layer in range(num_layers)],
    }
    config.choice("swiglu_alpha", [1.702], 1.702)
    config.choice("experts_per_token", [arguments["top_k"]], arguments["top_k"])
    # What is added to the loss in training only, and a context that the scaling tells, too.
    config.skip("output_router_logits", "router_aux_loss_coef", "initial_context_length")
    config.check_all_read()
    return arguments


def _transformers_weights(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
    width, experts = config.intermediate_dim, "model.layers.{i}.mlp.experts"
    names: dict[str, Any] = TRANSFORMERS_NAMES | {
        "self_attention/sinks": Stored("model.layers.{i}.self_attn.sinks"),
        "feed_forward/router": "model.layers.{i}.mlp.router",
        "feed_forward/expert_output": Stored(f"{experts}.down_proj", Transposed()),
        "feed_forward/expert_output_bias": Stored(f"{experts}.down_proj_bias"),
    }
    for part, rows in (
        ("gate", Rows(0, width, axis=1)),
        ("intermediate", Rows(width, 2 * width, axis=1)),
    ):
        kernel, bias = f"{experts}.gate_up_proj", f"{experts}.gate_up_proj_bias"
        steps = AlternatingRows(), rows
        names[f"feed_forward/expert_{part}"] = Stored(kernel, Transposed(), *steps)
        names[f"feed_forward/expert_{part}_bias"] = Stored(bias, *steps)
    return decoder_table(config, names)


FAMILY = Family(
    task=GptOssCausalLM,
    formats={
        "transformers": StoredFormat(
            architectures=("gpt_oss",),
            arguments=_transformers_arguments,
            weights=_transformers_weights,
            ignored=TRANSFORMERS_IGNORED,
        ),
    },
)
