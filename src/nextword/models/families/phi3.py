"""Phi-3 (https://arxiv.org/abs/2404.14219), Phi-3.5 and Phi-4."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from nextword.layers import DecoderConfig, LongRopeScaling, RotaryConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import (
    LayerNames,
    gate_and_intermediate,
    query_key_value,
)
from nextword.models.formats.gguf import GGUF_NAMES, gguf_arguments, gguf_format
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_layers import layer_paths
from nextword.models.formats.keras_names import attention_names, feed_forward_names
from nextword.models.formats.rotary import (
    GGUF_LONG_FACTORS,
    GGUF_SHORT_FACTORS,
    rotary_section,
    scaling_settings,
)
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    decoder_arguments,
    transformers_format,
)
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.tokenizers import SentencePieceTokenizer


class Phi3Backbone(Backbone):
    """The Phi-3 decoder: like Llama's, with its projections stored together.

    Args:
        pretraining_sequence_length: with scaling, the longest text that takes the short factors.
        rope_scaling_type: "su" (LongRoPE, see `nextword.layers.LongRopeScaling`) or None.
        rope_scaling_short_factor: with it, what divides the frequency of each rotated pair.
        rope_scaling_long_factor: the same for longer texts.
        rope_scaling_factor: with scaling, how many times as long as in pre-training texts may be;
            `max_sequence_length / pretraining_sequence_length` by default.
        rope_attention_factor: with scaling, factor of what is rotated; the paper's by default.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        hidden_dim: int,
        intermediate_dim: int,
        num_query_heads: int,
        num_key_value_heads: int,
        layer_norm_epsilon: float = 1e-6,
        dropout: float = 0.0,
        max_sequence_length: int = 4096,
        pretraining_sequence_length: int = 4096,
        rope_max_wavelength: float = 10000,
        rope_scaling_type: Literal["su"] | None = None,
        rope_scaling_short_factor: Sequence[float] | None = None,
        rope_scaling_long_factor: Sequence[float] | None = None,
        *,
        rope_scaling_factor: float | None = None,
        rope_attention_factor: float | None = None,
        partial_rotary_factor: float = 1.0,
        head_dim: int | None = None,
        sliding_window: int | None = None,
        tie_word_embeddings: bool = False,
    ) -> DecoderConfig:
        scaling = None
        if rope_scaling_type is not None:
            if rope_scaling_type != "su" or not (
                rope_scaling_short_factor and rope_scaling_long_factor
            ):
                raise ValueError(
                    "`rope_scaling_type` must be 'su', with `rope_scaling_short_factor` and "
                    f"`rope_scaling_long_factor`, or None. Received: {rope_scaling_type!r}."
                )
            scaling = LongRopeScaling(
                short_factors=rope_scaling_short_factor,
                long_factors=rope_scaling_long_factor,
                original_context_length=pretraining_sequence_length,
                factor=rope_scaling_factor or max_sequence_length / pretraining_sequence_length,
                attention_factor=rope_attention_factor,
            )
        rotary = RotaryConfig(
            theta=rope_max_wavelength, fraction=partial_rotary_factor, scaling=scaling
        )
        return DecoderConfig(
            **decoder_fields(locals()),
        )


class Phi3Tokenizer(SentencePieceTokenizer):
    """Phi-3's SentencePiece model; see `SentencePieceTokenizer`."""

    role_tokens: ClassVar[Mapping[str, str]] = {"bos_token": "<s>", "eos_token": "<|endoftext|>"}


