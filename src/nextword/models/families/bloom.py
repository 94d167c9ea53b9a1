"""BLOOM (https://arxiv.org/abs/2211.05100)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from nextword.layers import Activation, DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import LayerNames, grouped_query_key_value
from nextword.models.formats.gguf import fused_names, gguf_format, layer_norm_arguments
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_names import attention_names
from nextword.models.formats.transformers import DENSE_NAMES, spelled_integer, transformers_format
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.weight_layouts import Transposed
from nextword.tokenizers import BytePairTokenizer


class BloomBackbone(Backbone):
    """The BLOOM decoder: normalized embeddings, ALiBi, biases everywhere, tied head.

    Args:
        use_embedding_norm: whether embedded tokens are normalized.
        use_bias: whether projections and norms have biases.
        attention_scale: factor of dot products; by default that of the heads' width.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        dropout: float = 0.0,
        layer_norm_epsilon: float = 1e-5,
        *,
        use_embedding_norm: bool = True,
        use_bias: bool = True,
        activation: Activation = "gelu_tanh",
        attention_scale: float | None = None,
        max_sequence_length: int | None = None,
    ) -> DecoderConfig:
        return DecoderConfig(
            **decoder_fields(locals()),
            position_embedding="alibi",
            embedding_norm=use_embedding_norm,
            norm="layer",
            norm_bias=use_bias,
            feed_forward_gate=False,
            tie_word_embeddings=True,
        )


class BloomTokenizer(BytePairTokenizer):
    """BLOOM's byte-level byte-pair encoding; see `BytePairTokenizer`."""

    default_split = "bloom"
    role_tokens: ClassVar[Mapping[str, str]] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    }


class BloomCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `BloomCausalLM`; see `CausalLMPreprocessor`."""


class BloomCausalLM(CausalLM):
    """A BLOOM model that generates text; see `CausalLM`."""

    backbone_cls = BloomBackbone
    preprocessor_cls = BloomCausalLMPreprocessor


_KERAS_LAYER = "layers/bloom_decoder_{i}"
_KERAS_ATTENTION = f"{_KERAS_LAYER}/_self_attention_layer"
KERAS_NAMES: LayerNames = {
    "token_embedding": "layers/reversible_embedding",
    "embedding_norm": "layers/layer_normalization",
    "output_norm": "layers/layer_normalization_1",
    "self_attention_norm": f"{_KERAS_LAYER}/_pre_attention_layernorm",
    **attention_names(_KERAS_ATTENTION, prefix="_"),
    "self_attention/attention_output": (f"{_KERAS_ATTENTION}/_output_dense", Transposed()),
    "feed_forward_norm": f"{_KERAS_LAYER}/_post_attention_layernorm",
    "feed_forward/intermediate": f"{_KERAS_LAYER}/_mlp_intermediate_dense",
    "feed_forward/feed_forward_output": f"{_KERAS_LAYER}/_mlp_output_dense",
}
_KERAS_PATHS = {
    "token_embedding": "token_embedding",
    **attention_names("transformer_layer_{i}/self_attention"),
    "feed_forward/intermediate": "transformer_layer_{i}/mlp_intermediate_dense",
    "feed_forward/feed_forward_output": "transformer_layer_{i}/mlp_output_dense",
}


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    hidden_dim = spelled_integer(config, "hidden_size", "n_embed")
    arguments = {
        "vocabulary_size": config.integer("vocab_size"),
        "num_layers": spelled_integer(config, "n_layer", "num_hidden_layers"),
        "num_heads": spelled_integer(config, "n_head", "num_attention_heads"),
        "hidden_dim": hidden_dim,
        "intermediate_dim": config.choice("n_inner", [4 * hidden_dim], 4 * hidden_dim),
        "dropout": config.fraction("hidden_dropout", 0.0),
        "layer_norm_epsilon": config.number("layer_norm_epsilon", 1e-5),
    }
    config.expect(apply_residual_connection_post_layernorm=False, tie_word_embeddings=True)
    # How the original code computed the same, and the length of its training samples.
    config.skip("attention_softmax_in_fp32", "bias_dropout_fusion", "masked_softmax_fusion")
    config.skip("offset_alibi", "pretraining_tp", "seq_length", "skip_bias_add")
    config.skip("skip_bias_add_qkv", "slow_but_exact")
    return arguments


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    fused = grouped_query_key_value(config, "transformer.h.{i}.self_attention.query_key_value")
    return {**DENSE_NAMES, **fused}


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = layer_norm_arguments(config, checkpoint)
    config.choice("attention.head_count_kv", [arguments["num_heads"]], arguments["num_heads"])
    config.skip("context_length")  # of the training samples
    return arguments


FAMILY = Family(
    task=BloomCausalLM,
    formats={
        "transformers": transformers_format(
            {"bloom": "BloomForCausalLM"},
            _transformers_arguments,
            _transformers_names,
            prefix="transformer.",
            ignored=(r"lm_head\.weight",),
        ),
        "gguf": gguf_format(("bloom",), _gguf_arguments, fused_names, ignored=(r"output\.weight",)),
        "keras": keras_format(
            BloomBackbone,
            KERAS_NAMES,
            KerasClasses(prefix="Bloom", module="bloom", tokenizer_cls=BloomTokenizer),
            paths=_KERAS_PATHS,
        ),
    },
)
