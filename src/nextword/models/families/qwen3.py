"""Qwen3 (https://arxiv.org/abs/2505.09388)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.gguf import gguf_format, gguf_rotary_arguments
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_names import decoder_names
from nextword.models.formats.transformers import (
    optional_sliding_window,
    rotary_decoder_arguments,
    transformers_format,
)
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.tokenizers import BytePairTokenizer


class Qwen3Backbone(Backbone):
    """The Qwen3 decoder: like Llama's, with the queries and keys of each head normalized."""

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        num_key_value_heads: int,
        head_dim: int,
        hidden_dim: int,
        intermediate_dim: int,
        rope_max_wavelength: float = 10000,
        rope_scaling_factor: float = 1.0,
        layer_norm_epsilon: float = 1e-6,
        dropout: float = 0.0,
        tie_word_embeddings: bool = True,
        sliding_window_size: int | None = 32768,
        *,
        sliding_layers: Sequence[bool] | None = None,
        attention_bias: bool = False,
        context_length: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
    ) -> DecoderConfig:
        return DecoderConfig(
            **decoder_fields(locals()),
            query_key_norm="head",
        )


class Qwen3Tokenizer(BytePairTokenizer):
    """Qwen3's byte-level byte-pair encoding; see `BytePairTokenizer`."""

    default_split = "qwen2"
    role_tokens: ClassVar[Mapping[str, str]] = {
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }


class Qwen3CausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `Qwen3CausalLM`; see `CausalLMPreprocessor`."""


class Qwen3CausalLM(CausalLM):
    """A Qwen3 model that generates text; see `CausalLM`."""

    backbone_cls = Qwen3Backbone
    preprocessor_cls = Qwen3CausalLMPreprocessor


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = rotary_decoder_arguments(
        config, context_length=32768, head_dim=128, has_scaling_factor=True
    )
    arguments |= optional_sliding_window(config, arguments["num_layers"])
    arguments["attention_bias"] = config.boolean("attention_bias", False)
    return arguments


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(config, checkpoint, has_scaling_factor=True)
    # Metadata tell of no window, and none of the published models has one.
    arguments["sliding_window_size"] = None
    return arguments


FAMILY = Family(
    task=Qwen3CausalLM,
    formats={
        "transformers": transformers_format({"qwen3": "Qwen3ForCausalLM"}, _transformers_arguments),
        "gguf": gguf_format(("qwen3",), _gguf_arguments),
        "keras": keras_format(
            Qwen3Backbone,
            decoder_names("qwen3_transformer_decoder", "qwen3_layer_norm"),
            KerasClasses(prefix="Qwen3", module="qwen3", tokenizer_cls=Qwen3Tokenizer),
            unheeded=("sliding_window_size",),
        ),
    },
)
