"""Configurations as real repositories spell them, and what they are refused for."""

from types import SimpleNamespace
from typing import Any

import pytest

from nextword.layers import DecoderConfig, RotaryConfig
from nextword.models.family import find_family
from nextword.presets import PresetError

GEMMA_2B = {
    "model_type": "gemma",
    "architectures": ["GemmaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "head_dim": 256,
    "hidden_act": "gelu",
    "hidden_activation": None,
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 16384,
    "max_position_embeddings": 8192,
    "num_attention_heads": 8,
    "num_hidden_layers": 18,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.38.0.dev0",
    "use_cache": True,
    "vocab_size": 256000,
}
GEMMA_2_27B = GEMMA_2B | {
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "attn_logit_softcapping": 50.0,
    "cache_implementation": "hybrid",
    "final_logit_softcapping": 30.0,
    "head_dim": 128,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 4608,
    "intermediate_size": 36864,
    "num_attention_heads": 32,
    "num_hidden_layers": 46,
    "num_key_value_heads": 16,
    "query_pre_attn_scalar": 144,
    "sliding_window": 4096,
    "sliding_window_size": 4096,
}
OPT_125M = {
    "model_type": "opt",
    "_name_or_path": "facebook/opt-125m",
    "_remove_final_layer_norm": False,
    "activation_dropout": 0.0,
    "activation_function": "relu",
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "do_layer_norm_before": True,
    "dropout": 0.1,
    "eos_token_id": 2,
    "ffn_dim": 3072,
    "hidden_size": 768,
    "init_std": 0.02,
    "layerdrop": 0.0,
    "max_position_embeddings": 2048,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "prefix": "</s>",
    "torch_dtype": "float16",
    "use_cache": True,
    "vocab_size": 50272,
    "word_embed_proj_dim": 768,
}
BLOOM_560M = {
    "model_type": "bloom",
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_dropout": 0.0,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "masked_softmax_fusion": True,
    "n_embed": 1024,
    "n_inner": None,
    "n_layer": 24,
    "num_attention_heads": 16,
    "offset_alibi": 100,
    "pad_token_id": 3,
    "pretraining_tp": 1,
    "seq_length": 2048,
    "skip_bias_add": True,
    "skip_bias_add_qkv": False,
    "slow_but_exact": False,
    "unk_token_id": 0,
    "use_cache": True,
    "vocab_size": 250880,
}
PYTHIA_70M = {
    "model_type": "gpt_neox",
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 512,
    "initializer_range": 0.02,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "num_attention_heads": 8,
    "num_hidden_layers": 6,
    "rotary_emb_base": 20000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}
FALCON_7B = {
    "model_type": "falcon",
    "alibi": False,
    "apply_residual_connection_post_layernorm": False,
    "attention_dropout": 0.0,
    "bias": False,
    "bos_token_id": 11,
    "eos_token_id": 11,
    "hidden_dropout": 0.0,
    "hidden_size": 4544,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "multi_query": True,
    "new_decoder_architecture": False,
    "num_attention_heads": 71,
    "num_hidden_layers": 32,
    "num_kv_heads": 71,
    "parallel_attn": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 65024,
}

GEMMA_3_1B = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": None,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": [1, 106],
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "initializer_range": 0.02,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 262144,
}
SMOLLM3_3B = {
    "model_type": "smollm3",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "layer_types": ["full_attention"] * 36,
    "max_position_embeddings": 65536,
    "max_window_layers": 28,
    "mlp_bias": False,
    "no_rope_layer_interval": 4,
    "no_rope_layers": [1, 1, 1, 0] * 9,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 4,
    "pretraining_tp": 2,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 5000000.0,
    "sliding_window": None,
    "use_sliding_window": False,
    "vocab_size": 128256,
}
PHI_2 = {
    "model_type": "phi",
    "attention_dropout": 0.0,
    "embd_pdrop": 0.0,
    "hidden_act": "gelu_new",
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "partial_rotary_factor": 0.4,
    "qk_layernorm": False,
    "resid_pdrop": 0.1,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 51200,
}
GPT_J_6B = {
    "model_type": "gptj",
    "activation_function": "gelu_new",
    "attn_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "gradient_checkpointing": False,
    "layer_norm_epsilon": 1e-05,
    "n_embd": 4096,
    "n_head": 16,
    "n_inner": None,
    "n_layer": 28,
    "n_positions": 2048,
    "resid_pdrop": 0.0,
    "rotary": True,
    "rotary_dim": 64,
    "scale_attn_weights": True,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "tie_word_embeddings": False,
    "tokenizer_class": "GPT2Tokenizer",
    "vocab_size": 50400,
}
COMMAND_R = {
    "model_type": "cohere",
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 8192,
    "intermediate_size": 22528,
    "layer_norm_eps": 1e-05,
    "logit_scale": 0.0625,
    "max_position_embeddings": 8192,
    "model_max_length": 131072,
    "num_attention_heads": 64,
    "num_hidden_layers": 40,
    "num_key_value_heads": 64,
    "pretraining_tp": 1,
    "rope_theta": 8000000.0,
    "use_qk_norm": False,
    "vocab_size": 256000,
}


