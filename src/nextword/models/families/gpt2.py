"""GPT-2 (https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import LayerNames, query_key_value
from nextword.models.formats.gguf import fused_names, gguf_format, layer_norm_arguments
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_names import TRANSFORMER_DECODER_NAMES
from nextword.models.formats.transformers import transformers_format
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.weight_layouts import Transposed
from nextword.tokenizers import BytePairTokenizer


class GPT2Backbone(Backbone):
    """The GPT-2 decoder: layer normalization, learned positions, biases everywhere, tied head.

    Args:
        max_sequence_length: number of learned positions.
        num_key_value_heads: number of key/value heads; that of attention heads by default.
        query_key_value_bias: whether the query, key and value projections have biases.
        attention_scale: factor of dot products; by default that of the heads' width.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        dropout: float = 0.1,
        max_sequence_length: int = 1024,
        *,
        layer_norm_epsilon: float = 1e-5,
        num_key_value_heads: int | None = None,
        query_key_value_bias: bool = True,
        attention_scale: float | None = None,
        sliding_window: int | None = None,
        sliding_layers: Sequence[bool] | None = None,
    ) -> DecoderConfig:
        return DecoderConfig(
            **decoder_fields(locals()),
            position_embedding="learned",
            norm="layer",
            attention_output_bias=True,
            feed_forward_bias=True,
            feed_forward_gate=False,
            activation="gelu_tanh",
            tie_word_embeddings=True,
        )


class GPT2Tokenizer(BytePairTokenizer):
    """GPT-2's byte-level byte-pair encoding; see `BytePairTokenizer`."""

    default_split = "gpt-2"
    role_tokens: ClassVar[Mapping[str, str]] = {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
    }


class GPT2CausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `GPT2CausalLM`; see `CausalLMPreprocessor`."""


class GPT2CausalLM(CausalLM):
    """A GPT-2 model that generates text; see `CausalLM`."""

    backbone_cls = GPT2Backbone
    preprocessor_cls = GPT2CausalLMPreprocessor


TRANSFORMERS_NAMES = {
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "self_attention_norm": "transformer.h.{i}.ln_1",
    "self_attention/attention_output": "transformer.h.{i}.attn.c_proj",
    "feed_forward_norm": "transformer.h.{i}.ln_2",
    "feed_forward/intermediate": "transformer.h.{i}.mlp.c_fc",
    "feed_forward/feed_forward_output": "transformer.h.{i}.mlp.c_proj",
}

KERAS_NAMES = TRANSFORMER_DECODER_NAMES | {
    "token_embedding": "layers/reversible_embedding",
    "position_embedding": "layers/position_embedding",
}


IGNORED = (r"(transformer\.)?h\.\d+\.attn\.(attention\.)?(masked_)?bias", r"lm_head\.weight")
"""Causal masks, and a copy of the tied embedding."""


def common_arguments(config: ConfigReader) -> dict[str, Any]:
    """Read what the models share that spell their sizes otherwise.

    Args:
        config: the model's configuration.
    """
    config.choice("activation_function", ["gelu_new", "gelu_pytorch_tanh"], "gelu_new")
    config.expect(tie_word_embeddings=True)
    # Other tasks' heads.
    config.skip("summary_activation", "summary_first_dropout", "summary_proj_to_labels")
    config.skip("summary_type", "summary_use_proj")
    return {
        "vocabulary_size": config.integer("vocab_size"),
        "layer_norm_epsilon": config.number("layer_norm_epsilon", 1e-5),
    }


def gpt2_arguments(config: ConfigReader) -> dict[str, Any]:
    """Read what the models share that spell their sizes as GPT-2 does.

    Args:
        config: the model's configuration.
    """
    hidden_dim = config.integer("n_embd")
    config.expect(scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
    config.expect(add_cross_attention=False)
    # Dropout rates besides the residual's, and another order or dtype of the same products.
    config.skip("attn_pdrop", "embd_pdrop", "reorder_and_upcast_attn", "n_ctx")
    return common_arguments(config) | {
        "num_layers": config.integer("n_layer"),
        "num_heads": config.integer("n_head"),
        "hidden_dim": hidden_dim,
        "intermediate_dim": config.integer("n_inner", 4 * hidden_dim),
        "dropout": config.fraction("resid_pdrop", 0.1),
        "max_sequence_length": config.integer("n_positions"),
    }


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    kernels = {
        path: (name, Transposed()) for path, name in TRANSFORMERS_NAMES.items() if "/" in path
    }
    fused = query_key_value(config, "transformer.h.{i}.attn.c_attn", Transposed())
    return {**TRANSFORMERS_NAMES, **kernels, **fused}


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = layer_norm_arguments(config, checkpoint)
    arguments["max_sequence_length"] = config.integer("context_length")
    return arguments


FAMILY = Family(
    task=GPT2CausalLM,
    formats={
        "transformers": transformers_format(
            {"gpt2": "GPT2LMHeadModel"},
            lambda config, _: gpt2_arguments(config),
            _transformers_names,
            prefix="transformer.",
            ignored=IGNORED,
        ),
        "gguf": gguf_format(("gpt2",), _gguf_arguments, fused_names, ignored=(r"output\.weight",)),
        "keras": keras_format(
            GPT2Backbone,
            KERAS_NAMES,
            KerasClasses(prefix="GPT2", module="gpt2", tokenizer_cls=GPT2Tokenizer),
        ),
    },
)
