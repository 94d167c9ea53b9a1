"""StableLM 2 and StableLM 3B (https://arxiv.org/abs/2402.17834)."""

from collections.abc import Mapping
from typing import Any

from nextword.layers import Activation, DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.gguf import gguf_format, gguf_rotary_arguments, has_tensor
from nextword.models.formats.rotary import rotary_arguments
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    decoder_sizes,
    transformers_format,
)
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


class StableLMBackbone(Backbone):
    """The StableLM decoder: like Llama's, with layer normalization and partial rotary embedding.

    Args:
        query_key_value_bias: whether the query, key and value projections have biases.
        attention_output_bias: whether the attention's output has a bias.
        use_query_key_norm: whether the query and key of each head are normalized, each head with a
            scale of its own.
        use_norm_offset: whether 1 is added to the stored scale of every norm.
        feed_forward_gate: whether the activation gates a second projection.
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
        rope_max_wavelength: float = 10000,
        rope_scaling: Mapping[str, Any] | None = None,
        partial_rotary_factor: float = 0.25,
        layer_norm_epsilon: float = 1e-5,
        query_key_value_bias: bool = False,
        use_query_key_norm: bool = False,
        parallel_residual: bool = False,
        tie_word_embeddings: bool = False,
        dropout: float = 0.0,
        activation: Activation = "silu",
        use_norm_offset: bool = False,
        attention_output_bias: bool = False,
        feed_forward_bias: bool = False,
        feed_forward_gate: bool = True,
        head_dim: int | None = None,
        context_length: int | None = None,
    ) -> DecoderConfig:
        return DecoderConfig(
            **decoder_fields(locals()),
            norm="layer",
            norm_offset=1.0 if use_norm_offset else 0.0,
            query_key_norm="each_head" if use_query_key_norm else None,
            shared_norm=parallel_residual,
        )


class StableLMCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `StableLMCausalLM`; see `CausalLMPreprocessor`."""


class StableLMCausalLM(CausalLM):
    """A StableLM model that generates text; see `CausalLM`."""

    backbone_cls = StableLMBackbone
    preprocessor_cls = StableLMCausalLMPreprocessor


_TRANSFORMERS_NAMES = TRANSFORMERS_NAMES | {
    "self_attention/query_norm": "model.layers.{i}.self_attn.q_layernorm.norms.*",
    "self_attention/key_norm": "model.layers.{i}.self_attn.k_layernorm.norms.*",
}


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    config.expect(hidden_act="silu")
    arguments = decoder_sizes(config) | {
        "layer_norm_epsilon": config.number("layer_norm_eps", 1e-5),
        "query_key_value_bias": config.boolean("use_qkv_bias", False),
        "use_query_key_norm": config.boolean("qk_layernorm", False),
        "parallel_residual": config.boolean("use_parallel_residual", False),
        "tie_word_embeddings": config.boolean("tie_word_embeddings", False),
        "dropout": config.fraction("hidden_dropout", 0.0),
        "context_length": config.integer("max_position_embeddings", 4096),
    }
    arguments |= rotary_arguments(config, arguments["context_length"], default_fraction=0.25)
    config.choice("rotary_scaling_factor", [1.0, 1], 1)
    return arguments


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(
        config, checkpoint, norm="layer", has_head_dim=False, is_partial=True
    )
    arguments |= {
        "query_key_value_bias": has_tensor(checkpoint, "blk.0.attn_q.bias"),
        "use_query_key_norm": has_tensor(checkpoint, "blk.0.attn_q_norm.weight"),
        "parallel_residual": not has_tensor(checkpoint, "blk.0.ffn_norm.weight"),
        "tie_word_embeddings": False,
    }
    config.skip("use_parallel_residual")  # which converters write wrongly; the norms tell
    return arguments


FAMILY = Family(
    task=StableLMCausalLM,
    formats={
        "transformers": transformers_format(
            {"stablelm": "StableLmForCausalLM"}, _transformers_arguments, _TRANSFORMERS_NAMES
        ),
        "gguf": gguf_format(("stablelm",), _gguf_arguments),
    },
)
