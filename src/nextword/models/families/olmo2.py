"""OLMo 2 (https://arxiv.org/abs/2501.00656) and OLMo 3."""

from collections.abc import Mapping, Sequence
from typing import Any

from nextword.layers import DecoderConfig, RotaryConfig, rotary_scaling
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family, StoredFormat
from nextword.models.formats.decoder_tables import (
    TRANSFORMERS_IGNORED,
    TRANSFORMERS_NAMES,
    TRANSFORMERS_NORMS_BEHIND,
    decoder_table,
    gguf_table,
)
from nextword.models.formats.gguf import gguf_arguments, gguf_sliding_layers
from nextword.models.formats.rotary import gguf_scaling, rotary_arguments, rotary_arguments_by_layer
from nextword.models.formats.transformers import decoder_arguments, sliding_layers
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import gguf_settings, transformers_settings
from nextword.presets.weight_table import WeightTable


class Olmo2Backbone(Backbone):
    """The OLMo 2 decoder: norms behind attention and feed-forward, and on queries and keys.

    Args:
        sliding_rope_max_wavelength: the base in layers with a sliding window, which are not scaled.
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
        return DecoderConfig(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            num_query_heads=num_query_heads,
            num_key_value_heads=num_key_value_heads,
            head_dim=head_dim or hidden_dim // num_query_heads,
            context_length=context_length,
            rotary=RotaryConfig(theta=rope_max_wavelength, scaling=rotary_scaling(rope_scaling)),
            sliding_rotary=RotaryConfig(theta=sliding_rope_max_wavelength or rope_max_wavelength),
            norm_epsilon=layer_norm_epsilon,
            norm_placement="branch",
            query_key_norm="projection",
            sliding_window=sliding_window,
            sliding_layers=None if sliding_layers is None else tuple(sliding_layers),
            query_key_value_bias=attention_bias,
            attention_output_bias=attention_bias,
            tie_word_embeddings=tie_word_embeddings,
            dropout=dropout,
        )


class Olmo2CausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of an `Olmo2CausalLM`; see `CausalLMPreprocessor`."""


class Olmo2CausalLM(CausalLM):
    """An OLMo 2 model that generates text; see `CausalLM`."""

    backbone_cls = Olmo2Backbone
    preprocessor_cls = Olmo2CausalLMPreprocessor


def _transformers_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    config = transformers_settings(checkpoint)
    arguments = decoder_arguments(config, context_length=2048, epsilon=1e-5)
    context_length = arguments["context_length"]
    arguments["attention_bias"] = config.boolean("attention_bias", False)
    if checkpoint.architecture == "olmo2":
        arguments |= rotary_arguments(config, context_length)
    else:
        num_layers = arguments["num_layers"]
        arguments |= rotary_arguments_by_layer(config, context_length, 5e5, 5e5)
        arguments["sliding_window"] = config.integer("sliding_window", 4096)
        arguments["sliding_layers"] = sliding_layers(config, num_layers) or [
            layer % 4 != 3 for layer in range(num_layers)
        ]
    config.check_all_read()
    return arguments


def _transformers_weights(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
    return decoder_table(config, TRANSFORMERS_NAMES | TRANSFORMERS_NORMS_BEHIND)


def _gguf_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    config = gguf_settings(checkpoint)
    arguments = gguf_arguments(config, checkpoint)
    arguments |= {
        "rope_scaling": gguf_scaling(config, checkpoint, arguments.pop("head_dim")),
        "sliding_window": config.integer("attention.sliding_window", None),
        "sliding_layers": gguf_sliding_layers(config, arguments["num_layers"], 4),
        "tie_word_embeddings": False,
    }
    config.check_all_read()
    return arguments


FAMILY = Family(
    task=Olmo2CausalLM,
    formats={
        "transformers": StoredFormat(
            architectures={"olmo2": "Olmo2ForCausalLM", "olmo3": "Olmo3ForCausalLM"},
            arguments=_transformers_arguments,
            weights=_transformers_weights,
            ignored=TRANSFORMERS_IGNORED,
        ),
        "gguf": StoredFormat(
            architectures=("olmo2",), arguments=_gguf_arguments, weights=gguf_table
        ),
    },
)
