"""GPT-2 (https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family, StoredFormat
from nextword.models.formats.decoder_tables import decoder_table, fused_gguf_table, query_key_value
from nextword.models.formats.gguf import layer_norm_arguments
from nextword.models.formats.keras import (
    TRANSFORMER_DECODER_NAMES,
    KerasClasses,
    keras_format,
)
from nextword.models.formats.transformers import decoder_prefix
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import gguf_settings, transformers_settings
from nextword.presets.weight_layouts import Transposed
from nextword.presets.weight_table import WeightTable
from nextword.tokenizers import BytePairTokenizer


class GPT2Backbone(Backbone):
    """The GPT-2 decoder: layer normalization, learned positions, biases everywhere, tied head.

    Args:
        max_sequence_length: number of learned positions.
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
    ) -> DecoderConfig:
        return DecoderConfig(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            num_query_heads=num_heads,
            num_key_value_heads=num_heads,
            head_dim=hidden_dim // num_heads,
            context_length=max_sequence_length,
            position_embedding="learned",
            norm="layer",
            norm_epsilon=layer_norm_epsilon,
            query_key_value_bias=True,
            attention_output_bias=True,
            feed_forward_bias=True,
            feed_forward_gate=False,
            activation="gelu_tanh",
            tie_word_embeddings=True,
            dropout=dropout,
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
    "token_embedding": "wte",
    "position_embedding": "wpe",
    "output_norm": "ln_f",
    "self_attention_norm": "h.{i}.ln_1",
    "self_attention/attention_output": "h.{i}.attn.c_proj",
    "feed_forward_norm": "h.{i}.ln_2",
    "feed_forward/intermediate": "h.{i}.mlp.c_fc",
    "feed_forward/feed_forward_output": "h.{i}.mlp.c_proj",
}

KERAS_NAMES = TRANSFORMER_DECODER_NAMES | {
    "token_embedding": "layers/reversible_embedding",
    "position_embedding": "layers/position_embedding",
}


def _transformers_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    config = transformers_settings(checkpoint)
    hidden_dim = config.integer("n_embd")
    arguments = {
        "vocabulary_size": config.integer("vocab_size"),
        "num_layers": config.integer("n_layer"),
        "num_heads": config.integer("n_head"),
        "hidden_dim": hidden_dim,
        "intermediate_dim": config.integer("n_inner", 4 * hidden_dim),
        "dropout": config.fraction("resid_pdrop", 0.1),
        "max_sequence_length": config.integer("n_positions"),
        "layer_norm_epsilon": config.number("layer_norm_epsilon", 1e-5),
    }
    config.choice("activation_function", ["gelu_new", "gelu_pytorch_tanh"], "gelu_new")
    config.choice("tie_word_embeddings", [True], True)
    config.choice("scale_attn_weights", [True], True)
    config.choice("scale_attn_by_inverse_layer_idx", [False], False)
    config.choice("add_cross_attention", [False], False)
    # Dropout rates besides the residual's, another order of the same products, other tasks' heads.
    config.skip("attn_pdrop", "embd_pdrop", "reorder_and_upcast_attn", "n_ctx")
    config.skip("summary_activation", "summary_first_dropout", "summary_proj_to_labels")
    config.skip("summary_type", "summary_use_proj")
    config.check_all_read()
    return arguments


def _transformers_weights(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
    prefix = decoder_prefix(checkpoint, "transformer.")
    fused = query_key_value(config, "h.{i}.attn.c_attn", Transposed())
    kernels = {
        path: (name, Transposed()) for path, name in TRANSFORMERS_NAMES.items() if "/" in path
    }
    return decoder_table(config, {**TRANSFORMERS_NAMES, **kernels, **fused}, prefix=prefix)


def _gguf_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    config = gguf_settings(checkpoint)
    arguments = layer_norm_arguments(config, checkpoint)
    arguments["max_sequence_length"] = config.integer("context_length")
    config.check_all_read()
    return arguments


FAMILY = Family(
    task=GPT2CausalLM,
    formats={
        "transformers": StoredFormat(
            architectures={"gpt2": "GPT2LMHeadModel"},
            arguments=_transformers_arguments,
            weights=_transformers_weights,
            # Causal masks, and a copy of the tied embedding.
            ignored=(
                r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",
                r"lm_head\.weight",
            ),
        ),
        "gguf": StoredFormat(
            architectures=("gpt2",),
            arguments=_gguf_arguments,
            weights=fused_gguf_table,
            ignored=(r"output\.weight",),
        ),
        "keras": keras_format(
            GPT2Backbone,
            KERAS_NAMES,
            KerasClasses(prefix="GPT2", module="gpt2", tokenizer_cls=GPT2Tokenizer),
        ),
    },
)
