"""OLMo 2 (https://arxiv.org/abs/2501.00656), OLMo 3, and models with most of their parts.

Those are OLMoE (https://arxiv.org/abs/2409.02060) and FlexOlmo (https://arxiv.org/abs/2507.07024),
which have experts, and EXAONE 4 (https://arxiv.org/abs/2507.11407), with layers without rotation.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nextword.layers import DecoderConfig, RotaryConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import LayerNames
from nextword.models.formats.gguf import gguf_format, gguf_rotary_arguments, gguf_sliding_layers
from nextword.models.formats.rotary import rotary_arguments, rotary_arguments_by_layer
from nextword.models.formats.transformers import (
    TRANSFORMERS_EXPERTS,
    TRANSFORMERS_NAMES,
    TRANSFORMERS_NORMS_BEHIND,
    decoder_arguments,
    experts_arguments,
    sliding_layers,
    transformers_format,
)
from nextword.models.shared_arguments import all_but_last, decoder_fields
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
    kind = checkpoint.architecture
    arguments = decoder_arguments(
        config, context_length=2048, epsilon=1e-6 if kind == "flex_olmo" else 1e-5
    )
    context_length = arguments["context_length"]
    if kind != "exaone4":
        arguments["attention_bias"] = config.boolean("attention_bias", False)
    if kind != "olmo3":
        arguments |= rotary_arguments(config, context_length, 5e5 if kind == "flex_olmo" else 1e4)
    if kind in ("olmoe", "flex_olmo"):
        arguments |= {
            "use_norms_before": kind == "olmoe",
            "norm_top_k_prob": config.boolean("norm_topk_prob", False),
            **experts_arguments(
                config, "num_experts", "num_local_experts", top_k=8 if kind == "olmoe" else 5
            ),
        }
    if kind == "exaone4":
        arguments |= _exaone_arguments(config, arguments["num_layers"])
    if kind == "olmo3":
        num_layers = arguments["num_layers"]
        arguments |= rotary_arguments_by_layer(config, context_length, 5e5, 5e5)
        arguments["sliding_window"] = config.integer("sliding_window", 4096)
        arguments["sliding_layers"] = sliding_layers(config, num_layers, period=4)
    return arguments


def _exaone_arguments(config: ConfigReader, num_layers: int) -> dict[str, Any]:
    """Read which layers have a window: beside such layers, those without one do not rotate."""
    window = config.integer_or_null("sliding_window", 4096)
    sliding = sliding_layers(config, num_layers)
    if sliding is None:
        every = config.integer("sliding_window_pattern", 4)
        sliding = all_but_last(num_layers, every)
    config.skip("sliding_window_pattern")  # which `layer_types` says again
    return {
        "query_key_norm": "head",
        "sliding_window": window,
        "sliding_layers": sliding,
        "rotary_layers": None if window is None else sliding,
    }


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    is_before = config.norm_placement == "pre"
    norms = {} if is_before else TRANSFORMERS_NORMS_BEHIND
    return TRANSFORMERS_NAMES | TRANSFORMERS_EXPERTS | norms


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
            {
                "olmo2": "Olmo2ForCausalLM",
                "olmo3": "Olmo3ForCausalLM",
                "olmoe": "OlmoeForCausalLM",
                "flex_olmo": "FlexOlmoForCausalLM",
                "exaone4": "Exaone4ForCausalLM",
            },
            _transformers_arguments,
            _transformers_names,
        ),
        "gguf": gguf_format(("olmo2",), _gguf_arguments),
    },
)