def described(config: dict[str, Any]) -> DecoderConfig:
    checkpoint: Any = SimpleNamespace(
        format="transformers",
        architecture=config["model_type"],
        name="config.json",
        config=config,
        tensor_names=frozenset,
    )
    family, stored = find_family(checkpoint)
    return family.task.backbone_cls.describe(**stored.arguments(checkpoint))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            GEMMA_2B,
            {
                "hidden_dim": 2048,
                "intermediate_dim": 16384,
                "num_key_value_heads": 1,
                "head_dim": 256,
                "activation": "gelu_tanh",
                "attention_scale": 256**-0.5,
                "norm_placement": "pre",
                "sliding_window": None,
                "logit_soft_cap": None,
            },
        ),
        (
            GEMMA_2_27B,
            {
                "intermediate_dim": 36864,
                "attention_scale": 144**-0.5,
                "attention_soft_cap": 50.0,
                "logit_soft_cap": 30.0,
                "norm_placement": "sandwich",
                "sliding_window": 4096,
                "sliding_layers": (True, False) * 23,
            },
        ),
        (
            {
                key: value
                for key, value in GEMMA_2_27B.items()
                if not key.endswith("softcapping") and key != "query_pre_attn_scalar"
            },
            {"attention_scale": 1 / 16, "attention_soft_cap": 50.0, "logit_soft_cap": 30.0},
        ),
        (
            OPT_125M,
            {
                "intermediate_dim": 3072,
                "context_length": 2048,
                "activation": "relu",
                "dropout": 0.1,
            },
        ),
        (
            BLOOM_560M,
            {
                "hidden_dim": 1024,
                "intermediate_dim": 4096,
                "num_layers": 24,
                "num_query_heads": 16,
                "context_length": None,
            },
        ),
        (
            PYTHIA_70M,
            {"activation": "gelu", "parallel_residual": True, "tie_word_embeddings": False},
        ),
        (
            FALCON_7B,
            {
                "intermediate_dim": 4 * 4544,
                "num_key_value_heads": 1,
                "shared_norm": True,
                "feed_forward_bias": False,
                "position_embedding": "rotary",
                "context_length": 2048,
            },
        ),
        (
            GEMMA_3_1B,
            {
                "query_key_norm": "head",
                "sliding_window": 512,
                "sliding_layers": ((True,) * 5 + (False,)) * 4 + (True, True),
                "rotary": RotaryConfig(theta=1e6),
                "sliding_rotary": RotaryConfig(theta=1e4),
                "attention_scale": 1 / 16,
            },
        ),
        (
            SMOLLM3_3B,
            {
                "rotary_layers": (True, True, True, False) * 9,
                "sliding_window": None,
                "context_length": 65536,
                "tie_word_embeddings": True,
            },
        ),
        (
            PHI_2,
            {
                "head_dim": 80,
                "rotary": RotaryConfig(theta=1e4, fraction=0.4),
                "head_bias": True,
                "dropout": 0.1,
            },
        ),
        (
            GPT_J_6B,
            {
                "intermediate_dim": 16384,
                "head_dim": 256,
                "rotary": RotaryConfig(fraction=0.25),
                "head_bias": True,
            },
        ),
        (COMMAND_R, {"context_length": 131072, "logit_scale": 0.0625, "norm_bias": False}),
    ],
)
def test_spellings(config: dict[str, Any], expected: dict[str, Any]) -> None:
    decoder = described(config)
    assert {key: getattr(decoder, key) for key in expected} == expected