class Phi3CausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `Phi3CausalLM`; see `CausalLMPreprocessor`."""


class Phi3CausalLM(CausalLM):
    """A Phi-3 model that generates text; see `CausalLM`."""

    backbone_cls = Phi3Backbone
    preprocessor_cls = Phi3CausalLMPreprocessor


_KERAS_LAYER = "layers/phi3_decoder_{i}"
_KERAS_NAMES = {
    "token_embedding": "layers/reversible_embedding",
    "output_norm": "layers/phi3_layer_norm",
    "self_attention_norm": f"{_KERAS_LAYER}/pre_attention_layernorm",
    **attention_names(f"{_KERAS_LAYER}/attention"),
    "feed_forward_norm": f"{_KERAS_LAYER}/post_attention_layernorm",
    **feed_forward_names(_KERAS_LAYER, prefix=""),
}


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = decoder_arguments(config, context_length=4096, epsilon=1e-5)
    arguments["max_sequence_length"] = arguments.pop("context_length")
    arguments["dropout"] = config.fraction("resid_pdrop", 0.0)
    arguments["sliding_window"] = config.integer("sliding_window", None)
    arguments |= _rotary_arguments(config, arguments["max_sequence_length"])
    config.expect(attention_bias=False, mlp_bias=False, lm_head_bias=False)
    config.skip("embd_pdrop")  # the dropout of the embedding
    return arguments


def _rotary_arguments(config: ConfigReader, context_length: int) -> dict[str, Any]:
    fraction = config.number("partial_rotary_factor", 1.0)
    # The family's configurations have had three names for the same.
    rope, kind, theta = rotary_section(config, ("longrope", "su", "yarn"))
    original = config.integer("original_max_position_embeddings", 4096)
    arguments = {
        "rope_max_wavelength": theta,
        "partial_rotary_factor": rope.number("partial_rotary_factor", fraction),
        "pretraining_sequence_length": original,
    }
    kind = kind if kind == "default" else "longrope"
    scaling = scaling_settings(rope, kind, context_length, original)
    rope.check_all_read()
    if scaling is None:
        return arguments
    return arguments | {
        "rope_scaling_type": "su",
        "rope_scaling_short_factor": scaling["short_factors"],
        "rope_scaling_long_factor": scaling["long_factors"],
        "rope_scaling_factor": rope.number("factor", None),
        "rope_attention_factor": scaling["attention_factor"],
    }


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    return {
        **TRANSFORMERS_NAMES,
        **query_key_value(config, "model.layers.{i}.self_attn.qkv_proj"),
        **gate_and_intermediate(config, "model.layers.{i}.mlp.gate_up_proj"),
    }


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_arguments(config, checkpoint)
    arguments["max_sequence_length"] = arguments.pop("context_length")
    head_dim = arguments["head_dim"]
    rotary_dim = config.integer("rope.dimension_count", head_dim, maximum=head_dim)
    arguments["partial_rotary_factor"] = rotary_dim / head_dim
    # Zero stands for none.
    arguments["sliding_window"] = config.integer("attention.sliding_window", 0, minimum=0) or None
    original = config.integer("rope.scaling.original_context_length", 4096)
    arguments["pretraining_sequence_length"] = original
    magnitude = config.number("rope.scaling.attn_factor", None)
    if GGUF_SHORT_FACTORS in checkpoint.tensor_names():
        arguments |= {
            "rope_scaling_type": "su",
            "rope_scaling_short_factor": checkpoint.tensor(GGUF_SHORT_FACTORS).tolist(),
            "rope_scaling_long_factor": checkpoint.tensor(GGUF_LONG_FACTORS).tolist(),
            "rope_attention_factor": magnitude,
        }
    return arguments


def _gguf_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    return {
        **GGUF_NAMES,
        **query_key_value(config, "blk.{i}.attn_qkv"),
        **gate_and_intermediate(config, "blk.{i}.ffn_up"),
    }


FAMILY = Family(
    task=Phi3CausalLM,
    formats={
        "transformers": transformers_format(
            {"phi3": "Phi3ForCausalLM"}, _transformers_arguments, _transformers_names
        ),
        "gguf": gguf_format(
            ("phi3",),
            _gguf_arguments,
            _gguf_names,
            ignored=(GGUF_SHORT_FACTORS, GGUF_LONG_FACTORS),
        ),
        "keras": keras_format(
            Phi3Backbone,
            _KERAS_NAMES,
            KerasClasses(prefix="Phi3", module="phi3", tokenizer_cls=Phi3Tokenizer),
            paths=layer_paths("attention"),
        ),
    },
)
