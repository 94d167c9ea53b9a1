"""Qwen1.5-MoE and Qwen2's mixture of experts (https://arxiv.org/abs/2407.10671)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.gguf import (
    gguf_experts,
    gguf_format,
    gguf_rotary_arguments,
    has_tensor,
)
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_experts import bank_layouts, network_names, network_paths
from nextword.models.formats.keras_names import attention_names, decoder_names
from nextword.models.formats.transformers import (
    TRANSFORMERS_EXPERTS,
    TRANSFORMERS_NAMES,
    experts_arguments,
    mixture_arguments,
    optional_sliding_window,
    rotary_decoder_arguments,
    shared_expert_names,
    transformers_format,
)
from nextword.models.shared_arguments import check_fixed, decoder_fields, experts_config
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.tokenizers import BytePairTokenizer


class QwenMoeBackbone(Backbone):
    """The Qwen2 decoder with experts, of which a shared one sees every token.

    Args:
        intermediate_dim: width inside the feed-forward network of layers without experts.
        shared_expert_intermediate_dim: width inside the shared expert.
        attention_bias: whether the query, key and value projections have biases.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        num_key_value_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        moe_intermediate_dim: int,
        shared_expert_intermediate_dim: int,
        num_experts: int,
        top_k: int = 4,
        norm_top_k_prob: bool = False,
        decoder_sparse_step: int = 1,
        rope_max_wavelength: float = 10000,
        rope_scaling_factor: float = 1.0,
        layer_norm_epsilon: float = 1e-6,
        dropout: float = 0,
        tie_word_embeddings: bool = False,
        use_sliding_window_attention: bool = False,
        sliding_window_size: int | None = 32768,
        output_router_logits: bool = False,
        router_aux_loss_coefficient: float = 0.001,
        mlp_only_layers: Sequence[int] = (),
        *,
        sliding_layers: Sequence[bool] | None = None,
        attention_bias: bool = True,
        head_dim: int | None = None,
        context_length: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
    ) -> DecoderConfig:
        check_fixed(False, output_router_logits=output_router_logits)
        attention_output_bias = False
        experts = experts_config(
            locals(), shared_dim=shared_expert_intermediate_dim, shared_gate=True
        )
        return DecoderConfig(
            **decoder_fields(locals()),
        )


class QwenMoeTokenizer(BytePairTokenizer):
    """Qwen1.5's byte-level byte-pair encoding; see `BytePairTokenizer`."""

    default_split = "qwen2"
    role_tokens: ClassVar[Mapping[str, str]] = {"eos_token": "<|endoftext|>"}


class QwenMoeCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `QwenMoeCausalLM`; see `CausalLMPreprocessor`."""


class QwenMoeCausalLM(CausalLM):
    """A Qwen2 model with experts that generates text; see `CausalLM`."""

    backbone_cls = QwenMoeBackbone
    preprocessor_cls = QwenMoeCausalLMPreprocessor


_TRANSFORMERS_NAMES = {
    **TRANSFORMERS_NAMES,
    **TRANSFORMERS_EXPERTS,
    **shared_expert_names("model.layers.{i}.mlp.shared_expert"),
    "feed_forward/shared_gate": "model.layers.{i}.mlp.shared_expert_gate",
}
_KERAS_DECODER = "qwen_moe_transformer_decoder"
_KERAS_ATTENTION = f"layers/{_KERAS_DECODER}_{{i}}/_self_attention_layer"
_KERAS_NAMES = {
    **decoder_names(_KERAS_DECODER, "qwen_layer_norm", network_names(_KERAS_DECODER)),
    **attention_names(_KERAS_ATTENTION),
    "self_attention/attention_output": f"{_KERAS_ATTENTION}/_output_dense",
}


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = rotary_decoder_arguments(config, context_length=32768, has_scaling_factor=True)
    arguments |= mixture_arguments(config, arguments["num_layers"])
    arguments |= optional_sliding_window(config, arguments["num_layers"])
    arguments["use_sliding_window_attention"] = arguments["sliding_window_size"] is not None
    arguments["attention_bias"] = config.boolean("qkv_bias", True)
    arguments |= experts_arguments(config, "num_experts", num_experts=60, top_k=4)
    arguments["shared_expert_intermediate_dim"] = config.integer(
        "shared_expert_intermediate_size", 5632
    )
    return arguments


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(config, checkpoint, has_scaling_factor=True)
    arguments |= gguf_experts(config) | {
        "moe_intermediate_dim": config.integer("expert_feed_forward_length"),
        "shared_expert_intermediate_dim": config.integer(
            "expert_shared_feed_forward_length", arguments["intermediate_dim"]
        ),
        "attention_bias": has_tensor(checkpoint, "blk.0.attn_q.bias"),
        "tie_word_embeddings": False,
    }
    return arguments


FAMILY = Family(
    task=QwenMoeCausalLM,
    formats={
        "transformers": transformers_format(
            {"qwen2_moe": "Qwen2MoeForCausalLM"}, _transformers_arguments, _TRANSFORMERS_NAMES
        ),
        "gguf": gguf_format(("qwen2moe",), _gguf_arguments),
        "keras": keras_format(
            QwenMoeBackbone,
            _KERAS_NAMES,
            KerasClasses(prefix="QwenMoe", module="qwen_moe", tokenizer_cls=QwenMoeTokenizer),
            laid_out=lambda config: bank_layouts(config, _KERAS_DECODER),
            paths=network_paths("qwen_sparse_moe_block", "qwen_moe_mlp"),
            # Which layers have experts, it decides for the first and makes the others alike.
            unheeded=("use_sliding_window_attention", "decoder_sparse_step", "mlp_only_layers"),
        ),
    },
)
