"""What config.json of transformers can say of a decoder, in all the spellings of its families."""

from typing import Any

from nextword.layers import (
    DecoderConfig,
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    RotaryConfig,
    RotaryScaling,
    YarnScaling,
    yarn_magnitude,
)
from nextword.models.formats.offered_settings import OfferedSettings

# Activations that are made of parts, as "quick_gelu" is, are those of one family and not named.
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "relu": "relu",
    "relu_squared": "relu2",
    "silu": "silu",
}
# The key that GPT-2 has, with the name that it gave the same.
_GPT2_ACTIVATIONS = _ACTIVATIONS | {"gelu_tanh": "gelu_new"}
# Null under these keys is none, and their absence the family's default.
_NULLABLE = ("sliding_window", "attn_logit_softcapping", "final_logit_softcapping", "q_lora_rank")
# The factor in the sigmoid of "quick_gelu".
_QUICK_GELU = 1.702


def decoder_settings(config: DecoderConfig) -> dict[str, Any]:
    """Return everything that transformers could say of a decoder, by key.

    Args:
        config: the decoder's description.
    """
    activation = _ACTIVATIONS.get(config.activation)
    settings = {
        **_spelled(config.vocabulary_size, "vocab_size"),
        **_spelled(config.num_layers, "num_hidden_layers", "n_layer", "n_layers", "num_layers"),
        **_spelled(
            config.hidden_dim, "hidden_size", "n_embd", "n_embed", "d_model", "word_embed_proj_dim"
        ),
        **_spelled(config.intermediate_dim, "intermediate_size", "n_inner"),
        **_spelled(config.intermediate_dim, "ffn_dim", "ffn_hidden_size"),
        **_spelled(config.num_segments, "type_vocab_size"),
        **_spelled(config.tie_word_embeddings, "tie_word_embeddings"),
        **_spelled(config.head_bias, "lm_head_bias"),
        **_spelled(config.norm_epsilon, "rms_norm_eps", "layer_norm_eps"),
        **_spelled(config.norm_epsilon, "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
        **_spelled(config.feed_forward_bias, "mlp_bias", "use_bias", "enable_bias", "bias"),
        **_spelled(activation, "hidden_act", "hidden_activation", "activation"),
        "activation_function": _GPT2_ACTIVATIONS.get(config.activation),
        **_spelled(config.dropout, "dropout", "hidden_dropout", "hidden_dropout_prob"),
        **_spelled(config.dropout, "resid_pdrop", "residual_dropout"),
        "embedding_multiplier": float(config.embedding_scale),
        "scale_embedding": config.embedding_scale != 1,
        "residual_multiplier": float(config.residual_scale),
        "logit_scale": float(config.logit_scale),
        "logits_scaling": _tidied(1 / config.logit_scale),
        "final_logit_softcapping": config.logit_soft_cap,
        **_attention_settings(config),
        **_window_settings(config),
        **_rotary_settings(config),
        **_experts_settings(config),
    }
    return {key: v for key, v in settings.items() if v is not None or key in _NULLABLE}


def _spelled(value: Any, *keys: str) -> dict[str, Any]:
    return dict.fromkeys(keys, value)


def _tidied(number: float) -> float:
    """Return a computed number without the last digits, which are those of rounding."""
    return float(f"{number:.12g}")


def _attention_settings(config: DecoderConfig) -> dict[str, Any]:
    heads, groups = config.num_query_heads, config.num_key_value_heads
    scale = config.attention_scale or config.head_dim**-0.5
    scalar = _tidied(scale**-2)
    is_uniform = groups in (1, heads) and (config.shared_norm or not config.parallel_residual)
    settings = {
        **_spelled(heads, "num_attention_heads", "n_head", "n_heads", "num_heads"),
        **_spelled(groups, "num_key_value_heads", "num_kv_heads"),
        "head_dim": config.head_dim,
        **_spelled(config.query_key_value_bias, "attention_bias", "qkv_bias", "use_qkv_bias"),
        "attention_multiplier": scale,
        # An integer where it is one, which transformers insists on.
        "attn_config": OfferedSettings({"softmax_scale": scale}),
        "query_pre_attn_scalar": int(scalar) if scalar.is_integer() else scalar,
        "attn_logit_softcapping": config.attention_soft_cap,
        **_spelled(config.query_key_norm is not None, "qk_layernorm", "use_qk_norm"),
        **_spelled(config.parallel_residual, "use_parallel_residual", "parallel_attn"),
        "multi_query": groups == 1,
        "new_decoder_architecture": not is_uniform,
        "num_ln_in_parallel_attn": 1 if is_uniform or config.shared_norm else 2,
        "alibi": config.position_embedding == "alibi",
    }
    if (latent := config.latent) is None:
        return settings
    return settings | {
        "head_dim": latent.rotated_dim,
        "qk_head_dim": config.head_dim,
        "kv_lora_rank": latent.key_value_rank,
        "q_lora_rank": latent.query_rank,
        "qk_nope_head_dim": latent.unrotated_dim,
        "qk_rope_head_dim": latent.rotated_dim,
        "v_head_dim": latent.value_dim,
    }


def _window_settings(config: DecoderConfig) -> dict[str, Any]:
    windows = [config.window(i) is not None for i in range(config.num_layers)]
    kinds = ["local" if window else "global" for window in windows]
    return {
        "use_sliding_window": any(windows),
        **_spelled(config.sliding_window, "sliding_window", "window_size"),
        "attention_layers": kinds,
        "attention_types": [[kinds, 1]],
        "layer_types": [f"{'sliding' if window else 'full'}_attention" for window in windows],
    }


def _rotary_settings(config: DecoderConfig) -> dict[str, Any]:
    rotary = config.rotary
    names = ("max_position_embeddings", "n_positions", "max_seq_len")
    context = _spelled(config.context_length, *names)
    if rotary is None:
        return context
    width = config.latent.rotated_dim if config.latent else config.head_dim
    settings = {
        **context,
        **_spelled(float(rotary.theta), "rope_theta", "rotary_emb_base"),
        **_spelled(float(rotary.fraction), "partial_rotary_factor", "rotary_pct"),
        "rotary_dim": rotary.dimensions(width),
        "no_rope_layers": [int(config.rotary_of(i) is not None) for i in range(config.num_layers)],
    }
    if isinstance(rotary.scaling, DynamicScaling):
        settings["max_position_embeddings"] = rotary.scaling.original_context_length
    if isinstance(rotary.scaling, LongRopeScaling):
        settings["original_max_position_embeddings"] = rotary.scaling.original_context_length
    if (sliding := config.sliding_rotary) is not None:
        sections = {"full_attention": rotary, "sliding_attention": sliding}
        return settings | {
            "rope_parameters": OfferedSettings(
                {
                    name: OfferedSettings(
                        {"rope_theta": float(each.theta), **_scaling(each, config)}
                    )
                    for name, each in sections.items()
                }
            )
        }
    scaling = _scaling(rotary, config)
    if scaling["rope_type"] == "default":
        return settings
    # In the spelling that versions of transformers before the fifth know, too.
    return settings | {"rope_scaling": OfferedSettings(scaling)}


def _scaling(rotary: RotaryConfig, config: DecoderConfig) -> dict[str, Any]:
    found = _own_settings(rotary.scaling, config)
    return {"rope_type": "default"} | {key: v for key, v in found.items() if v is not None}


def _own_settings(scaling: RotaryScaling | None, config: DecoderConfig) -> dict[str, Any]:
    match scaling:
        case LinearScaling(factor=factor) if factor != 1:
            return {"rope_type": "linear", "factor": float(factor)}
        case DynamicScaling(factor=factor):
            return {"rope_type": "dynamic", "factor": float(factor)}
        case Llama3Scaling():
            return {
                "rope_type": "llama3",
                "factor": float(scaling.factor),
                "low_freq_factor": float(scaling.low_frequency_factor),
                "high_freq_factor": float(scaling.high_frequency_factor),
                "original_max_position_embeddings": scaling.original_context_length,
            }
        case YarnScaling():
            return {
                "rope_type": "yarn",
                "factor": float(scaling.factor),
                "original_max_position_embeddings": scaling.original_context_length,
                "attention_factor": scaling.attention_factor,
                "mscale_all_dim": _latent_magnitude(scaling.factor, config),
                "beta_fast": scaling.fast_turns,
                "beta_slow": scaling.slow_turns,
                "truncate": scaling.whole_pairs,
            }
        case LongRopeScaling():
            return {
                "rope_type": "longrope",
                "factor": float(scaling.factor),
                "original_max_position_embeddings": scaling.original_context_length,
                "attention_factor": scaling.attention_factor,
                "short_factor": list(scaling.short_factors),
                "long_factor": list(scaling.long_factors),
            }
    return {}


def _latent_magnitude(factor: float, config: DecoderConfig) -> float | None:
    """Return the weight by which YaRN sharpens latent attention, or None where it does not."""
    growth = yarn_magnitude(factor) - 1
    if config.latent is None or config.attention_scale is None or not growth:
        return None
    sharper = (config.attention_scale * config.head_dim**0.5) ** 0.5 - 1
    return _tidied(sharper / growth) or None


def _experts_settings(config: DecoderConfig) -> dict[str, Any]:
    experts = config.experts
    if experts is None:
        return {}
    width, shared = experts.intermediate_dim, experts.shared_dim or 0
    dense = [i for i in range(config.num_layers) if not config.has_experts(i)]
    method = "greedy" if experts.num_groups == 1 else "group_limited_greedy"
    return {
        **_spelled(experts.num_experts, "num_experts", "num_local_experts", "n_routed_experts"),
        **_spelled(experts.experts_per_token, "num_experts_per_tok", "experts_per_token"),
        "moe_intermediate_size": width,
        **_spelled(shared, "shared_expert_intermediate_size", "shared_intermediate_size"),
        "n_shared_experts": shared // width,
        "norm_topk_prob": experts.normalized,
        "routed_scaling_factor": float(experts.scale),
        "scoring_func": experts.scoring,
        "topk_method": "noaux_tc" if experts.choice_bias else method,
        "n_group": experts.num_groups,
        "topk_group": experts.groups_per_token,
        "first_k_dense_replace": len(dense),
        "decoder_sparse_step": 1,
        "mlp_only_layers": dense,
        "swiglu_limit": config.gate_limit,
        "swiglu_alpha": _QUICK_GELU if config.activation == "quick_gelu" else None,
    }
