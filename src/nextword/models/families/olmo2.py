"""OLMo 2 (https://arxiv.org/abs/2501.00656)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nextword.layers import DecoderConfig, RotaryConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.gguf import gguf_format, gguf_rotary_arguments, gguf_sliding_layers
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    TRANSFORMERS_NORMS_BEHIND,
    rotary_decoder_arguments,
    transformers_format,
)
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


class Olmo2Backbone(Backbone):
    """The OLMo 2 decoder: norms behind attention and feed-forward, and on queries and keys.

    Args:
        use_norms_before: whether the norms are before attention and feed-forward instead.
        query_key_norm: whether queries and keys are normalized together ("projection") or each
            head for itself ("head").
        rotary_layers: for each layer whether it rotates queries and keys; all by default.
        sliding_rope_max_wavelength: the base in layers with a sliding window, which are not scaled;
            None where they are as the others.
        num_experts: number of experts in each layer, whose width is `intermediate_dim`; None for
            one network.
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
        use_norms_before: bool = False,
        query_key_norm: Literal["head", "projection"] = "projection",
        rotary_layers: Sequence[bool] | None = None,
        num_experts: int | None = None,
        top_k: int = 8,
        norm_top_k_prob: bool = False,
        rope_max_wavelength: float = 500000,
        rope_scaling: Mapping[str, Any] | None = None,
        sliding_rope_max_wavelength: float | None = None,
        sliding_window: int | None = None,
        sliding_layers: Sequence[bool] | None = None,
        layer_norm_epsilon: float = 1e-5,
        attention_bias: bool = False,
        tie_word_embeddings: bool = False,
        dropout: float = 0.0,
        head_dim: int | None = None,
        context_length: int | None = None,
    ) -> DecoderConfig:
        sliding_rotary = None
        if sliding_rope_max_wavelength is not None:
            sliding_rotary = RotaryConfig(theta=sliding_rope_max_wavelength)
        return DecoderConfig(
            **decoder_fields(locals()),
            norm_placement="pre" if use_norms_before else "branch",
        )


class Olmo2CausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of an `Olmo2CausalLM`; see `CausalLMPreprocessor`."""


class Olmo2CausalLM(CausalLM):
    """An OLMo 2 model that generates text; see `CausalLM`."""

    backbone_cls = Olmo2Backbone
    preprocessor_cls = Olmo2CausalLMPreprocessor


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = rotary_decoder_arguments(config, context_length=2048, epsilon=1e-5)
    return arguments | {"attention_bias": config.boolean("attention_bias", False)}


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(config, checkpoint)
    arguments |= {
        "sliding_rope_max_wavelength": arguments["rope_max_wavelength"],
        "sliding_window": config.integer("attention.sliding_window", None),
        "sliding_layers": gguf_sliding_layers(config, arguments["num_layers"], 4),
        "tie_word_embeddings": False,
    }
    return arguments


FAMILY = Family(
    task=Olmo2CausalLM,
    formats={
        "transformers": transformers_format(
            {"olmo2": "Olmo2ForCausalLM"},
            _transformers_arguments,
            TRANSFORMERS_NAMES | TRANSFORMERS_NORMS_BEHIND,
        ),
        "gguf": gguf_format(("olmo2",), _gguf_arguments),
    },
)
