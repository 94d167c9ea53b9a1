"""Cohere's Command R (https://cohere.com/command), R+ and R7B, and Aya."""

from collections.abc import Mapping, Sequence
from typing import Any

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.gguf import (
    gguf_format,
    gguf_rotary_arguments,
    gguf_sliding_layers,
    has_tensor,
    interleaved_names,
)
from nextword.models.formats.rotary import rotary_arguments
from nextword.models.formats.transformers import (
    decoder_sizes,
    interleaved_transformers_names,
    sliding_layers,
    transformers_format,
)
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


class CohereBackbone(Backbone):
    """The Command R decoder: attention and feed-forward side by side behind one norm without bias.

    Args:
        logit_scale: factor of the logits.
        use_query_key_norm: whether the query and key of each head are normalized, each head with a
            scale of its own.
        sliding_layers: for each layer whether it has the sliding window; all by default. With a
            sliding window, layers without it rotate nothing.
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
        logit_scale: float = 0.0625,
        rope_max_wavelength: float = 500000,
        rope_scaling: Mapping[str, Any] | None = None,
        layer_norm_epsilon: float = 1e-5,
        use_query_key_norm: bool = False,
        attention_bias: bool = False,
        sliding_window: int | None = None,
        sliding_layers: Sequence[bool] | None = None,
        tie_word_embeddings: bool = True,
        dropout: float = 0.0,
        context_length: int | None = None,
    ) -> DecoderConfig:
        # Beside layers with a window, those without it do not rotate.
        rotary_layers = None if sliding_window is None else sliding_layers
        return DecoderConfig(
            **decoder_fields(locals()),
            norm="layer",
            norm_bias=False,
            parallel_residual=True,
            shared_norm=True,
            query_key_norm="each_head" if use_query_key_norm else None,
        )


class CohereCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `CohereCausalLM`; see `CausalLMPreprocessor`."""


class CohereCausalLM(CausalLM):
    """A Command R model that generates text; see `CausalLM`."""

    backbone_cls = CohereBackbone
    preprocessor_cls = CohereCausalLMPreprocessor


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    config.expect(hidden_act="silu")
    arguments = decoder_sizes(config) | {
        "logit_scale": config.number("logit_scale", 0.0625),
        "layer_norm_epsilon": config.number("layer_norm_eps", 1e-5),
        "attention_bias": config.boolean("attention_bias", False),
        "tie_word_embeddings": config.boolean("tie_word_embeddings", True),
        "context_length": max(
            config.integer("max_position_embeddings", 8192), config.integer("model_max_length", 1)
        ),
    }
    config.expect(head_dim=arguments["hidden_dim"] // arguments["num_query_heads"])
    is_first = checkpoint.architecture == "cohere"
    theta = 500000.0 if is_first else 10000.0
    arguments |= rotary_arguments(config, arguments["context_length"], theta)
    if is_first:
        arguments["use_query_key_norm"] = config.boolean("use_qk_norm", False)
    else:
        period = config.integer("sliding_window_pattern", 4)
        arguments["sliding_window"] = config.integer("sliding_window", 4096)
        arguments["sliding_layers"] = sliding_layers(config, arguments["num_layers"], period)
        # What the graph is in any case, and how a cache is laid out.
        config.expect(position_embedding_type="rope_gptj", rotary_pct=1.0, use_qk_norm=False)
        config.expect(order_of_interleaved_layers="local_attn_first")
        config.expect(use_gated_activation=True, use_parallel_block=True)
        config.expect(use_parallel_embedding=False, use_embedding_sharing=True)
        config.skip("cache_implementation", "layer_switch")
    config.skip("pretraining_tp")  # of no effect on the result
    return arguments


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(config, checkpoint, norm="layer", has_head_dim=False)
    arguments |= {
        "logit_scale": config.number("logit_scale"),
        "use_query_key_norm": has_tensor(checkpoint, "blk.0.attn_q_norm.weight"),
        "tie_word_embeddings": True,
    }
    if checkpoint.architecture == "cohere2":
        arguments["sliding_window"] = config.integer("attention.sliding_window")
        arguments["sliding_layers"] = gguf_sliding_layers(config, arguments["num_layers"], 4)
    return arguments


FAMILY = Family(
    task=CohereCausalLM,
    formats={
        "transformers": transformers_format(
            {"cohere": "CohereForCausalLM", "cohere2": "Cohere2ForCausalLM"},
            _transformers_arguments,
            interleaved_transformers_names,
        ),
        "gguf": gguf_format(("command-r", "cohere2"), _gguf_arguments, interleaved_names),
    },
)
