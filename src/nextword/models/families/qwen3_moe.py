"""Qwen3's mixture of experts (https://arxiv.org/abs/2505.09388)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.gguf import gguf_experts, gguf_format, gguf_rotary_arguments
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_experts import bank_layouts, network_names, network_paths
from nextword.models.formats.keras_names import decoder_names
from nextword.models.formats.transformers import (
    TRANSFORMERS_EXPERTS,
    TRANSFORMERS_NAMES,
    experts_arguments,
    mixture_arguments,
    rotary_decoder_arguments,
    transformers_format,
)
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.tokenizers import BytePairTokenizer


class Qwen3MoeBackbone(Backbone):
    """The Qwen3 decoder with experts.

    Args:
        intermediate_dim: width inside the feed-forward network of layers without experts.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        num_key_value_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        moe_intermediate_dim: int,
        num_experts: int,
        head_dim: int | None = None,
        top_k: int = 4,
        norm_top_k_prob: bool = False,
        decoder_sparse_step: int = 1,
        rope_max_wavelength: float = 10000,
        rope_scaling_factor: float = 1.0,
        layer_norm_epsilon: float = 1e-6,
        dropout: float = 0,
        tie_word_embeddings: bool = False,
        sliding_window_size: int | None = 32768,
        router_aux_loss_coefficient: float = 0.001,
        mlp_only_layers: Sequence[int] | None = None,
        *,
        attention_bias: bool = False,
        context_length: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
    ) -> DecoderConfig:
        return DecoderConfig(
            **decoder_fields(locals()),
            query_key_norm="head",
        )


class Qwen3MoeTokenizer(BytePairTokenizer):
    """Qwen3's byte-level byte-pair encoding; see `BytePairTokenizer`."""

    default_split = "qwen2"
    role_tokens: ClassVar[Mapping[str, str]] = {
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }


class Qwen3MoeCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `Qwen3MoeCausalLM`; see `CausalLMPreprocessor`."""


class Qwen3MoeCausalLM(CausalLM):
    """A Qwen3 model with experts that generates text; see `CausalLM`."""

    backbone_cls = Qwen3MoeBackbone
    preprocessor_cls = Qwen3MoeCausalLMPreprocessor


_KERAS_DECODER = "qwen3_moe_transformer_decoder"
_KERAS_NAMES = decoder_names(_KERAS_DECODER, "qwen3_moe_layer_norm", network_names(_KERAS_DECODER))


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = rotary_decoder_arguments(config, context_length=32768, has_scaling_factor=True)
    arguments |= mixture_arguments(config, arguments["num_layers"])
    arguments |= experts_arguments(config, "num_experts", "num_local_experts", top_k=8)
    arguments["attention_bias"] = config.boolean("attention_bias", False)
    is_windowed = config.boolean("use_sliding_window", False)
    window = config.integer("sliding_window", 4096)
    arguments["sliding_window_size"] = window if is_windowed else None
    config.skip("max_window_layers")  # all layers have the window, or none
    return arguments


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(config, checkpoint, has_scaling_factor=True)
    arguments |= gguf_experts(config) | {
        "moe_intermediate_dim": config.integer("expert_feed_forward_length"),
        # Not stored; what the published models have.
        "norm_top_k_prob": True,
        "sliding_window_size": None,
    }
    return arguments


FAMILY = Family(
    task=Qwen3MoeCausalLM,
    formats={
        "transformers": transformers_format(
            {"qwen3_moe": "Qwen3MoeForCausalLM"},
            _transformers_arguments,
            TRANSFORMERS_NAMES | TRANSFORMERS_EXPERTS,
        ),
        "gguf": gguf_format(("qwen3moe",), _gguf_arguments),
        "keras": keras_format(
            Qwen3MoeBackbone,
            _KERAS_NAMES,
            KerasClasses(prefix="Qwen3Moe", module="qwen3_moe", tokenizer_cls=Qwen3MoeTokenizer),
            laid_out=lambda config: bank_layouts(config, _KERAS_DECODER),
            paths=network_paths("qwen3_sparse_moe_block", "qwen3_moe_mlp"),
            unheeded=("sliding_window_size", "layer_norm_epsilon"),
        ),
    },
)
