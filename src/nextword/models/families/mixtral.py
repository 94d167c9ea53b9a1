"""Mixtral (https://arxiv.org/abs/2401.04088)."""

from collections.abc import Mapping
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
    has_experts,
    interleaved_names,
)
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_layers import LAYER_PATHS
from nextword.models.formats.keras_names import attention_names, decoder_names
from nextword.models.formats.rotary import GGUF_PAIR_FACTORS
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    experts_arguments,
    rotary_decoder_arguments,
    transformers_format,
)
from nextword.models.shared_arguments import check_fixed, decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.tokenizers import SentencePieceTokenizer


class MixtralBackbone(Backbone):
    """The Mixtral decoder: like Mistral's, with experts in the place of the feed-forward network.

    Args:
        intermediate_dim: width inside each expert.
        router_jitter_noise: must be 0: the router is not disturbed in training.
        router_aux_loss_coef: of no effect without `output_router_logits`.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        num_key_value_heads: int,
        num_experts: int,
        top_k: int = 2,
        router_jitter_noise: float = 0.0,
        rope_max_wavelength: float = 10000,
        rope_scaling_factor: float = 1.0,
        layer_norm_epsilon: float = 1e-6,
        router_aux_loss_coef: float = 0.02,
        sliding_window: int | None = 512,
        dropout: float = 0,
        output_router_logits: bool = False,
        *,
        head_dim: int | None = None,
        tie_word_embeddings: bool = False,
        context_length: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
    ) -> DecoderConfig:
        check_fixed(0, router_jitter_noise=router_jitter_noise)
        check_fixed(False, output_router_logits=output_router_logits)
        return DecoderConfig(
            **decoder_fields(locals()),
        )


class MixtralTokenizer(SentencePieceTokenizer):
    """Mixtral's SentencePiece model; see `SentencePieceTokenizer`."""

    role_tokens: ClassVar[Mapping[str, str]] = {"bos_token": "<s>", "eos_token": "</s>"}


class MixtralCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `MixtralCausalLM`; see `CausalLMPreprocessor`."""


class MixtralCausalLM(CausalLM):
    """A Mixtral model that generates text; see `CausalLM`."""

    backbone_cls = MixtralBackbone
    preprocessor_cls = MixtralCausalLMPreprocessor


_EXPERTS = "model.layers.{i}.block_sparse_moe"
_TRANSFORMERS_NAMES = TRANSFORMERS_NAMES | {
    "feed_forward/router": f"{_EXPERTS}.gate",
    "feed_forward/expert_gate": f"{_EXPERTS}.experts.*.w1",
    "feed_forward/expert_intermediate": f"{_EXPERTS}.experts.*.w3",
    "feed_forward/expert_output": f"{_EXPERTS}.experts.*.w2",
}


_KERAS_DECODER = "mixtral_transformer_decoder"
_KERAS_LAYER = f"layers/{_KERAS_DECODER}_{{i}}"
_KERAS_EXPERTS = {
    "feed_forward/router": f"{_KERAS_LAYER}/_sparse_moe_block/_sparse_feedforward_gate_dense",
    "feed_forward/expert_gate": f"{_KERAS_LAYER}/_sparse_moe_block/expert_bank/vars/0",
    "feed_forward/expert_intermediate": f"{_KERAS_LAYER}/_sparse_moe_block/expert_bank/vars/1",
    "feed_forward/expert_output": f"{_KERAS_LAYER}/_sparse_moe_block/expert_bank/vars/2",
}
_KERAS_NAMES = {
    **decoder_names(_KERAS_DECODER, "mixtral_layer_normalization", _KERAS_EXPERTS),
    **attention_names(f"{_KERAS_LAYER}/_self_attention_layer"),
}
_KERAS_PATHS = {
    **LAYER_PATHS,
    "feed_forward/router": (
        # Its number goes on through all models of a process. To Keras, paths may be patterns.
        r"transformer_layer_{i}/mixtral_sparse_moe_block(_\d+)?/sparse_feedforward_gate_dense"
    ),
}


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = rotary_decoder_arguments(
        config, context_length=131072, epsilon=1e-5, theta=1e6, has_scaling_factor=True
    )
    arguments |= {
        "sliding_window": config.integer("sliding_window", None),
        **experts_arguments(config, "num_local_experts", num_experts=8, top_k=2),
    }
    config.skip("router_jitter_noise")  # of training
    return arguments


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(config, checkpoint, has_scaling_factor=True)
    return arguments | gguf_experts(config) | {"sliding_window": None}


FAMILY = Family(
    task=MixtralCausalLM,
    formats={
        "transformers": transformers_format(
            {"mixtral": "MixtralForCausalLM"}, _transformers_arguments, _TRANSFORMERS_NAMES
        ),
        "gguf": gguf_format(
            ("llama",),
            _gguf_arguments,
            interleaved_names,
            holds=has_experts,
            ignored=(GGUF_PAIR_FACTORS,),
        ),
        "keras": keras_format(
            MixtralBackbone,
            _KERAS_NAMES,
            KerasClasses(prefix="Mixtral", module="mixtral", tokenizer_cls=MixtralTokenizer),
            paths=_KERAS_PATHS,
        ),
    },
)
