"""Falcon (https://arxiv.org/abs/2311.16867)."""

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
from nextword.models.formats.rotary import factored, gguf_scaling, rotary_arguments
from nextword.models.formats.transformers import (
    DENSE_NAMES,
    activation,
    spelled_integer,
    transformers_format,
)
from nextword.models.shared_arguments import check_equal, decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.weight_layouts import Transposed
from nextword.tokenizers import BytePairTokenizer


class FalconBackbone(Backbone):
    """The Falcon decoder: by default that of the 1B model, with ALiBi and biases.

    Args:
        attention_dropout_rate: dropout rate of the attention's branch.
        feedforward_dropout_rate: dropout rate of the feed-forward's branch; the same.
        use_alibi: whether positions are ALiBi's, or rotary.
        shared_norm: whether they then share one norm.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_attention_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        layer_norm_epsilon: float = 1e-5,
        attention_dropout_rate: float = 0,
        feedforward_dropout_rate: float = 0,
        *,
        num_key_value_heads: int | None = None,
        use_alibi: bool = True,
        use_bias: bool = True,
        parallel_residual: bool = False,
        shared_norm: bool = False,
        activation: Activation = "gelu",
        rope_max_wavelength: float = 10000,
        rope_scaling_factor: float = 1.0,
        tie_word_embeddings: bool = True,
        context_length: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
    ) -> DecoderConfig:
        check_equal(
            attention_dropout_rate=attention_dropout_rate,
            feedforward_dropout_rate=feedforward_dropout_rate,
        )
        head_dim = hidden_dim // num_attention_heads
        if use_alibi:
            rotary = None  # whatever the other arguments are
        return DecoderConfig(
            **decoder_fields(locals()),
            position_embedding="alibi" if use_alibi else "rotary",
            # Falcon adds the biases before it scales the dot products, and was trained with this
            # rounding, which decides between far tokens.
            alibi_scale=head_dim**-0.5,
            alibi_dtype="bfloat16",
            norm="layer",
            feed_forward_gate=False,
            dropout=feedforward_dropout_rate,
        )


class FalconTokenizer(BytePairTokenizer):
    """Falcon's byte-level byte-pair encoding; see `BytePairTokenizer`."""

    default_split = "falcon"
    role_tokens: ClassVar[Mapping[str, str]] = {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
    }


class FalconCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `FalconCausalLM`; see `CausalLMPreprocessor`."""


class FalconCausalLM(CausalLM):
    """A Falcon model that generates text; see `CausalLM`."""

    backbone_cls = FalconBackbone
    preprocessor_cls = FalconCausalLMPreprocessor


_KERAS_LAYER = "layers/falcon_transformer_decoder_{i}"
_KERAS_ATTENTION = f"{_KERAS_LAYER}/attention_layer"
KERAS_NAMES: LayerNames = {
    "token_embedding": "layers/reversible_embedding",
    "output_norm": "layers/layer_normalization",
    "self_attention_norm": f"{_KERAS_LAYER}/input_layernorm",
    **attention_names(_KERAS_ATTENTION),
    "self_attention/attention_output": (f"{_KERAS_ATTENTION}/output_dense", Transposed()),
    "feed_forward_norm": f"{_KERAS_LAYER}/post_attention_layernorm",
    "feed_forward/intermediate": f"{_KERAS_LAYER}/dense_h_to_4h",
    "feed_forward/feed_forward_output": f"{_KERAS_LAYER}/dense_4h_to_h",
}
_KERAS_PATHS = {
    "token_embedding": "token_embedding",
    **attention_names("transformer_layer_{i}/attention"),
    "feed_forward/intermediate": "transformer_layer_{i}/dense_h_to_4h",
    "feed_forward/feed_forward_output": "transformer_layer_{i}/dense_4h_to_h",
}
GGUF_TWO_NORMS = {
    "self_attention_norm": "blk.{i}.attn_norm_2",
    "feed_forward_norm": "blk.{i}.attn_norm",
}
TWO_NORMS = {
    "self_attention_norm": "transformer.h.{i}.ln_attn",
    "feed_forward_norm": "transformer.h.{i}.ln_mlp",
}


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    hidden_dim = spelled_integer(config, "hidden_size", "n_embed")
    num_heads = config.integer("num_attention_heads")
    use_alibi = config.boolean("alibi", False)
    dropout = config.fraction("hidden_dropout", 0.0)
    arguments = {
        "vocabulary_size": config.integer("vocab_size"),
        "num_layers": config.integer("num_hidden_layers"),
        "num_attention_heads": num_heads,
        "hidden_dim": hidden_dim,
        "intermediate_dim": config.integer("ffn_hidden_size", 4 * hidden_dim),
        "layer_norm_epsilon": config.number("layer_norm_epsilon", 1e-5),
        "attention_dropout_rate": dropout,
        "feedforward_dropout_rate": dropout,
        "use_alibi": use_alibi,
        "use_bias": config.boolean("bias", False),
        "activation": activation(config, "activation", "gelu"),
        "tie_word_embeddings": config.boolean("tie_word_embeddings", True),
        # ALiBi has no limit.
        "context_length": None if use_alibi else config.integer("max_position_embeddings", 2048),
    }
    config.skip("max_position_embeddings")
    config.expect(apply_residual_connection_post_layernorm=False)
    arguments |= _architecture(config, num_heads)
    arguments |= rotary_arguments(config, arguments["context_length"] or 2048)
    arguments |= factored(arguments["rope_scaling"])
    return arguments


def _architecture(config: ConfigReader, num_heads: int) -> dict[str, Any]:
    """Read which of the three layers it is: that of 40B, of 7B or of 1B."""
    num_key_value_heads = config.integer("num_kv_heads", num_heads)
    is_multi_query = config.boolean("multi_query", True)
    if config.boolean("new_decoder_architecture", False):
        config.expect(parallel_attn=True)
        num_norms = config.choice("num_ln_in_parallel_attn", [1, 2], 2)
        return {
            "num_key_value_heads": num_key_value_heads,
            "parallel_residual": True,
            "shared_norm": num_norms == 1,
        }
    is_parallel = config.boolean("parallel_attn", True)
    config.expect(num_ln_in_parallel_attn=1)
    return {
        "num_key_value_heads": 1 if is_multi_query else num_heads,
        "parallel_residual": is_parallel,
        "shared_norm": is_parallel,
    }


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    fused = grouped_query_key_value(config, "transformer.h.{i}.self_attention.query_key_value")
    has_two = config.parallel_residual and not config.shared_norm
    return {**DENSE_NAMES, **fused, **(TWO_NORMS if has_two else {}), "head": "lm_head"}


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    """Read the models that llama.cpp knows: 7B, 11B and 40B."""
    num_key_value_heads = config.integer("attention.head_count_kv")
    arguments = layer_norm_arguments(config, checkpoint)
    num_heads = arguments.pop("num_heads")
    head_dim = arguments["hidden_dim"] // num_heads
    config.choice("tensor_data_layout", ["jploski"], "jploski")
    names = checkpoint.tensor_names()
    arguments |= {
        "num_attention_heads": num_heads,
        "num_key_value_heads": num_key_value_heads,
        "use_alibi": False,
        "use_bias": False,
        "parallel_residual": True,
        "shared_norm": "blk.0.attn_norm_2.weight" not in names,
        "rope_max_wavelength": config.number("rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in names,
        "context_length": config.integer("context_length"),
    }
    arguments |= factored(gguf_scaling(config, checkpoint, head_dim))
    return arguments


def _gguf_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    norms = {} if config.shared_norm else GGUF_TWO_NORMS
    return {**fused_names(checkpoint, config), **norms}


FAMILY = Family(
    task=FalconCausalLM,
    formats={
        "transformers": transformers_format(
            {"falcon": "FalconForCausalLM"},
            _transformers_arguments,
            _transformers_names,
            prefix="transformer.",
            # Computed here, or a copy of the tied embedding.
            ignored=(
                r"(transformer\.)?h\.\d+\.self_attention\.rotary_emb\.inv_freq",
                r"lm_head\.weight",
            ),
        ),
        "gguf": gguf_format(("falcon",), _gguf_arguments, _gguf_names),
        "keras": keras_format(
            FalconBackbone,
            KERAS_NAMES,
            KerasClasses(prefix="Falcon", module="falcon", tokenizer_cls=FalconTokenizer),
            paths=_KERAS_PATHS,
            unheeded=("layer_norm_epsilon",),
        ),
    },
)
