"""StarCoder2 (https://arxiv.org/abs/2402.19173)."""

from collections.abc import Mapping
from typing import Any

from nextword.layers import Activation, DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.gguf import gguf_format, gguf_rotary_arguments
from nextword.models.formats.rotary import rotary_arguments
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    activation,
    decoder_sizes,
    transformers_format,
)
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


class Starcoder2Backbone(Backbone):
    """The StarCoder2 decoder: layer normalization, rotary embedding, biases, a sliding window."""

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
        sliding_window: int | None = None,
        layer_norm_epsilon: float = 1e-5,
        use_bias: bool = True,
        activation: Activation = "gelu_tanh",
        tie_word_embeddings: bool = True,
        dropout: float = 0.0,
        context_length: int | None = None,
    ) -> DecoderConfig:
        return DecoderConfig(
            **decoder_fields(locals()),
            norm="layer",
            feed_forward_gate=False,
        )


class Starcoder2CausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `Starcoder2CausalLM`; see `CausalLMPreprocessor`."""


class Starcoder2CausalLM(CausalLM):
    """A StarCoder2 model that generates text; see `CausalLM`."""

    backbone_cls = Starcoder2Backbone
    preprocessor_cls = Starcoder2CausalLMPreprocessor


_TRANSFORMERS_NAMES = TRANSFORMERS_NAMES | {
    "feed_forward/intermediate": "model.layers.{i}.mlp.c_fc",
    "feed_forward/feed_forward_output": "model.layers.{i}.mlp.c_proj",
}


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = decoder_sizes(config) | {
        "sliding_window": config.integer("sliding_window", None),
        "layer_norm_epsilon": config.number("norm_epsilon", 1e-5),
        "use_bias": config.boolean("use_bias", True),
        "activation": activation(config, "hidden_act", "gelu_pytorch_tanh"),
        "tie_word_embeddings": config.boolean("tie_word_embeddings", True),
        "dropout": config.fraction("residual_dropout", 0.0),
        "context_length": config.integer("max_position_embeddings", 4096),
    }
    arguments |= rotary_arguments(config, arguments["context_length"])
    # Says by another word what `hidden_act` and `norm_epsilon` say; and another place of dropout.
    config.expect(mlp_type="default", norm_type="layer_norm")
    config.skip("embedding_dropout")
    return arguments


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    return gguf_rotary_arguments(config, checkpoint, norm="layer", has_head_dim=False)


FAMILY = Family(
    task=Starcoder2CausalLM,
    formats={
        "transformers": transformers_format(
            {"starcoder2": "Starcoder2ForCausalLM"}, _transformers_arguments, _TRANSFORMERS_NAMES
        ),
        "gguf": gguf_format(("starcoder2",), _gguf_arguments),
    },
)
