"""Llama (https://arxiv.org/abs/2302.13971), whose graph many models have."""

from collections.abc import Mapping
from typing import Any, ClassVar

from nextword.layers import Activation, DecoderConfig, Llama3Scaling, RotaryConfig, rotary_scaling
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.gguf import (
    gguf_format,
    gguf_rotary_arguments,
    has_experts,
    interleaved_names,
)
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_names import decoder_names
from nextword.models.formats.rotary import GGUF_PAIR_FACTORS
from nextword.models.formats.transformers import rotary_decoder_arguments, transformers_format
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.tokenizers import BytePairTokenizer, SentencePieceTokenizer


class LlamaBackbone(Backbone):
    """The Llama decoder: RMS normalization, rotary embedding, grouped heads, SwiGLU.

    Args:
        rope_position_scaling_factor: divides positions (linear interpolation).
        rope_frequency_adjustment_factor: Llama 3.1's stretch of long wavelengths, or None for none.
        rope_low_freq_factor: with it, turns per context below which a wavelength is stretched.
        rope_high_freq_factor: with it, turns per context above which a wavelength is kept.
        rope_pretraining_sequence_length: with it, the context of pre-training.
        attention_output_bias: whether the attention's output has a bias; as the others by default.
        feed_forward_gate: whether the activation gates a second projection.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        num_key_value_heads: int,
        rope_max_wavelength: float = 10000,
        rope_position_scaling_factor: float = 1.0,
        rope_frequency_adjustment_factor: float | None = None,
        rope_low_freq_factor: float | None = None,
        rope_high_freq_factor: float | None = None,
        rope_pretraining_sequence_length: int | None = None,
        layer_norm_epsilon: float = 1e-6,
        dropout: float = 0,
        tie_word_embeddings: bool = False,
        *,
        head_dim: int | None = None,
        attention_bias: bool = False,
        attention_output_bias: bool | None = None,
        feed_forward_bias: bool = False,
        feed_forward_gate: bool = True,
        activation: Activation = "silu",
        context_length: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
    ) -> DecoderConfig:
        scaling = rotary_scaling(rope_scaling, factor=rope_position_scaling_factor)
        if rope_frequency_adjustment_factor is not None:
            if not (
                rope_low_freq_factor and rope_high_freq_factor and rope_pretraining_sequence_length
            ):
                raise ValueError(
                    "`rope_frequency_adjustment_factor` needs `rope_low_freq_factor`, "
                    "`rope_high_freq_factor` and `rope_pretraining_sequence_length`."
                )
            scaling = Llama3Scaling(
                factor=rope_frequency_adjustment_factor,
                low_frequency_factor=rope_low_freq_factor,
                high_frequency_factor=rope_high_freq_factor,
                original_context_length=rope_pretraining_sequence_length,
            )
        if attention_output_bias is None:
            attention_output_bias = attention_bias
        rotary = RotaryConfig(theta=rope_max_wavelength, scaling=scaling)
        return DecoderConfig(
            **decoder_fields(locals()),
            norm="rms",
        )


class LlamaTokenizer(SentencePieceTokenizer):
    """Llama's and Llama 2's SentencePiece model; see `SentencePieceTokenizer`."""

    role_tokens: ClassVar[Mapping[str, str]] = {"bos_token": "<s>", "eos_token": "</s>"}


class Llama3Tokenizer(BytePairTokenizer):
    """Llama 3's byte-level byte-pair encoding; see `BytePairTokenizer`."""

    default_split = "llama-bpe"
    role_tokens: ClassVar[Mapping[str, str]] = {
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
    }


class LlamaCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `LlamaCausalLM`; see `CausalLMPreprocessor`."""


class LlamaCausalLM(CausalLM):
    """A Llama model that generates text; see `CausalLM`."""

    backbone_cls = LlamaBackbone
    preprocessor_cls = LlamaCausalLMPreprocessor


def llama_arguments(
    config: ConfigReader, *, context_length: int = 2048, **defaults: Any
) -> dict[str, Any]:
    """Read what the models of this graph share: all but biases.

    Args:
        config: the model's configuration.
        context_length: see `rotary_decoder_arguments`.
        **defaults: its other arguments.
    """
    arguments = rotary_decoder_arguments(config, context_length=context_length, **defaults)
    # Splits the same matrix products over devices; the result is the same.
    config.skip("pretraining_tp")
    return arguments | _own_scaling(arguments["rope_scaling"] or {})


def bias_arguments(config: ConfigReader, attention_bias: bool = False) -> dict[str, Any]:
    """Read whether attention and feed-forward have biases.

    Args:
        config: the model's configuration.
        attention_bias: whether attention has them where that is not said.
    """
    return {
        "attention_bias": config.boolean("attention_bias", attention_bias),
        "feed_forward_bias": config.boolean("mlp_bias", False),
    }


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    return llama_arguments(config) | bias_arguments(config)


def _own_scaling(scaling: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the two kinds of scaling that have arguments of their own."""
    if scaling.get("kind") == "linear":
        return {"rope_scaling": None, "rope_position_scaling_factor": scaling["factor"]}
    if scaling.get("kind") != "llama3":
        return {}
    return {
        "rope_scaling": None,
        "rope_frequency_adjustment_factor": scaling["factor"],
        "rope_low_freq_factor": scaling["low_frequency_factor"],
        "rope_high_freq_factor": scaling["high_frequency_factor"],
        "rope_pretraining_sequence_length": scaling["original_context_length"],
    }


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(config, checkpoint)
    arguments |= _own_scaling(arguments["rope_scaling"] or {})
    arguments["attention_bias"] = "blk.0.attn_q.bias" in checkpoint.tensor_names()
    return arguments


FAMILY = Family(
    task=LlamaCausalLM,
    formats={
        "transformers": transformers_format({"llama": "LlamaForCausalLM"}, _transformers_arguments),
        "gguf": gguf_format(
            ("llama",),
            _gguf_arguments,
            interleaved_names,
            holds=lambda checkpoint: not has_experts(checkpoint),
            ignored=(GGUF_PAIR_FACTORS,),
        ),
        "keras": keras_format(
            LlamaBackbone,
            decoder_names("llama_transformer_decoder", "llama_layer_norm"),
            KerasClasses(
                prefix="Llama3",
                module="llama3",
                tokenizer_cls=Llama3Tokenizer,
                tokenizer_roles=("bos_token", "eos_token"),
            ),
            KerasClasses(prefix="Llama", module="llama", tokenizer_cls=LlamaTokenizer),
            unheeded=("rope_position_scaling_factor",),
        ),
    },
)
