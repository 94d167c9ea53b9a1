"""What GGUF can say of a decoder, and which of it a family's reader asks for.

Nothing here knows what a family stores. Of everything that GGUF has a key for, a file gets the keys
that the family's own reader asks for, and what the reader makes of them must be the same decoder.
"""

from typing import Any

import numpy as np

from nextword.layers import (
    DecoderConfig,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    PairScaling,
    YarnScaling,
    yarn_magnitude,
)
from nextword.models.formats.offered_settings import pair_factors, rotated_width
from nextword.models.formats.rotary import (
    GGUF_LONG_FACTORS,
    GGUF_PAIR_FACTORS,
    GGUF_SHORT_FACTORS,
)

# For models that declare no limit; the format and llama.cpp want one.
_CONTEXT_LENGTH = 4096
_GATING = {"softmax": 1, "sigmoid": 2}


def decoder_settings(config: DecoderConfig, *, divides_logits: bool) -> dict[str, Any]:
    """Return everything that GGUF could say of a decoder, by key without its architecture.

    Args:
        config: the decoder's description.
        divides_logits: whether the architecture stores what logits are divided by, instead of what
            they are multiplied with.
    """
    logit_scale = 1 / config.logit_scale if divides_logits else config.logit_scale
    epsilon = "layer_norm_rms_epsilon" if config.norm == "rms" else "layer_norm_epsilon"
    return {
        "vocab_size": config.vocabulary_size,
        "context_length": config.context_length or _CONTEXT_LENGTH,
        "embedding_length": config.hidden_dim,
        "block_count": config.num_layers,
        "feed_forward_length": config.intermediate_dim,
        "use_parallel_residual": config.parallel_residual,
        "attn_logit_softcapping": config.attention_soft_cap,
        "final_logit_softcapping": config.logit_soft_cap,
        "embedding_scale": float(config.embedding_scale),
        "residual_scale": float(config.residual_scale),
        "logit_scale": float(logit_scale),
        f"attention.{epsilon}": config.norm_epsilon,
        **{f"attention.{key}": value for key, value in _attention_settings(config).items()},
        **{f"expert_{key}": value for key, value in _experts_settings(config).items()},
        **{f"rope.{key}": value for key, value in _rotary_settings(config).items()},
        "leading_dense_block_count": _leading_dense_layers(config),
    }


def _attention_settings(config: DecoderConfig) -> dict[str, Any]:
    windows = [config.window(i) is not None for i in range(config.num_layers)]
    settings = {
        "head_count": config.num_query_heads,
        "head_count_kv": config.num_key_value_heads,
        "key_length": config.head_dim,
        "value_length": config.head_dim,
        "scale": config.attention_scale,
        "sliding_window": config.sliding_window if any(windows) else None,
        "sliding_window_pattern": sliding_period(windows) if any(windows) else None,
    }
    if (latent := config.latent) is None:
        return settings
    # As one head of keys and values, which are the latent vectors.
    return settings | {
        "head_count_kv": 1,
        "key_length": latent.key_value_rank + latent.rotated_dim,
        "value_length": latent.key_value_rank,
        "key_length_mla": latent.unrotated_dim + latent.rotated_dim,
        "value_length_mla": latent.value_dim,
        "kv_lora_rank": latent.key_value_rank,
        "q_lora_rank": latent.query_rank,
    }


def _experts_settings(config: DecoderConfig) -> dict[str, Any]:
    experts = config.experts
    if experts is None:
        return {}
    shared = experts.shared_dim
    return {
        "count": experts.num_experts,
        "used_count": experts.experts_per_token,
        "feed_forward_length": experts.intermediate_dim,
        "shared_feed_forward_length": shared,
        "shared_count": shared and max(shared // experts.intermediate_dim, 1),
        "weights_norm": experts.normalized,
        "weights_scale": float(experts.scale),
        "gating_func": _GATING[experts.scoring],
        "group_count": experts.num_groups,
        "group_used_count": experts.groups_per_token,
    }


def _leading_dense_layers(config: DecoderConfig) -> int:
    layers = (i for i in range(config.num_layers) if config.has_experts(i))
    return next(layers, config.num_layers)


def _rotary_settings(config: DecoderConfig) -> dict[str, Any]:
    rotary = config.rotary
    if rotary is None:
        return {}
    sliding = config.sliding_rotary or rotary
    settings = {
        "freq_base": float(rotary.theta),
        "freq_base_swa": float(sliding.theta),
        "dimension_count": rotary.dimensions(rotated_width(config)),
    }
    match rotary.scaling:
        case LinearScaling(factor=factor) if factor != 1:
            scaling: dict[str, Any] = {"type": "linear", "factor": float(factor)}
        case YarnScaling(factor=factor) as yarn:
            growth = yarn_magnitude(factor)
            attention_scale = (config.attention_scale or 0) * config.head_dim**0.5
            log_multiplier = (attention_scale**0.5 - 1) * 0.1 / (growth - 1) if growth > 1 else 0
            scaling = {
                "type": "yarn",
                "factor": float(factor),
                "original_context_length": yarn.original_context_length,
                "attn_factor": None if config.latent else yarn.magnitude / growth,
                "yarn_beta_fast": yarn.fast_turns,
                "yarn_beta_slow": yarn.slow_turns,
                "yarn_log_multiplier": log_multiplier if config.latent else None,
            }
        case LongRopeScaling() as long:
            scaling = {
                "original_context_length": long.original_context_length,
                "attn_factor": long.magnitude,
            }
        case _:
            scaling = {"type": "none"}
    return settings | {f"scaling.{key}": value for key, value in scaling.items()}


def rotary_tensors(config: DecoderConfig) -> dict[str, np.ndarray]:
    """Return the tensors by which GGUF tells how frequencies are scaled, pair by pair."""
    scaling = config.rotary.scaling if config.rotary else None
    match scaling:
        case Llama3Scaling() | PairScaling():
            return {GGUF_PAIR_FACTORS: pair_factors(config.rotary, rotated_width(config))}
        case LongRopeScaling():
            return {
                GGUF_SHORT_FACTORS: np.array(scaling.short_factors, np.float32),
                GGUF_LONG_FACTORS: np.array(scaling.long_factors, np.float32),
            }
    return {}


def sliding_period(windows: list[bool]) -> int:
    """Return the period by which GGUF tells which layers have a sliding window.

    Every so many layers there is one without, the last of its period; 0 stands for none. Where no
    period fits, that of the first layer without a window is returned.

    Example:
    >>> sliding_period([True, True, False, True]), sliding_period([True, True])
    (3, 0)
    """
    return windows.index(False) + 1 if False in windows else 0
