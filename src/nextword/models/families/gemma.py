"""Gemma (https://arxiv.org/abs/2403.08295), and what its relatives have of it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.gguf import gguf_arguments, gguf_format, shifted_names
from nextword.models.formats.keras import KerasClasses
from nextword.models.formats.keras_blocks import block_format
from nextword.models.formats.rotary import rotary_section
from nextword.models.formats.transformers import decoder_sizes, sliding_layers, transformers_format
from nextword.models.greedy import compile_greedily
from nextword.models.shared_arguments import all_but_last, decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.tokenizers import SentencePieceTokenizer


class GemmaBackbone(Backbone):
    """The Gemma decoder: scaled embeddings, RMS norms with offset 1, gated tanh-GELU, tied head.

    Args:
        intermediate_dim: twice the width inside the feed-forward network: gate and projection.
        use_sliding_window_attention: whether every other layer, from the first, has a window.
        sliding_layers: for each layer whether it has the window, instead of every other.
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
        query_head_dim_normalize: bool = True,
        use_post_ffw_norm: bool = False,
        use_post_attention_norm: bool = False,
        attention_logit_soft_cap: float | None = None,
        final_logit_soft_cap: float | None = None,
        use_sliding_window_attention: bool = False,
        sliding_window_size: int = 4096,
        layer_norm_epsilon: float = 1e-6,
        dropout: float = 0,
        *,
        query_pre_attention_scalar: float | None = None,
        sliding_layers: Sequence[bool] | None = None,
        rope_max_wavelength: float = 10000,
        attention_bias: bool = False,
        context_length: int | None = None,
    ) -> DecoderConfig:
        if intermediate_dim % 2:
            raise ValueError(f"`intermediate_dim` must be even. Received: {intermediate_dim}.")
        intermediate_dim //= 2  # the gate is the other half
        if sliding_layers is None:
            sliding_layers = all_but_last(num_layers, period=2)
        return DecoderConfig(
            **decoder_fields(locals()),
            embedding_scale=hidden_dim**0.5,
            norm_offset=1.0,
            activation="gelu_tanh",
            tie_word_embeddings=True,
        )


class GemmaTokenizer(SentencePieceTokenizer):
    """Gemma's SentencePiece model; see `SentencePieceTokenizer`."""

    role_tokens: ClassVar[Mapping[str, str]] = {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
    }


class GemmaCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `GemmaCausalLM`; see `CausalLMPreprocessor`."""


class GemmaCausalLM(CausalLM):
    """A Gemma model that generates text; see `CausalLM`."""

    backbone_cls = GemmaBackbone
    preprocessor_cls = GemmaCausalLMPreprocessor
    compile = compile_greedily


def gemma_arguments(config: ConfigReader) -> dict[str, Any]:
    """Read what the models of this graph share.

    Args:
        config: the model's configuration.
    """
    sizes = decoder_sizes(config)
    arguments = sizes | {
        "intermediate_dim": 2 * sizes["intermediate_dim"],
        "head_dim": config.integer("head_dim", 256),
        "layer_norm_epsilon": config.number("rms_norm_eps", 1e-6),
        "attention_bias": config.boolean("attention_bias", False),
        "context_length": config.integer("max_position_embeddings", 8192),
    }
    # The first releases said "gelu" and meant its tanh approximation.
    for key in ("hidden_act", "hidden_activation"):
        config.choice(key, ["gelu_pytorch_tanh", "gelu"], "gelu_pytorch_tanh")
    config.expect(tie_word_embeddings=True, use_bidirectional_attention=False)
    config.skip("cache_implementation")
    rope, _, arguments["rope_max_wavelength"] = rotary_section(config, ())
    rope.check_all_read()
    return arguments


def capped_arguments(config: ConfigReader) -> dict[str, Any]:
    """Read what the models share whose logits have caps, and some of whose layers a window.

    Args:
        config: the model's configuration.
    """
    arguments = gemma_arguments(config)
    window = config.integer("sliding_window", 4096)
    config.expect(sliding_window_size=window)
    return arguments | {
        "attention_logit_soft_cap": config.number_or_null("attn_logit_softcapping", 50.0),
        "final_logit_soft_cap": config.number_or_null("final_logit_softcapping", 30.0),
        "use_sliding_window_attention": True,
        "sliding_window_size": window,
        "sliding_layers": sliding_layers(config, arguments["num_layers"]),
        "query_pre_attention_scalar": config.number("query_pre_attn_scalar", 256.0),
    }


def gemma_gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    """Read what GGUF files of the models of this graph share; see `ArgumentsReader`."""
    config.choice("rope.scaling.type", ["none"], "none")
    arguments = gguf_arguments(config, checkpoint)
    arguments["intermediate_dim"] *= 2
    del arguments["tie_word_embeddings"]
    config.choice("rope.dimension_count", [arguments["head_dim"]], arguments["head_dim"])
    return arguments


FAMILY = Family(
    task=GemmaCausalLM,
    formats={
        "transformers": transformers_format(
            {"gemma": "GemmaForCausalLM"}, lambda config, _: gemma_arguments(config)
        ),
        "gguf": gguf_format(("gemma",), gemma_gguf_arguments, shifted_names),
        "keras": block_format(
            GemmaBackbone,
            "gemma_decoder_block",
            KerasClasses(prefix="Gemma", module="gemma", tokenizer_cls=GemmaTokenizer),
            unheeded=("query_head_dim_normalize", "layer_norm_epsilon"),
        ),
    },
)
