"""GPT-OSS (https://arxiv.org/abs/2508.10925)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nextword.layers import DecoderConfig, rotary_config
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import LayerNames
from nextword.models.formats.gguf import (
    GGUF_NAMES,
    gguf_experts,
    gguf_format,
    gguf_rotary_arguments,
    gguf_sliding_layers,
)
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_layers import ATTENTION_PATHS
from nextword.models.formats.keras_names import attention_names
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    experts_arguments,
    rotary_decoder_arguments,
    sliding_layers,
    transformers_format,
)
from nextword.models.shared_arguments import all_but_last, check_fixed, decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.weight_layouts import AlternatingRows, Rows, Transposed
from nextword.presets.weight_table import Stored
from nextword.tokenizers import BytePairTokenizer


class GptOssBackbone(Backbone):
    """The GPT-OSS decoder: experts with clamped gates, attention sinks, windows in turns.

    Args:
        intermediate_dim: width inside an expert.
        rope_scaling_factor: how many times as long as 4096 tokens, the context of pre-training,
            texts may be: the factor of YaRN.
        sliding_layers: for each layer whether it has the sliding window; by default the first,
            the third and so on.
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
        check_fixed(False, output_router_logits=output_router_logits)
        if sliding_layers is None:
            sliding_layers = all_but_last(num_layers, period=2)
        if rope_scaling is None and rope_scaling_factor != 1:
            rope_scaling = _scaling(rope_scaling_factor)
        rotary = rotary_config(rope_max_wavelength, rope_scaling)
        return DecoderConfig(
            **decoder_fields(locals()),
            attention_sinks=True,
            feed_forward_bias=True,
            activation="quick_gelu",
        )


def _scaling(factor: float) -> dict[str, Any]:
    """Return the scaling of all published models, with a factor of its own."""
    return {
        "kind": "yarn",
        "original_context_length": 4096,
        "factor": factor,
        "attention_factor": None,
        "fast_turns": 32.0,
        "slow_turns": 1.0,
        "whole_pairs": False,
    }


class GptOssTokenizer(BytePairTokenizer):
    """GPT-OSS' byte-level byte-pair encoding; see `BytePairTokenizer`."""

    default_split = "gpt-4o"
    role_tokens: ClassVar[Mapping[str, str]] = {"eos_token": "<|endoftext|>"}


class GptOssCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `GptOssCausalLM`; see `CausalLMPreprocessor`."""


class GptOssCausalLM(CausalLM):
    """A GPT-OSS model that generates text; see `CausalLM`."""

    backbone_cls = GptOssBackbone
    preprocessor_cls = GptOssCausalLMPreprocessor


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = rotary_decoder_arguments(
        config, context_length=131072, epsilon=1e-5, head_dim=64, theta=150000.0
    )
    scaling = arguments["rope_scaling"]
    if scaling is not None and scaling == _scaling(scaling["factor"]):
        arguments |= {"rope_scaling": None, "rope_scaling_factor": scaling["factor"]}
    arguments |= experts_arguments(config, "num_local_experts", num_experts=128, top_k=4)
    arguments |= {
        "attention_bias": config.boolean("attention_bias", True),
        "gate_limit": config.number("swiglu_limit", 7.0),
        "sliding_window": config.integer("sliding_window", 128),
        "sliding_layers": sliding_layers(config, arguments["num_layers"], period=2),
    }
    config.expect(swiglu_alpha=1.702, experts_per_token=arguments["top_k"])
    config.skip("initial_context_length")  # which the scaling tells, too
    return arguments


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    experts = "model.layers.{i}.mlp.experts"
    names: dict[str, Any] = TRANSFORMERS_NAMES | {
        "self_attention/sinks": Stored("model.layers.{i}.self_attn.sinks"),
        "feed_forward/router": "model.layers.{i}.mlp.router",
    }
    stored = (
        f"{experts}.{name}"
        for name in ("gate_up_proj", "gate_up_proj_bias", "down_proj", "down_proj_bias")
    )
    return names | _experts(config, *stored)


def _experts(
    config: DecoderConfig, inner: str, inner_bias: str, outer: str, outer_bias: str
) -> dict[str, Stored]:
    """Return where the experts are stored: gates and what they gate in turns, as one tensor."""
    width = config.intermediate_dim
    table = {
        "feed_forward/expert_output": Stored(outer, Transposed()),
        "feed_forward/expert_output_bias": Stored(outer_bias),
    }
    for part, rows in (
        ("gate", Rows(0, width, axis=1)),
        ("intermediate", Rows(width, 2 * width, axis=1)),
    ):
        steps = AlternatingRows(), rows
        table[f"feed_forward/expert_{part}"] = Stored(inner, Transposed(), *steps)
        table[f"feed_forward/expert_{part}_bias"] = Stored(inner_bias, *steps)
    return table


_KERAS_LAYER = "layers/gpt_oss_transformer_decoder_{i}"
_KERAS_ATTENTION = f"{_KERAS_LAYER}/self_attention_layer"
_KERAS_EXPERTS = f"{_KERAS_LAYER}/sparse_moe_block/experts"
_KERAS_NAMES: LayerNames = {
    "token_embedding": "layers/reversible_embedding",
    "output_norm": "layers/gpt_oss_layer_normalization",
    "self_attention/sinks": Stored(f"{_KERAS_ATTENTION}/vars/0"),
    **attention_names(_KERAS_ATTENTION),
    "self_attention_norm": f"{_KERAS_LAYER}/input_layernorm",
    "feed_forward_norm": f"{_KERAS_LAYER}/post_attention_layernorm",
    "feed_forward/router": f"{_KERAS_LAYER}/sparse_moe_block/router/router_dense",
}
_KERAS_PATHS = {
    **ATTENTION_PATHS,
    "feed_forward/router": "transformer_layer_{i}/sparse_moe_block/router/router_dense",
}


def _keras_experts(config: DecoderConfig) -> LayerNames:
    return _experts(config, *(f"{_KERAS_EXPERTS}/vars/{number}" for number in range(4)))


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(config, checkpoint) | gguf_experts(config)
    scaling = arguments["rope_scaling"]
    if scaling is not None and scaling["kind"] == "yarn":
        scaling["whole_pairs"] = False  # not stored; what the published models have
    arguments |= {
        "intermediate_dim": config.integer("expert_feed_forward_length"),
        "sliding_window": config.integer("attention.sliding_window"),
        "sliding_layers": gguf_sliding_layers(config, arguments["num_layers"], 2),
        "tie_word_embeddings": False,
    }
    return arguments


def _gguf_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    names: dict[str, Any] = GGUF_NAMES | {
        "self_attention/sinks": Stored("blk.{i}.attn_sinks.weight"),
        "feed_forward_norm": "blk.{i}.post_attention_norm",
    }
    for part in ("expert_gate", "expert_intermediate", "expert_output"):
        name = GGUF_NAMES[f"feed_forward/{part}"]
        names[f"feed_forward/{part}_bias"] = Stored(f"{name}.bias")
    return names


FAMILY = Family(
    task=GptOssCausalLM,
    formats={
        "transformers": transformers_format(
            {"gpt_oss": "GptOssForCausalLM"}, _transformers_arguments, _transformers_names
        ),
        "gguf": gguf_format(("gpt-oss",), _gguf_arguments, _gguf_names),
        "keras": keras_format(
            GptOssBackbone,
            _KERAS_NAMES,
            KerasClasses(prefix="GptOss", module="gpt_oss", tokenizer_cls=GptOssTokenizer),
            laid_out=_keras_experts,
            paths=_KERAS_PATHS,
            # It is one token wider there, and in the other layers.
            unheeded=("sliding_window",),
        ),
    },
)
