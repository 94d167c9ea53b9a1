"""Phi-1.5 (https://arxiv.org/abs/2309.05463) and Phi-2."""

from collections.abc import Mapping
from typing import Any

from nextword.layers import Activation, DecoderConfig, RotaryConfig, rotary_scaling
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family, StoredFormat
from nextword.models.formats.decoder_tables import (
    TRANSFORMERS_IGNORED,
    TRANSFORMERS_NAMES,
    decoder_table,
    fused_gguf_table,
    gguf_table,
)
from nextword.models.formats.gguf import gguf_arguments, has_tensor
from nextword.models.formats.rotary import gguf_partial_rotary, rotary_arguments
from nextword.models.formats.transformers import activation, decoder_sizes
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import gguf_settings, transformers_settings
from nextword.presets.weight_table import WeightTable


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
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            num_query_heads=num_query_heads,
            num_key_value_heads=num_key_value_heads,
            head_dim=hidden_dim // num_query_heads,
            context_length=context_length,
            rotary=RotaryConfig(
                theta=rope_max_wavelength,
                fraction=partial_rotary_factor,
                scaling=rotary_scaling(rope_scaling),
            ),
            norm="layer",
            norm_epsilon=layer_norm_epsilon,
            parallel_residual=True,
            shared_norm=True,
            query_key_norm="head" if use_query_key_norm else None,
            query_key_value_bias=True,
            attention_output_bias=True,
            feed_forward_bias=True,
            feed_forward_gate=False,
            activation=activation,
            tie_word_embeddings=tie_word_embeddings,
            head_bias=True,
            dropout=dropout,
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


def _transformers_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    config = transformers_settings(checkpoint)
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
    config.check_all_read()
    return arguments


def _transformers_weights(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
    return decoder_table(config, _TRANSFORMERS_NAMES)


def _gguf_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    config = gguf_settings(checkpoint)
    arguments = gguf_arguments(config, checkpoint, norm="layer")
    arguments |= gguf_partial_rotary(config, checkpoint, arguments.pop("head_dim"))
    arguments["tie_word_embeddings"] = False
    config.check_all_read()
    return arguments


def _gguf_weights(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
    is_fused = has_tensor(checkpoint, "blk.0.attn_qkv.weight")
    return (fused_gguf_table if is_fused else gguf_table)(checkpoint, config)


FAMILY = Family(
    task=PhiCausalLM,
    formats={
        "transformers": StoredFormat(
            architectures={"phi": "PhiForCausalLM"},
            arguments=_transformers_arguments,
            weights=_transformers_weights,
            ignored=TRANSFORMERS_IGNORED,
        ),
        "gguf": StoredFormat(
            architectures=("phi2",), arguments=_gguf_arguments, weights=_gguf_weights
        ),
    },
)