def test_rotary_spellings() -> None:
    rotary = described(PYTHIA_70M).rotary
    assert rotary is not None
    assert (rotary.theta, rotary.fraction) == (20000.0, 0.25)
    newer = {key: value for key, value in PYTHIA_70M.items() if not key.startswith("rotary")} | {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 20000,
            "partial_rotary_factor": 0.25,
        }
    }
    assert described(newer).rotary == rotary


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (GEMMA_2B, {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        (GEMMA_2B, {"hidden_act": "relu"}, "hidden_act"),
        (GEMMA_2B, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "'type'.*'linear'"),
        (GEMMA_2B, {"sliding_window": 64}, "sliding_window=64"),
        (GEMMA_2B, {"tie_word_embeddings": False}, "tie_word_embeddings"),
        (GEMMA_2_27B, {"sliding_window_size": 2048}, "sliding_window_size"),
        (GEMMA_2_27B, {"layer_types": ["full_attention"] * 45}, "layer_types"),
        (GEMMA_3_1B, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        (GEMMA_3_1B, {"rope_parameters": {"rope_type": "default"}}, "does not know.*rope_type"),
        (GEMMA_3_1B, {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        (SMOLLM3_3B, {"no_rope_layers": [2] * 36}, "'no_rope_layers'.* 36 of 0 or 1"),
        (SMOLLM3_3B, {"layer_types": ["sliding_attention"] * 36}, "lacks.*'sliding_window'"),
        (PHI_2, {"hidden_act": "quick_gelu"}, "hidden_act"),
        (GPT_J_6B, {"rotary_dim": 512}, "'rotary_dim'.* 1 to 256"),
        (COMMAND_R, {"head_dim": 64}, "head_dim"),
        (OPT_125M, {"do_layer_norm_before": False}, "do_layer_norm_before"),
        (OPT_125M, {"word_embed_proj_dim": 512}, "word_embed_proj_dim"),
        (OPT_125M, {"layer_norm_elementwise_affine": False}, "layer_norm_elementwise_affine"),
        (OPT_125M, {"_remove_final_layer_norm": True}, "_remove_final_layer_norm"),
        (BLOOM_560M, {"apply_residual_connection_post_layernorm": True}, "apply_residual"),
        (BLOOM_560M, {"hidden_size": 512}, "'hidden_size': 512, 'n_embed': 1024"),
        (BLOOM_560M, {"n_embed": None}, "hidden_size"),
        (PYTHIA_70M, {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        (PYTHIA_70M, {"hidden_act": "quick_gelu"}, "hidden_act"),
        (PYTHIA_70M, {"num_key_value_heads": 2}, "num_key_value_heads"),
        (FALCON_7B, {"new_decoder_architecture": True, "parallel_attn": False}, "parallel_attn"),
        (FALCON_7B, {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn"),
        (FALCON_7B, {"apply_residual_connection_post_layernorm": True}, "apply_residual"),
    ],
)
def test_refused(config: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PresetError, match=message):
        described(config | changes)
