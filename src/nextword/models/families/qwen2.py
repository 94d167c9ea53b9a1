"""Qwen2 and Qwen2.5 (https://arxiv.org/abs/2407.10671, https://arxiv.org/abs/2412.15115)."""

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


class QwenBackbone(Backbone):
    """The Qwen2 decoder: like Llama's, with biases on query, key and value."""

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        num_key_value_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        rope_max_wavelength: float = 10000,
        rope_scaling_factor: float = 1.0,
        layer_norm_epsilon: float = 1e-6,
        dropout: float = 0,
        tie_word_embeddings: bool = True,
        use_sliding_window_attention: bool = False,
        sliding_window_size: int | None = 32768,
        *,
        sliding_layers: Sequence[bool] | None = None,
        head_dim: int | None = None,
        context_length: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
    ) -> DecoderConfig:
        return DecoderConfig(
            **decoder_fields(locals()),
            query_key_value_bias=True,
        )


class QwenTokenizer(BytePairTokenizer):
    """Qwen2's byte-level byte-pair encoding; see `BytePairTokenizer`."""

    default_split = "qwen2"
    role_tokens: ClassVar[Mapping[str, str]] = {"eos_token": "<|endoftext|>"}


class QwenCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `QwenCausalLM`; see `CausalLMPreprocessor`."""


class QwenCausalLM(CausalLM):
    """A Qwen2 model that generates text; see `CausalLM`."""

    backbone_cls = QwenBackbone
    preprocessor_cls = QwenCausalLMPreprocessor


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = rotary_decoder_arguments(config, context_length=32768, has_scaling_factor=True)
    arguments |= optional_sliding_window(config, arguments["num_layers"])
    arguments["use_sliding_window_attention"] = arguments["sliding_window_size"] is not None
    # Positions of images, which this model does not see.
    config.expect(use_mrope=False)
    return arguments


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    return gguf_rotary_arguments(config, checkpoint, has_scaling_factor=True)


FAMILY = Family(
    task=QwenCausalLM,
    formats={
        "transformers": transformers_format({"qwen2": "Qwen2ForCausalLM"}, _transformers_arguments),
        "gguf": gguf_format(("qwen2",), _gguf_arguments),
        "keras": keras_format(
            QwenBackbone,
            decoder_names("qwen_transformer_decoder", "qwen_layer_norm"),
            KerasClasses(prefix="Qwen", module="qwen", tokenizer_cls=QwenTokenizer),
            KerasClasses(prefix="Qwen2", module="qwen", tokenizer_cls=QwenTokenizer),
            unheeded=("use_sliding_window_attention",),
        ),
    },
)
