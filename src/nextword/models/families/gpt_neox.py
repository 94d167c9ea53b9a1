"""GPT-NeoX (https://arxiv.org/abs/2204.06745) and Pythia (https://arxiv.org/abs/2304.01373)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from nextword.layers import Activation, DecoderConfig, LinearScaling, RotaryConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import (
    LayerNames,
    grouped_query_key_value,
    query_key_value,
)
from nextword.models.formats.gguf import fused_names, gguf_format, layer_norm_arguments
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_layers import LAYER_PATHS
from nextword.models.formats.keras_names import feed_forward_names
from nextword.models.formats.rotary import rotary_section
from nextword.models.formats.transformers import (
    activation,
    decoder_sizes,
    transformers_format,
    ungrouped,
)
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.weight_layouts import GroupedHeads, SplitHeads, Transposed
from nextword.tokenizers import BytePairTokenizer


class GPTNeoXBackbone(Backbone):
    """The GPT-NeoX decoder: attention and feed-forward side by side, partial rotary embedding.

    Args:
        rotary_percentage: the part of a head that is rotated.
        rotary_max_wavelength: base of the rotary wavelengths.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        dropout: float = 0.0,
        rotary_percentage: float = 0.25,
        rotary_max_wavelength: float = 10000,
        layer_norm_epsilon: float = 1e-5,
        max_sequence_length: int = 512,
        *,
        activation: Activation = "gelu_tanh",
        parallel_residual: bool = True,
        attention_bias: bool = True,
        tie_word_embeddings: bool = True,
        rope_scaling_factor: float = 1.0,
        use_query_key_norm: bool = False,
    ) -> DecoderConfig:
        return DecoderConfig(
            **decoder_fields(locals()),
            rotary=RotaryConfig(
                theta=rotary_max_wavelength,
                fraction=rotary_percentage,
                scaling=LinearScaling(factor=rope_scaling_factor),
            ),
            norm="layer",
            query_key_norm="head" if use_query_key_norm else None,
            feed_forward_bias=True,
            feed_forward_gate=False,
        )


class GPTNeoXTokenizer(BytePairTokenizer):
    """GPT-NeoX's byte-level byte-pair encoding; see `BytePairTokenizer`."""

    default_split = "olmo"
    role_tokens: ClassVar[Mapping[str, str]] = {
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
    }


class GPTNeoXCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `GPTNeoXCausalLM`; see `CausalLMPreprocessor`."""


class GPTNeoXCausalLM(CausalLM):
    """A GPT-NeoX model that generates text; see `CausalLM`."""

    backbone_cls = GPTNeoXBackbone
    preprocessor_cls = GPTNeoXCausalLMPreprocessor


_KERAS_LAYER = "layers/gpt_neo_x_decoder_{i}"
_KERAS_ATTENTION = f"{_KERAS_LAYER}/_self_attention_layer"
KERAS_NAMES: LayerNames = {
    "token_embedding": "layers/reversible_embedding",
    "output_norm": "layers/layer_normalization",
    "self_attention/query": f"{_KERAS_ATTENTION}/_qkv_dense",
    "self_attention/key": f"{_KERAS_ATTENTION}/_qkv_dense",
    "self_attention/value": f"{_KERAS_ATTENTION}/_qkv_dense",
    "self_attention/attention_output": (f"{_KERAS_ATTENTION}/_output_dense", Transposed()),
    # Which KerasHub has not.
    "self_attention/query_norm": f"{_KERAS_ATTENTION}/_query_layer_norm",
    "self_attention/key_norm": f"{_KERAS_ATTENTION}/_key_layer_norm",
    "self_attention_norm": f"{_KERAS_LAYER}/_self_attention_layer_norm",
    **feed_forward_names(_KERAS_LAYER),
    "feed_forward_norm": f"{_KERAS_LAYER}/_feedforward_layer_norm",
}
_KERAS_PATHS = {
    **LAYER_PATHS,
    **{
        f"self_attention/{part}": "transformer_layer_{i}/self_attention/query_key_value"
        for part in ("query", "key", "value")
    },
}


def _keras_query_key_value(config: DecoderConfig) -> LayerNames:
    num_heads = config.num_query_heads
    return query_key_value(
        config,
        f"{_KERAS_ATTENTION}/_qkv_dense",
        SplitHeads(num_heads),
        GroupedHeads(num_heads, config.head_dim),
    )


TRANSFORMERS_NAMES = {
    "token_embedding": "gpt_neox.embed_in",
    "output_norm": "gpt_neox.final_layer_norm",
    "self_attention_norm": "gpt_neox.layers.{i}.input_layernorm",
    "self_attention/attention_output": "gpt_neox.layers.{i}.attention.dense",
    "feed_forward_norm": "gpt_neox.layers.{i}.post_attention_layernorm",
    "feed_forward/intermediate": "gpt_neox.layers.{i}.mlp.dense_h_to_4h",
    "feed_forward/feed_forward_output": "gpt_neox.layers.{i}.mlp.dense_4h_to_h",
}


def gpt_neox_arguments(
    config: ConfigReader, *, fraction: float, base: float, hidden_act: str
) -> dict[str, Any]:
    """Read what the models of this graph share.

    Args:
        config: the model's configuration.
        fraction: the part of a head that is rotated, where the rotary settings do not say.
        base: of the rotary wavelengths, likewise.
        hidden_act: the activation, where none is given.
    """
    rope, kind, theta = rotary_section(config, ("linear",), base)
    arguments = ungrouped(config, decoder_sizes(config)) | {
        "dropout": config.fraction("hidden_dropout", 0.0),
        "rotary_percentage": rope.number("partial_rotary_factor", fraction),
        "rotary_max_wavelength": theta,
        "rope_scaling_factor": rope.number("factor") if kind == "linear" else 1.0,
        "layer_norm_epsilon": config.number("layer_norm_eps", 1e-5),
        "max_sequence_length": config.integer("max_position_embeddings", 2048),
        "activation": activation(config, "hidden_act", hidden_act),
        "tie_word_embeddings": config.boolean("tie_word_embeddings", False),
    }
    rope.check_all_read()
    # Other spellings of rates of dropout, another task's, and what every decoder is.
    config.skip("attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout")
    config.skip("is_decoder")
    return arguments


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    fraction = config.number("rotary_pct", 0.25)
    base = config.number("rotary_emb_base", 10000.0)
    arguments = gpt_neox_arguments(config, fraction=fraction, base=base, hidden_act="gelu")
    return arguments | {
        "parallel_residual": config.boolean("use_parallel_residual", True),
        "attention_bias": config.boolean("attention_bias", True),
    }


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    fused = grouped_query_key_value(config, "gpt_neox.layers.{i}.attention.query_key_value")
    # transformers 5 calls it otherwise than the versions before.
    head = "lm_head" if "lm_head.weight" in checkpoint.tensor_names() else "embed_out"
    return {**TRANSFORMERS_NAMES, **fused, "head": head}


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = layer_norm_arguments(config, checkpoint)
    head_dim = arguments["hidden_dim"] // arguments["num_heads"]
    rotary_dim = config.integer("rope.dimension_count", head_dim, maximum=head_dim)
    arguments |= {
        "rotary_percentage": rotary_dim / head_dim,
        "rotary_max_wavelength": config.number("rope.freq_base", 10000.0),
        "max_sequence_length": config.integer("context_length"),
        # Not stored; what Pythia has.
        "activation": "gelu",
        "parallel_residual": config.boolean("use_parallel_residual", True),
        "attention_bias": "blk.0.attn_qkv.bias" in checkpoint.tensor_names(),
        "tie_word_embeddings": "output.weight" not in checkpoint.tensor_names(),
    }
    config.choice("rope.scaling.type", ["none"], "none")
    return arguments


FAMILY = Family(
    task=GPTNeoXCausalLM,
    formats={
        "transformers": transformers_format(
            {"gpt_neox": "GPTNeoXForCausalLM"},
            _transformers_arguments,
            _transformers_names,
            # Causal masks and frequencies, or a copy of the tied embedding.
            ignored=(
                r"gpt_neox\.layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)",
                r"(embed_out|lm_head)\.weight",
            ),
        ),
        "gguf": gguf_format(("gptneox",), _gguf_arguments, fused_names),
        "keras": keras_format(
            GPTNeoXBackbone,
            KERAS_NAMES,
            KerasClasses(prefix="GPTNeoX", module="gpt_neo_x", tokenizer_cls=GPTNeoXTokenizer),
            laid_out=_keras_query_key_value,
            paths=_KERAS_PATHS,
            einsum=["self_attention/attention_output"],
        ),
    },
)
