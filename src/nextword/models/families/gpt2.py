"""GPT-2 (https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf)."""

from collections.abc import Mapping
from typing import Any

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family, StoredFormat
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import gguf_settings, transformers_settings
from nextword.presets.weight_table import (
    Layout,
    Rows,
    Stored,
    Transposed,
    WeightTable,
    linear,
    norm,
    per_layer,
)


class GPT2Backbone(Backbone):
    """The GPT-2 decoder: layer normalization, learned positions, biases everywhere, tied head.

    Args:
        vocabulary_size: number of token ids.
        num_layers: number of transformer layers.
        num_heads: number of attention heads.
        hidden_dim: width of the residual stream.
        intermediate_dim: width inside the feed-forward network.
        dropout: dropout rate.
        max_sequence_length: number of learned positions.
        layer_norm_epsilon: epsilon of the layer normalization.
        **kwargs: `dtype`, `name` and `trainable`, see `Backbone`.

    Example:
    ```python
    backbone = GPT2Backbone(
        vocabulary_size=100, num_layers=2, num_heads=4, hidden_dim=32, intermediate_dim=128
    )
    hidden_states = backbone({"token_ids": [[1, 2, 3]], "padding_mask": [[1, 1, 1]]})
    ```
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
    "transformer_layer_{i}/self_attention_norm": "h.{i}.ln_1",
    "transformer_layer_{i}/self_attention/query_key_value": "h.{i}.attn.c_attn",
    "transformer_layer_{i}/self_attention/attention_output": "h.{i}.attn.c_proj",
    "transformer_layer_{i}/feed_forward_norm": "h.{i}.ln_2",
    "transformer_layer_{i}/feed_forward/intermediate": "h.{i}.mlp.c_fc",
    "transformer_layer_{i}/feed_forward/feed_forward_output": "h.{i}.mlp.c_proj",
}
GGUF_NAMES = {
    "token_embedding": "token_embd",
    "position_embedding": "position_embd",
    "output_norm": "output_norm",
    "transformer_layer_{i}/self_attention_norm": "blk.{i}.attn_norm",
    "transformer_layer_{i}/self_attention/query_key_value": "blk.{i}.attn_qkv",
    "transformer_layer_{i}/self_attention/attention_output": "blk.{i}.attn_output",
    "transformer_layer_{i}/feed_forward_norm": "blk.{i}.ffn_norm",
    "transformer_layer_{i}/feed_forward/intermediate": "blk.{i}.ffn_up",
    "transformer_layer_{i}/feed_forward/feed_forward_output": "blk.{i}.ffn_down",
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
    # The original checkpoints were saved without the language model around the decoder.
    prefix = "transformer." if "transformer.wte.weight" in checkpoint.tensor_names() else ""
    names = {path: f"{prefix}{name}" for path, name in TRANSFORMERS_NAMES.items()}
    return _weights(config, names, Transposed())


def _gguf_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    config = gguf_settings(checkpoint)
    arguments = {
        "vocabulary_size": checkpoint.shape("token_embd.weight")[0],
        "num_layers": config.integer("block_count"),
        "num_heads": config.integer("attention.head_count"),
        "hidden_dim": config.integer("embedding_length"),
        "intermediate_dim": config.integer("feed_forward_length"),
        "max_sequence_length": config.integer("context_length"),
        "layer_norm_epsilon": config.number("attention.layer_norm_epsilon"),
    }
    config.skip("vocab_size")
    config.check_all_read()
    return arguments


def _gguf_weights(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
    return _weights(config, GGUF_NAMES)


def _weights(config: DecoderConfig, names: Mapping[str, str], *layouts: Layout) -> WeightTable:
    """Return the table of a format that stores our paths under `names`."""
    table: dict[str, Stored] = {}
    layer: dict[str, Stored] = {}
    for path, name in names.items():
        if path.endswith("embedding"):
            table[f"{path}/embeddings"] = Stored(f"{name}.weight")
        elif path == "output_norm":
            table |= norm(path, name, bias=True)
        elif path.endswith("norm"):
            layer |= norm(path, name, bias=True)
        elif path.endswith("query_key_value"):
            for i, part in enumerate(("query", "key", "value")):
                rows = Rows(i * config.hidden_dim, (i + 1) * config.hidden_dim)
                part_path = path.replace("query_key_value", part)
                layer |= linear(part_path, name, *layouts, rows, bias=True)
        else:
            layer |= linear(path, name, *layouts, bias=True)
    return table | per_layer(config.num_layers, layer)


FAMILY = Family(
    causal_lm=GPT2CausalLM,
    formats={
        "transformers": StoredFormat(
            architectures=("gpt2",),
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
            weights=_gguf_weights,
            ignored=(r"output\.weight",),
        ),
    },
)
