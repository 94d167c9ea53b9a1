"""DeepSeek-V2 (https://arxiv.org/abs/2405.04434), V3 and R1 (https://arxiv.org/abs/2412.19437)."""

from collections.abc import Mapping
from typing import Any, Literal

from nextword.layers import (
    DecoderConfig,
    LatentConfig,
    yarn_magnitude,
)
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import LayerNames
from nextword.models.formats.gguf import (
    GGUF_NAMES,
    gguf_experts,
    gguf_format,
    gguf_sizes,
    has_tensor,
)
from nextword.models.formats.latent import (
    GGUF_LATENT,
    GGUF_LATENT_JOINED,
    TRANSFORMERS_LATENT,
    latent_names,
)
from nextword.models.formats.rotary import KINDS, gguf_scaling, rotary_section, scaling_settings
from nextword.models.formats.transformers import (
    TRANSFORMERS_EXPERTS,
    TRANSFORMERS_IGNORED,
    TRANSFORMERS_NAMES,
    decoder_arguments,
    shared_expert_names,
    transformers_format,
    ungrouped,
)
from nextword.models.shared_arguments import decoder_fields, experts_config
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.weight_table import Stored


class DeepSeekBackbone(Backbone):
    """The DeepSeek decoder: latent attention, and many small experts in groups.

    Args:
        intermediate_dim: width inside the feed-forward network of layers without experts.
        key_value_rank: width of the latent vector of keys and values.
        query_rank: width of the latent vector of queries; None for none.
        unrotated_head_dim: width of the part of a query and key that is not rotated.
        rotated_head_dim: width of the part that is rotated.
        value_head_dim: width of a value.
        shared_expert_intermediate_dim: width inside a network that every token takes, too.
        num_dense_layers: number of layers without experts, which come first.
        router_scoring: how the router's logits become scores; by "sigmoid", a learned bias is
            added to them for the choice.
        norm_top_k_prob: whether the weights of a token's experts add up to `router_scale`.
        router_scale: factor of these weights.
        num_expert_groups: number of groups of experts.
        expert_groups_per_token: how many groups a token's experts may be of.
        attention_scale: factor of dot products; by default that of the heads' width.
        attention_bias: whether the projections from and to the residual stream have biases.

    Example:
    ```python
    backbone = DeepSeekBackbone(
        vocabulary_size=100, num_layers=2, num_heads=4, hidden_dim=32, intermediate_dim=64,
        key_value_rank=16, query_rank=None, unrotated_head_dim=8, rotated_head_dim=4,
        value_head_dim=8, num_experts=8, top_k=2, moe_intermediate_dim=16,
        shared_expert_intermediate_dim=16,
    )
    token_ids = np.array([[1, 2, 3]])
    hidden_states = backbone({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    ```
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        key_value_rank: int,
        query_rank: int | None,
        unrotated_head_dim: int,
        rotated_head_dim: int,
        value_head_dim: int,
        num_experts: int,
        top_k: int,
        moe_intermediate_dim: int,
        shared_expert_intermediate_dim: int | None = None,
        *,
        num_dense_layers: int = 0,
        router_scoring: Literal["softmax", "sigmoid"] = "softmax",
        norm_top_k_prob: bool = False,
        router_scale: float = 1.0,
        num_expert_groups: int = 1,
        expert_groups_per_token: int = 1,
        attention_scale: float | None = None,
        rope_max_wavelength: float = 10000,
        rope_scaling: Mapping[str, Any] | None = None,
        layer_norm_epsilon: float = 1e-6,
        attention_bias: bool = False,
        tie_word_embeddings: bool = False,
        dropout: float = 0.0,
        context_length: int | None = None,
    ) -> DecoderConfig:
        head_dim = unrotated_head_dim + rotated_head_dim
        is_biased = router_scoring == "sigmoid"
        experts = experts_config(
            locals(),
            layers=tuple(layer >= num_dense_layers for layer in range(num_layers)),
            scoring=router_scoring,
            scale=router_scale,
            choice_bias=is_biased,
            num_groups=num_expert_groups,
            groups_per_token=expert_groups_per_token,
            scores_per_group=2 if is_biased and num_expert_groups > 1 else 1,
            shared_dim=shared_expert_intermediate_dim,
        )
        return DecoderConfig(
            **decoder_fields(locals()),
            latent=LatentConfig(
                key_value_rank=key_value_rank,
                query_rank=query_rank,
                unrotated_dim=unrotated_head_dim,
                rotated_dim=rotated_head_dim,
                value_dim=value_head_dim,
            ),
        )


class DeepSeekCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `DeepSeekCausalLM`; see `CausalLMPreprocessor`."""


