"""GPT-2 (https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf).

StarCoder (https://arxiv.org/abs/2305.06161) shares one key and value among all heads; GPT-Neo
(https://doi.org/10.5281/zenodo.5297715) does not scale dot products, and has layers with a window.
"""

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
from nextword.presets.weight_layouts import GroupedHeads, Transposed
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


_NEO_ATTENTION = "transformer.h.{i}.attn.attention"
_NEO_NAMES = TRANSFORMERS_NAMES | {
    "self_attention/query": f"{_NEO_ATTENTION}.q_proj",
    "self_attention/key": f"{_NEO_ATTENTION}.k_proj",
    "self_attention/value": f"{_NEO_ATTENTION}.v_proj",
    "self_attention/attention_output": f"{_NEO_ATTENTION}.out_proj",
}


def _neo_arguments(config: ConfigReader) -> dict[str, Any]:
    """Read what GPT-Neo says in words of its own."""
    hidden_dim, num_layers = config.integer("hidden_size"), config.integer("num_layers")
    alternating = [("global", "local")[layer % 2] for layer in range(num_layers)]
    kinds = config.choices("attention_layers", ["global", "local"], num_layers, alternating)
    periods = [n for n in range(1, num_layers + 1) if kinds[:n] * (num_layers // n) == kinds]
    config.choice("attention_types", [[[kinds[:n], num_layers // n]] for n in periods], None)
    config.skip("embed_dropout", "classifier_dropout")
    return {
        "num_layers": num_layers,
        "num_heads": config.integer("num_heads"),
        "hidden_dim": hidden_dim,
        "intermediate_dim": config.integer("intermediate_size", 4 * hidden_dim),
        "dropout": config.fraction("resid_dropout", 0.0),
        "max_sequence_length": config.integer("max_position_embeddings", 2048),
        "query_key_value_bias": False,
        "attention_scale": 1.0,
        "sliding_window": config.integer("window_size", 256),
        "sliding_layers": [kind == "local" for kind in kinds],
    }


def _own_arguments(config: ConfigReader) -> dict[str, Any]:
    hidden_dim = config.integer("n_embd")
    config.expect(scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False)
    config.expect(add_cross_attention=False)
    # Dropout rates besides the residual's, and another order or dtype of the same products.
    config.skip("attn_pdrop", "embd_pdrop", "reorder_and_upcast_attn", "n_ctx")
    return {
        "num_layers": config.integer("n_layer"),
        "num_heads": config.integer("n_head"),
        "hidden_dim": hidden_dim,
        "intermediate_dim": config.integer("n_inner", 4 * hidden_dim),
        "dropout": config.fraction("resid_pdrop", 0.1),
        "max_sequence_length": config.integer("n_positions"),
    }


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    kind = checkpoint.architecture
    arguments = _neo_arguments(config) if kind == "gpt_neo" else _own_arguments(config)
    arguments |= {
        "vocabulary_size": config.integer("vocab_size"),
        "layer_norm_epsilon": config.number("layer_norm_epsilon", 1e-5),
    }
    if kind == "gpt_bigcode":
        is_shared = config.boolean("multi_query", True)
        arguments["num_key_value_heads"] = 1 if is_shared else arguments["num_heads"]
        config.choice("num_key_value_heads", [arguments["num_key_value_heads"]], None)
        # How the original code computed the same.
        config.skip("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32")
        config.skip("inference_runner", "max_batch_size", "max_sequence_length", "pad_key_length")
        config.skip("pre_allocate_kv_cache", "validate_runner_input")
    config.choice("activation_function", ["gelu_new", "gelu_pytorch_tanh"], "gelu_new")
    config.expect(tie_word_embeddings=True)
    # Other tasks' heads.
    config.skip("summary_activation", "summary_first_dropout", "summary_proj_to_labels")
    config.skip("summary_type", "summary_use_proj")
    return arguments


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    if checkpoint.architecture == "gpt_neo":
        return _NEO_NAMES
    stored = "transformer.h.{i}.attn.c_attn"
    if checkpoint.architecture == "gpt_bigcode":
        is_shared = config.num_key_value_heads == 1
        by_heads = () if is_shared else (GroupedHeads(config.num_query_heads, config.head_dim),)
        return {**TRANSFORMERS_NAMES, **query_key_value(config, stored, *by_heads)}
    kernels = {
        path: (name, Transposed()) for path, name in TRANSFORMERS_NAMES.items() if "/" in path
    }
    return {**TRANSFORMERS_NAMES, **kernels, **query_key_value(config, stored, Transposed())}


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = layer_norm_arguments(config, checkpoint)
    arguments["max_sequence_length"] = config.integer("context_length")
    return arguments


FAMILY = Family(
    task=GPT2CausalLM,
    formats={
        "transformers": transformers_format(
            {
                "gpt2": "GPT2LMHeadModel",
                "gpt_bigcode": "GPTBigCodeForCausalLM",
                "gpt_neo": "GPTNeoForCausalLM",
            },
            _transformers_arguments,
            _transformers_names,
            prefix="transformer.",
            # Causal masks, and a copy of the tied embedding.
            ignored=(
                r"(transformer\.)?h\.\d+\.attn\.(attention\.)?(masked_)?bias",
                r"lm_head\.weight",
            ),
        ),
        "gguf": gguf_format(("gpt2",), _gguf_arguments, fused_names, ignored=(r"output\.weight",)),
        "keras": keras_format(
            GPT2Backbone,
            KERAS_NAMES,
            KerasClasses(prefix="GPT2", module="gpt2", tokenizer_cls=GPT2Tokenizer),
        ),
    },
)
