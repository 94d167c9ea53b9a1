"""Llama (https://arxiv.org/abs/2302.13971) and the many models of its graph."""

from typing import Any

from nextword.layers import (
    DecoderConfig,
    LinearScaling,
    Llama3Scaling,
    RotaryConfig,
    RotaryScaling,
)
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family, StoredFormat
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader, gguf_settings, transformers_settings
from nextword.presets.weight_table import (
    InterleavedRotary,
    Stored,
    WeightTable,
    linear,
    norm,
    per_layer,
)


class LlamaBackbone(Backbone):
    """The Llama decoder: RMS normalization, rotary embedding, grouped heads, SwiGLU.

    Args:
        vocabulary_size: number of token ids.
        num_layers: number of transformer layers.
        num_query_heads: number of attention heads.
        hidden_dim: width of the residual stream.
        intermediate_dim: width inside the feed-forward network.
        num_key_value_heads: number of key/value heads.
        rope_max_wavelength: base of the rotary wavelengths.
        rope_position_scaling_factor: divides positions (linear interpolation).
        rope_frequency_adjustment_factor: Llama 3.1's stretch of long wavelengths, or None for none.
        rope_low_freq_factor: with it, turns per context below which a wavelength is stretched.
        rope_high_freq_factor: with it, turns per context above which a wavelength is kept.
        rope_pretraining_sequence_length: with it, the context of pre-training.
        layer_norm_epsilon: epsilon of the RMS normalization.
        dropout: dropout rate.
        tie_word_embeddings: whether the head is the token embedding.
        head_dim: width of a head; `hidden_dim / num_query_heads` by default.
        attention_bias: whether the attention's projections have biases.
        feed_forward_bias: whether the feed-forward's projections have biases.
        context_length: the most positions the model was made for, or None for no declared limit.
        **kwargs: `dtype`, `name` and `trainable`, see `Backbone`.

    Example:
    ```python
    backbone = LlamaBackbone(
        vocabulary_size=100, num_layers=2, num_query_heads=4, hidden_dim=32, intermediate_dim=64,
        num_key_value_heads=2,
    )
    hidden_states = backbone({"token_ids": [[1, 2, 3]], "padding_mask": [[1, 1, 1]]})
    ```
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        num_key_value_heads: int,
        rope_max_wavelength: float = 10000,
        rope_position_scaling_factor: float = 1.0,
        rope_frequency_adjustment_factor: float | None = None,
        rope_low_freq_factor: float | None = None,
        rope_high_freq_factor: float | None = None,
        rope_pretraining_sequence_length: int | None = None,
        layer_norm_epsilon: float = 1e-6,
        dropout: float = 0,
        tie_word_embeddings: bool = False,
        *,
        head_dim: int | None = None,
        attention_bias: bool = False,
        feed_forward_bias: bool = False,
        context_length: int | None = None,
    ) -> DecoderConfig:
        scaling: RotaryScaling | None = None
        if rope_frequency_adjustment_factor is not None:
            if not (
                rope_low_freq_factor and rope_high_freq_factor and rope_pretraining_sequence_length
            ):
                raise ValueError(
                    "`rope_frequency_adjustment_factor` needs `rope_low_freq_factor`, "
                    "`rope_high_freq_factor` and `rope_pretraining_sequence_length`."
                )
            scaling = Llama3Scaling(
                factor=rope_frequency_adjustment_factor,
                low_frequency_factor=rope_low_freq_factor,
                high_frequency_factor=rope_high_freq_factor,
                original_context_length=rope_pretraining_sequence_length,
            )
        elif rope_position_scaling_factor != 1:
            scaling = LinearScaling(factor=rope_position_scaling_factor)
        return DecoderConfig(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            num_query_heads=num_query_heads,
            num_key_value_heads=num_key_value_heads,
            head_dim=head_dim or hidden_dim // num_query_heads,
            context_length=context_length,
            rotary=RotaryConfig(theta=rope_max_wavelength, scaling=scaling),
            norm="rms",
            norm_epsilon=layer_norm_epsilon,
            query_key_value_bias=attention_bias,
            attention_output_bias=attention_bias,
            feed_forward_bias=feed_forward_bias,
            activation="silu",
            tie_word_embeddings=tie_word_embeddings,
            dropout=dropout,
        )


class LlamaCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `LlamaCausalLM`; see `CausalLMPreprocessor`."""


class LlamaCausalLM(CausalLM):
    """A Llama model that generates text; see `CausalLM`."""

    backbone_cls = LlamaBackbone
    preprocessor_cls = LlamaCausalLMPreprocessor


def _transformers_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    config = transformers_settings(checkpoint)
    num_query_heads = config.integer("num_attention_heads")
    hidden_dim = config.integer("hidden_size")
    arguments = {
        "vocabulary_size": config.integer("vocab_size"),
        "num_layers": config.integer("num_hidden_layers"),
        "num_query_heads": num_query_heads,
        "hidden_dim": hidden_dim,
        "intermediate_dim": config.integer("intermediate_size"),
        "num_key_value_heads": config.integer("num_key_value_heads", num_query_heads),
        "layer_norm_epsilon": config.number("rms_norm_eps", 1e-6),
        "tie_word_embeddings": config.boolean("tie_word_embeddings", False),
        "head_dim": config.integer("head_dim", None),
        "attention_bias": config.boolean("attention_bias", False),
        "feed_forward_bias": config.boolean("mlp_bias", False),
        "context_length": config.integer("max_position_embeddings", 2048),
    }
    config.choice("hidden_act", ["silu"], "silu")
    # Splits the same matrix products over devices; the result is the same.
    config.skip("pretraining_tp")
    arguments.update(_transformers_rotary(config, arguments["context_length"]))
    config.check_all_read()
    return arguments