class DeepSeekCausalLM(CausalLM):
    """A DeepSeek model that generates text; see `CausalLM`."""

    backbone_cls = DeepSeekBackbone
    preprocessor_cls = DeepSeekCausalLMPreprocessor


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = ungrouped(config, decoder_arguments(config, context_length=4096))
    del arguments["head_dim"]  # that of the rotated part alone
    arguments |= {
        "key_value_rank": config.integer("kv_lora_rank", 512),
        "query_rank": config.integer("q_lora_rank", None),
        "unrotated_head_dim": config.integer("qk_nope_head_dim", 128),
        "rotated_head_dim": config.integer("qk_rope_head_dim", 64),
        "value_head_dim": config.integer("v_head_dim", 128),
        "attention_bias": config.boolean("attention_bias", False),
    }
    head_dim = arguments["unrotated_head_dim"] + arguments["rotated_head_dim"]
    is_first = checkpoint.architecture == "deepseek_v2"
    arguments |= _rotary_arguments(config, arguments["context_length"], head_dim)
    arguments |= _experts_arguments(config, is_first)
    config.expect(qk_head_dim=head_dim, mlp_bias=False)
    if not is_first:
        config.boolean("rope_interleave", True)  # which the weights' table asks for, too
    # Of training and of devices, or of layers that predict more than the next token.
    config.skip("aux_loss_alpha", "seq_aux", "ep_size", "pretraining_tp", "output_router_logits")
    config.skip("num_nextn_predict_layers", "num_mtp_layers", "router_aux_loss_coef")
    return arguments


def _rotary_arguments(config: ConfigReader, context_length: int, head_dim: int) -> dict[str, Any]:
    rope, kind, theta = rotary_section(config, KINDS)
    scaling = scaling_settings(rope, kind, context_length)
    arguments = {"rope_max_wavelength": theta, "rope_scaling": scaling}
    if scaling is not None and kind == "yarn":
        magnitude = yarn_magnitude(scaling["factor"], rope.number("mscale_all_dim", 0.0))
        arguments["attention_scale"] = head_dim**-0.5 * magnitude**2
    rope.check_all_read()
    return arguments


