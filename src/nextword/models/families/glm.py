"""GLM-4 (https://arxiv.org/abs/2406.12793) of 2024, and GLM-4-0414 and GLM-Z1 of 2025."""

from collections.abc import Mapping
from typing import Any

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import (
    LayerNames,
    gate_and_intermediate,
    interleaved_rotary,
    query_key_value,
)
from nextword.models.formats.gguf import GGUF_NAMES, gguf_format, gguf_rotary_arguments, has_tensor
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    rotary_decoder_arguments,
    transformers_format,
)
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


class GlmBackbone(Backbone):
    """The GLM-4 decoder: like Llama's, half of each head rotated, and perhaps norms behind, too.

    Args:
        use_post_norms: whether attention and feed-forward have a norm behind them, too.
        attention_bias: whether the query, key and value projections have biases.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        num_key_value_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        head_dim: int,
        *,
        use_post_norms: bool = False,
        rope_max_wavelength: float = 10000,
        rope_scaling: Mapping[str, Any] | None = None,
        partial_rotary_factor: float = 0.5,
        layer_norm_epsilon: float = 1.5625e-7,
        attention_bias: bool = True,
        tie_word_embeddings: bool = False,
        dropout: float = 0.0,
        context_length: int | None = None,
    ) -> DecoderConfig:
        attention_output_bias = False
        return DecoderConfig(
            **decoder_fields(locals()),
            norm_placement="sandwich" if use_post_norms else "pre",
        )


class GlmCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `GlmCausalLM`; see `CausalLMPreprocessor`."""


class GlmCausalLM(CausalLM):
    """A GLM-4 model that generates text; see `CausalLM`."""

    backbone_cls = GlmBackbone
    preprocessor_cls = GlmCausalLMPreprocessor


_POST_NORMS = {
    "self_attention_post_norm": "model.layers.{i}.post_self_attn_layernorm",
    "feed_forward_post_norm": "model.layers.{i}.post_mlp_layernorm",
}


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = rotary_decoder_arguments(
        config, context_length=131072, epsilon=1.5625e-7, head_dim=128, fraction=0.5
    )
    arguments["use_post_norms"] = checkpoint.architecture == "glm4"
    arguments["attention_bias"] = config.boolean("attention_bias", True)
    return arguments


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    fused = gate_and_intermediate(config, "model.layers.{i}.mlp.gate_up_proj")
    names = {**TRANSFORMERS_NAMES, **_POST_NORMS, **fused}
    return interleaved_rotary(config, names)


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(config, checkpoint, is_partial=True)
    is_fused = checkpoint.architecture == "chatglm"
    if is_fused:  # whose heads are no wider
        arguments["head_dim"] = arguments["hidden_dim"] // arguments["num_query_heads"]
    bias = "blk.0.attn_qkv.bias" if is_fused else "blk.0.attn_q.bias"
    arguments |= {
        "use_post_norms": not is_fused,
        "attention_bias": has_tensor(checkpoint, bias),
    }
    return arguments


def _gguf_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    names = {**GGUF_NAMES, **gate_and_intermediate(config, "blk.{i}.ffn_up")}
    if checkpoint.architecture == "chatglm":
        names |= query_key_value(config, "blk.{i}.attn_qkv")
    return interleaved_rotary(config, names)


FAMILY = Family(
    task=GlmCausalLM,
    formats={
        "transformers": transformers_format(
            {"glm": "GlmForCausalLM", "glm4": "Glm4ForCausalLM"},
            _transformers_arguments,
            _transformers_names,
        ),
        "gguf": gguf_format(("glm4", "chatglm"), _gguf_arguments, _gguf_names),
    },
)