def _transformers_rotary(config: ConfigReader, context_length: int) -> dict[str, Any]:
    """Read the rotary settings, in the older spelling or that of transformers 5."""
    theta = config.number("rope_theta", 10000.0)
    rope = config.section("rope_parameters") or config.section("rope_scaling")
    if rope is None:
        return {"rope_max_wavelength": theta}
    config.skip("rope_scaling")
    kinds = ["default", "linear", "llama3"]
    kind = rope.choice("rope_type", kinds, None) or rope.choice("type", kinds, "default")
    rope.skip("type")
    arguments = {"rope_max_wavelength": rope.number("rope_theta", theta)}
    if kind == "linear":
        arguments["rope_position_scaling_factor"] = rope.number("factor")
    elif kind == "llama3":
        arguments["rope_frequency_adjustment_factor"] = rope.number("factor")
        arguments["rope_low_freq_factor"] = rope.number("low_freq_factor")
        arguments["rope_high_freq_factor"] = rope.number("high_freq_factor")
        arguments["rope_pretraining_sequence_length"] = rope.integer(
            "original_max_position_embeddings", context_length
        )
    rope.check_all_read()
    return arguments


def _transformers_weights(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
    ours, theirs = "transformer_layer_{i}", "model.layers.{i}"
    attention_bias, feed_forward_bias = config.query_key_value_bias, config.feed_forward_bias
    table = {"token_embedding/embeddings": Stored("model.embed_tokens.weight")}
    table |= norm("output_norm", "model.norm")
    if not config.tie_word_embeddings:
        table["token_embedding/reverse_embeddings"] = Stored("lm_head.weight")
    layer = norm(f"{ours}/self_attention_norm", f"{theirs}.input_layernorm")
    layer |= norm(f"{ours}/feed_forward_norm", f"{theirs}.post_attention_layernorm")
    for path, name in (("query", "q"), ("key", "k"), ("value", "v"), ("attention_output", "o")):
        layer |= linear(
            f"{ours}/self_attention/{path}",
            f"{theirs}.self_attn.{name}_proj",
            bias=attention_bias,
        )
    for path, name in (("gate", "gate"), ("intermediate", "up"), ("feed_forward_output", "down")):
        layer |= linear(
            f"{ours}/feed_forward/{path}", f"{theirs}.mlp.{name}_proj", bias=feed_forward_bias
        )
    return table | per_layer(config.num_layers, layer)


def _gguf_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    config = gguf_settings(checkpoint)
    num_query_heads = config.integer("attention.head_count")
    hidden_dim = config.integer("embedding_length")
    head_dim = config.integer("attention.key_length", hidden_dim // num_query_heads)
    config.choice("attention.value_length", [head_dim], head_dim)
    config.choice("rope.dimension_count", [head_dim], head_dim)
    arguments = {
        "vocabulary_size": config.integer("vocab_size", checkpoint.shape("token_embd.weight")[0]),
        "num_layers": config.integer("block_count"),
        "num_query_heads": num_query_heads,
        "hidden_dim": hidden_dim,
        "intermediate_dim": config.integer("feed_forward_length"),
        "num_key_value_heads": config.integer("attention.head_count_kv", num_query_heads),
        "rope_max_wavelength": config.number("rope.freq_base", 10000.0),
        "layer_norm_epsilon": config.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in checkpoint.tensor_names(),
        "head_dim": head_dim,
        "attention_bias": "blk.0.attn_q.bias" in checkpoint.tensor_names(),
        "context_length": config.integer("context_length"),
    }
    if config.choice("rope.scaling.type", ["none", "linear"], "none") == "linear":
        arguments["rope_position_scaling_factor"] = config.number("rope.scaling.factor")
    config.check_all_read()
    return arguments


def _gguf_weights(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
    ours, theirs = "transformer_layer_{i}", "blk.{i}"
    table = {"token_embedding/embeddings": Stored("token_embd.weight")}
    table |= norm("output_norm", "output_norm")
    if not config.tie_word_embeddings:
        table["token_embedding/reverse_embeddings"] = Stored("output.weight")
    layer = norm(f"{ours}/self_attention_norm", f"{theirs}.attn_norm")
    layer |= norm(f"{ours}/feed_forward_norm", f"{theirs}.ffn_norm")
    for path, name, *layouts in (
        ("query", "q", InterleavedRotary(config.num_query_heads)),
        ("key", "k", InterleavedRotary(config.num_key_value_heads)),
        ("value", "v"),
        ("attention_output", "output"),
    ):
        layer |= linear(
            f"{ours}/self_attention/{path}",
            f"{theirs}.attn_{name}",
            *layouts,
            bias=config.query_key_value_bias,
        )
    for path, name in (("gate", "gate"), ("intermediate", "up"), ("feed_forward_output", "down")):
        layer |= linear(f"{ours}/feed_forward/{path}", f"{theirs}.ffn_{name}")
    return table | per_layer(config.num_layers, layer)


FAMILY = Family(
    causal_lm=LlamaCausalLM,
    formats={
        "transformers": StoredFormat(
            architectures=("llama",),
            arguments=_transformers_arguments,
            weights=_transformers_weights,
            # Written by old versions, and computed here; or a copy of the tied embedding.
            ignored=(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"lm_head\.weight"),
        ),
        "gguf": StoredFormat(
            architectures=("llama",), arguments=_gguf_arguments, weights=_gguf_weights
        ),
    },
)