def _experts_arguments(config: ConfigReader, is_first: bool) -> dict[str, Any]:
    num_shared = config.integer("n_shared_experts", 2 if is_first else 1)
    width = config.integer("moe_intermediate_size")
    methods = ["greedy", "group_limited_greedy"] if is_first else ["noaux_tc"]
    method = config.choice("topk_method", methods, methods[0])
    scoring: Literal["softmax", "sigmoid"] = "softmax" if is_first else "sigmoid"
    config.expect(scoring_func=scoring, moe_layer_freq=1)
    groups, of_token = config.integer("n_group", 1), config.integer("topk_group", 1)
    return {
        "num_experts": config.integer("n_routed_experts"),
        "top_k": config.integer("num_experts_per_tok"),
        "moe_intermediate_dim": width,
        "shared_expert_intermediate_dim": num_shared * width,
        "num_dense_layers": config.integer("first_k_dense_replace", 0, minimum=0),
        "router_scoring": scoring,
        # The first version never does, whatever is set.
        "norm_top_k_prob": config.choice("norm_topk_prob", [False], False)
        if is_first
        else config.boolean("norm_topk_prob", True),
        "router_scale": config.number("routed_scaling_factor", 1.0),
        "num_expert_groups": 1 if method == "greedy" else groups,
        "expert_groups_per_token": 1 if method == "greedy" else of_token,
    }


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    is_interleaved = checkpoint.config.get("rope_interleave") is not False
    return {
        **TRANSFORMERS_NAMES,
        **TRANSFORMERS_EXPERTS,
        **shared_expert_names("model.layers.{i}.mlp.shared_experts"),
        "feed_forward/choice_bias": Stored("model.layers.{i}.mlp.gate.e_score_correction_bias"),
        **latent_names(config, TRANSFORMERS_LATENT, is_interleaved=is_interleaved),
    }


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_sizes(config, checkpoint) | gguf_experts(config)
    width = config.integer("expert_feed_forward_length")
    rotated = config.integer("rope.dimension_count")
    head_dim, value_dim = (
        config.integer(f"attention.{part}_length_mla", config.integer(f"attention.{part}_length"))
        for part in ("key", "value")
    )
    config.integer("attention.head_count_kv")  # which follows from how keys are stored
    gating = config.choice("expert_gating_func", [1, 2], 1)
    arguments |= {
        "num_heads": config.integer("attention.head_count"),
        "key_value_rank": config.integer("attention.kv_lora_rank"),
        "query_rank": config.integer("attention.q_lora_rank", None),
        "unrotated_head_dim": head_dim - rotated,
        "rotated_head_dim": rotated,
        "value_head_dim": value_dim,
        "moe_intermediate_dim": width,
        "shared_expert_intermediate_dim": config.integer("expert_shared_count") * width,
        "num_dense_layers": config.integer("leading_dense_block_count", 0, minimum=0),
        "router_scoring": "softmax" if gating == 1 else "sigmoid",
        "norm_top_k_prob": config.boolean("expert_weights_norm", False),
        "router_scale": config.number("expert_weights_scale", 1.0),
        "num_expert_groups": config.integer("expert_group_count", 1),
        "expert_groups_per_token": config.integer("expert_group_used_count", 1),
        "rope_max_wavelength": config.number("rope.freq_base", 10000.0),
        "rope_scaling": gguf_scaling(config, checkpoint, rotated),
        "layer_norm_epsilon": config.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": not has_tensor(checkpoint, "output.weight"),
        "context_length": config.integer("context_length"),
    }
    scaling = arguments["rope_scaling"]
    if scaling is not None and scaling["kind"] == "yarn":
        weight = config.fraction("rope.scaling.yarn_log_multiplier", 0.0) / 0.1
        magnitude = yarn_magnitude(scaling["factor"], weight)
        arguments["attention_scale"] = head_dim**-0.5 * magnitude**2
        scaling["attention_factor"] = 1.0  # not stored; what the published models have
    return arguments


def _gguf_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    is_joined = has_tensor(checkpoint, "blk.0.attn_kv_b.weight")
    return {
        **GGUF_NAMES,
        "feed_forward/choice_bias": Stored("blk.{i}.exp_probs_b.bias"),
        **latent_names(config, GGUF_LATENT_JOINED if is_joined else GGUF_LATENT),
    }


FAMILY = Family(
    task=DeepSeekCausalLM,
    formats={
        "transformers": transformers_format(
            {"deepseek_v2": "DeepseekV2ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM"},
            _transformers_arguments,
            _transformers_names,
            # The published V3 has a layer behind its last that predicts one more token.
            ignored=(*TRANSFORMERS_IGNORED, r"model\.layers\.61\..*"),
        ),
        "gguf": gguf_format(("deepseek2",), _gguf_arguments, _gguf_names),
    },
)
