"""Phi-1.5 (https://arxiv.org/abs/2309.05463) and Phi-2."""

from collections.abc import Mapping
from typing import Any

from nextword.layers import Activation, DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import LayerNames
from nextword.models.formats.gguf import (
    GGUF_NAMES,
    fused_names,
    gguf_format,
    gguf_rotary_arguments,
    has_tensor,
)
from nextword.models.formats.rotary import rotary_arguments
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    activation,
    decoder_sizes,
    transformers_format,
)
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


class PhiBackbone(Backbone):
    """The Phi decoder: attention and feed-forward side by side behind one norm, with biases."""

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        num_key_value_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        *,
        rope_max_wavelength: float = 10000,
        rope_scaling: Mapping[str, Any] | None = None,
        partial_rotary_factor: float = 0.5,
        layer_norm_epsilon: float = 1e-5,
        use_query_key_norm: bool = False,
        activation: Activation = "gelu_tanh",
        tie_word_embeddings: bool = False,
        dropout: float = 0.0,
        context_length: int | None = None,
    ) -> DecoderConfig:
        return DecoderConfig(
            **decoder_fields(locals()),
            norm="layer",
            parallel_residual=True,
            shared_norm=True,
            query_key_norm="head" if use_query_key_norm else None,
            query_key_value_bias=True,
            attention_output_bias=True,
            feed_forward_bias=True,
            feed_forward_gate=False,
            head_bias=True,
        )


class PhiCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `PhiCausalLM`; see `CausalLMPreprocessor`."""


class PhiCausalLM(CausalLM):
    """A Phi-1.5 or Phi-2 model that generates text; see `CausalLM`."""

    backbone_cls = PhiBackbone
    preprocessor_cls = PhiCausalLMPreprocessor


_TRANSFORMERS_NAMES = TRANSFORMERS_NAMES | {
    "output_norm": "model.final_layernorm",
    "self_attention/query_norm": "model.layers.{i}.self_attn.q_layernorm",
    "self_attention/key_norm": "model.layers.{i}.self_attn.k_layernorm",
    "self_attention/attention_output": "model.layers.{i}.self_attn.dense",
    "feed_forward/intermediate": "model.layers.{i}.mlp.fc1",
    "feed_forward/feed_forward_output": "model.layers.{i}.mlp.fc2",
}


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = decoder_sizes(config) | {
        "layer_norm_epsilon": config.number("layer_norm_eps", 1e-5),
        "use_query_key_norm": config.boolean("qk_layernorm", False),
        "activation": activation(config, "hidden_act", "gelu_new"),
        "tie_word_embeddings": config.boolean("tie_word_embeddings", False),
        "dropout": config.fraction("resid_pdrop", 0.0),
        "context_length": config.integer("max_position_embeddings", 2048),
    }
    arguments |= rotary_arguments(config, arguments["context_length"], default_fraction=0.5)
    config.skip("embd_pdrop")  # the dropout of the embedding
    return arguments


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(
        config, checkpoint, norm="layer", has_head_dim=False, is_partial=True
    )
    arguments["tie_word_embeddings"] = False
    return arguments


def _gguf_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    is_fused = has_tensor(checkpoint, "blk.0.attn_qkv.weight")
    return fused_names(checkpoint, config) if is_fused else GGUF_NAMES


FAMILY = Family(
    task=PhiCausalLM,
    formats={
        "transformers": transformers_format(
            {"phi": "PhiForCausalLM"}, _transformers_arguments, _TRANSFORMERS_NAMES
        ),
        "gguf": gguf_format(("phi2",), _gguf_arguments, _gguf_names),
    },
)
