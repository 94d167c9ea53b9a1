"""Every family and variant that is compared with transformers: tiny, random, every part alive.

Norms, biases and embeddings are redrawn so that leaving one out, or adding it at the wrong place,
shows in the logits.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers


@dataclasses.dataclass(frozen=True)
class Case:
    """One configuration of one of transformers' model classes.

    Attributes:
        name: what the tests call it.
        config: makes the configuration.
        written_as: `model_type` of an export, where another class computes the same, too.
    """

    name: str
    config: Callable[[], transformers.PretrainedConfig]
    written_as: str | None = None

    def make(self, directory: Path, dtype: torch.dtype = torch.float32) -> Any:
        """Save a random model in `directory` and return it."""
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(self.config())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1 or "norm" in name or "bias" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
                else:
                    parameter.mul_(4.0 if "embed" not in name and "wte" not in name else 8.0)
            for name, buffer in model.named_buffers():
                if "bias" in name and buffer.is_floating_point():
                    buffer.add_(torch.randn_like(buffer) * 0.2)
        model = model.to(dtype).eval()
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = None
        model.save_pretrained(directory)
        return model


def _llama(
    config_class: type[transformers.PretrainedConfig] = transformers.LlamaConfig, **changes: Any
) -> Callable[[], transformers.PretrainedConfig]:
    settings = {
        "vocab_size": 131,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    return lambda: config_class(**settings | changes)


def _layer_norm(
    config_class: type[transformers.PretrainedConfig], **changes: Any
) -> Callable[[], transformers.PretrainedConfig]:
    return _llama(config_class, rms_norm_eps=None, **changes)


def _gpt2(
    config_class: type[transformers.PretrainedConfig] = transformers.GPT2Config, **changes: Any
) -> Callable[[], transformers.PretrainedConfig]:
    settings = {
        "vocab_size": 131,
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 256,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return lambda: config_class(**settings | changes)


def _gemma(**changes: Any) -> Callable[[], transformers.PretrainedConfig]:
    settings = {
        "vocab_size": 131,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 256,
    }
    return lambda: transformers.GemmaConfig(**settings | changes)


def _gemma2(
    config_class: type[transformers.PretrainedConfig] = transformers.Gemma2Config, **changes: Any
) -> Callable[[], transformers.PretrainedConfig]:
    settings = {
        "vocab_size": 131,
        "hidden_size": 32,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "query_pre_attn_scalar": 16,
        "sliding_window": 12,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 6.0,
    }
    return lambda: config_class(**settings | changes)


def _opt(**changes: Any) -> Callable[[], transformers.PretrainedConfig]:
    settings = {
        "vocab_size": 131,
        "hidden_size": 32,
        "ffn_dim": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    }
    return lambda: transformers.OPTConfig(**settings | changes)


def _bloom(**changes: Any) -> Callable[[], transformers.PretrainedConfig]:
    settings = {"vocab_size": 131, "hidden_size": 32, "n_layer": 3, "n_head": 4}
    return lambda: transformers.BloomConfig(**settings | changes)


def _gpt_neox(**changes: Any) -> Callable[[], transformers.PretrainedConfig]:
    settings = {
        "vocab_size": 131,
        "hidden_size": 64,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
    }
    return lambda: transformers.GPTNeoXConfig(**settings | changes)


def _gptj(
    config_class: type[transformers.PretrainedConfig] = transformers.GPTJConfig, **changes: Any
) -> Callable[[], transformers.PretrainedConfig]:
    settings = {
        "vocab_size": 131,
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 256,
        "rotary_dim": 4,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return lambda: config_class(**settings | changes)


def _deepseek(
    config_class: type[transformers.PretrainedConfig], **changes: Any
) -> Callable[[], transformers.PretrainedConfig]:
    settings = {
        "num_key_value_heads": 4,
        "kv_lora_rank": 24,
        "q_lora_rank": None,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "v_head_dim": 12,
        "n_routed_experts": 6,
        "n_shared_experts": 2,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 24,
        "first_k_dense_replace": 1,
        "topk_group": 1,
    }
    return _llama(config_class, **settings | changes)


def _falcon(**changes: Any) -> Callable[[], transformers.PretrainedConfig]:
    settings = {
        "vocab_size": 131,
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    return lambda: transformers.FalconConfig(**settings | changes)


_FALCON_1B = {"alibi": True, "bias": True, "multi_query": False, "parallel_attn": False}
_LLAMA3_SCALING = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 8.0,
    "original_max_position_embeddings": 32,
}
_GRANITE = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.2,
    "residual_multiplier": 0.4,
    "logits_scaling": 0.5,
}
_MIXTURE = {
    "moe_intermediate_size": 24,
    "num_experts": 6,
    "num_experts_per_tok": 3,
}

CASES = [
    Case("llama", _llama()),
    Case("llama-tied", _llama(tie_word_embeddings=True)),
    Case("llama-multi-head", _llama(num_key_value_heads=4, rope_parameters={"rope_theta": 5e5})),
    Case("llama-multi-query", _llama(num_key_value_heads=1)),
    Case("llama-wide-heads", _llama(head_dim=16)),
    Case("llama-biases", _llama(attention_bias=True, mlp_bias=True)),
    Case("llama-llama3-scaling", _llama(rope_parameters=_LLAMA3_SCALING)),
    Case(
        "llama-linear-scaling",
        _llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
    ),
    Case("llama-yarn", _llama(rope_parameters=_YARN)),
    Case(
        "llama-yarn-all-settings",
        _llama(
            rope_parameters=_YARN
            | {
                "beta_fast": 4.0,
                "beta_slow": 0.5,
                "mscale": 1.0,
                "mscale_all_dim": 0.5,
                "truncate": False,
            }
        ),
    ),
    Case("arcee", _llama(transformers.ArceeConfig, attention_bias=True, mlp_bias=True)),
    Case("ernie4_5", _llama(transformers.Ernie4_5Config, head_dim=16), "llama"),
    Case("helium", _llama(transformers.HeliumConfig, head_dim=8, attention_bias=True)),
    Case(
        "internlm3-biases",
        _llama(transformers.InternLM3Config, head_dim=16, qkv_bias=True, bias=True),
        "llama",
    ),
    Case("seed-oss", _llama(transformers.SeedOssConfig, head_dim=16)),
    Case("gpt2", _gpt2()),
    Case(
        "gpt-bigcode",
        _gpt2(transformers.GPTBigCodeConfig, n_inner=48),
    ),
    Case("gpt-bigcode-multi-head", _gpt2(transformers.GPTBigCodeConfig, multi_query=False), "gpt2"),
    Case(
        "gpt-neo",
        lambda: transformers.GPTNeoConfig(
            vocab_size=131,
            hidden_size=32,
            num_layers=3,
            num_heads=4,
            max_position_embeddings=256,
            attention_types=[[["global", "local", "local"], 1]],
            window_size=12,
            bos_token_id=0,
            eos_token_id=0,
        ),
    ),
    Case("gpt2-inner", _gpt2(n_inner=48, layer_norm_epsilon=1e-3)),
    Case("gemma", _gemma()),
    Case("gemma-biases", _gemma(attention_bias=True, rope_parameters={"rope_theta": 5e5})),
    Case("gemma2", _gemma2()),
    Case(
        "gemma2-no-caps",
        _gemma2(
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            query_pre_attn_scalar=24,
            layer_types=["full_attention", "sliding_attention", "sliding_attention"],
        ),
    ),
    Case(
        "gemma3",
        _llama(
            transformers.Gemma3TextConfig,
            num_hidden_layers=4,
            head_dim=16,
            sliding_window=12,
            query_pre_attn_scalar=24,
            sliding_window_pattern=3,
        ),
    ),
    Case(
        "gemma3-scaled-cap-biases",
        _llama(
            transformers.Gemma3TextConfig,
            head_dim=16,
            sliding_window=12,
            attention_bias=True,
            final_logit_softcapping=6.0,
            layer_types=["full_attention", "sliding_attention", "sliding_attention"],
            rope_parameters={
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0},
            },
        ),
    ),
    Case("vaultgemma", _gemma2(config_class=transformers.VaultGemmaConfig)),
    Case("mistral", _llama(transformers.MistralConfig, sliding_window=12)),
    Case(
        "mistral-wide-heads-tied-no-window",
        _llama(
            transformers.MistralConfig, sliding_window=None, head_dim=16, tie_word_embeddings=True
        ),
    ),
    Case(
        "ministral",
        _llama(
            transformers.MinistralConfig,
            sliding_window=12,
            head_dim=16,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        ),
    ),
    Case("qwen2", _llama(transformers.Qwen2Config)),
    Case(
        "qwen2-tied-window",
        _llama(
            transformers.Qwen2Config,
            tie_word_embeddings=True,
            use_sliding_window=True,
            sliding_window=12,
            max_window_layers=1,
            rope_parameters={"rope_theta": 1e6},
        ),
    ),
    Case("qwen3", _llama(transformers.Qwen3Config, head_dim=16)),
    Case(
        "qwen3-tied-window-biases",
        _llama(
            transformers.Qwen3Config,
            head_dim=8,
            tie_word_embeddings=True,
            attention_bias=True,
            use_sliding_window=True,
            sliding_window=12,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
        ),
    ),
    Case("opt", _opt()),
    Case("opt-gelu-no-biases", _opt(activation_function="gelu", enable_bias=False)),
    Case("bloom", _bloom()),
    Case("bloom-six-heads", _bloom(hidden_size=48, n_head=6, layer_norm_epsilon=1e-3)),
    Case("phi3", _llama(transformers.Phi3Config, pad_token_id=0)),
    Case(
        "phi3-tied-window-partial-rotary",
        _llama(
            transformers.Phi3Config,
            pad_token_id=0,
            tie_word_embeddings=True,
            sliding_window=12,
            rope_parameters={"rope_theta": 5e5, "partial_rotary_factor": 0.5},
        ),
    ),
    Case("gpt-neox", _gpt_neox()),
    Case(
        "gpt-neox-sequential",
        _gpt_neox(
            use_parallel_residual=False,
            attention_bias=False,
            hidden_act="gelu_fast",
            tie_word_embeddings=True,
            rope_parameters={
                "rope_type": "linear",
                "rope_theta": 5e3,
                "factor": 2.0,
                "partial_rotary_factor": 0.5,
            },
        ),
    ),
    Case("falcon-7b", _falcon()),
    Case("falcon-40b", _falcon(new_decoder_architecture=True, num_kv_heads=2)),
    Case(
        "falcon-11b",
        _falcon(
            new_decoder_architecture=True,
            num_kv_heads=3,
            num_ln_in_parallel_attn=1,
            ffn_hidden_size=56,
            tie_word_embeddings=False,
            rope_parameters={"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0},
        ),
    ),
    Case("falcon-1b", _falcon(**_FALCON_1B)),
    Case("falcon-alibi-parallel", _falcon(alibi=True)),
    Case(
        "mixtral",
        _llama(transformers.MixtralConfig, num_local_experts=5, sliding_window=12, head_dim=16),
    ),
    Case(
        "mixtral-tied-three-experts-each",
        _llama(
            transformers.MixtralConfig,
            num_local_experts=4,
            num_experts_per_tok=3,
            tie_word_embeddings=True,
        ),
    ),
    Case("olmo2", _llama(transformers.Olmo2Config)),
    Case(
        "olmo2-tied-biases",
        _llama(
            transformers.Olmo2Config,
            tie_word_embeddings=True,
            attention_bias=True,
            rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        ),
    ),
    Case(
        "olmo3",
        _llama(
            transformers.Olmo3Config,
            num_hidden_layers=4,
            sliding_window=12,
            rope_parameters={
                "full_attention": _YARN,
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e4},
            },
        ),
    ),
    Case("olmoe", _llama(transformers.OlmoeConfig, num_experts=6, num_experts_per_tok=3)),
    Case(
        "flex-olmo",
        _llama(
            transformers.FlexOlmoConfig,
            pad_token_id=0,
            num_experts=6,
            num_experts_per_tok=3,
            norm_topk_prob=True,
        ),
    ),
    Case(
        "exaone4",
        _llama(
            transformers.Exaone4Config,
            num_hidden_layers=4,
            sliding_window=12,
            sliding_window_pattern=3,
            rope_parameters=_LLAMA3_SCALING,
        ),
    ),
    Case("granite", _llama(transformers.GraniteConfig, **_GRANITE)),
    Case(
        "granite-tied-biases",
        _llama(
            transformers.GraniteConfig,
            **_GRANITE,
            tie_word_embeddings=True,
            attention_bias=True,
            mlp_bias=True,
            rope_parameters={"rope_type": "default", "rope_theta": 5e5},
        ),
    ),
    Case("stablelm", _layer_norm(transformers.StableLmConfig, use_qkv_bias=True)),
    Case(
        "stablelm-parallel-head-norms-tied",
        _layer_norm(
            transformers.StableLmConfig,
            qk_layernorm=True,
            use_parallel_residual=True,
            tie_word_embeddings=True,
            partial_rotary_factor=0.5,
        ),
    ),
    Case("nemotron", _layer_norm(transformers.NemotronConfig)),
    Case(
        "nemotron-biases-wide-heads",
        _layer_norm(
            transformers.NemotronConfig,
            attention_bias=True,
            mlp_bias=True,
            head_dim=16,
            norm_eps=1e-4,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 500.0,
                "partial_rotary_factor": 0.25,
            },
        ),
    ),
    Case("starcoder2", _layer_norm(transformers.Starcoder2Config, sliding_window=12)),
    Case(
        "starcoder2-no-biases-untied",
        _layer_norm(transformers.Starcoder2Config, use_bias=False, tie_word_embeddings=False),
    ),
    Case("gptj", _gptj()),
    Case("gptj-whole-heads-inner", _gptj(rotary_dim=8, n_inner=48, activation_function="relu")),
    Case("codegen", _gptj(config_class=transformers.CodeGenConfig, n_head=8, n_embd=64), "gptj"),
    Case(
        "persimmon",
        _layer_norm(transformers.PersimmonConfig, hidden_size=64, num_key_value_heads=None),
    ),
    Case(
        "mpt-six-heads",
        lambda: transformers.MptConfig(
            vocab_size=131, d_model=48, n_heads=6, n_layers=3, max_seq_len=256
        ),
    ),
    Case(
        "biogpt",
        _layer_norm(transformers.BioGptConfig, num_key_value_heads=None),
    ),
    Case("phi", _layer_norm(transformers.PhiConfig)),
    Case(
        "phi-head-norms-tied",
        _layer_norm(
            transformers.PhiConfig,
            qk_layernorm=True,
            tie_word_embeddings=True,
            rope_parameters={"rope_theta": 5e5, "partial_rotary_factor": 0.75},
        ),
    ),
    Case("smollm3", _llama(transformers.SmolLM3Config, pad_token_id=0, no_rope_layer_interval=2)),
    Case(
        "smollm3-window-biases-untied",
        _llama(
            transformers.SmolLM3Config,
            pad_token_id=0,
            tie_word_embeddings=False,
            attention_bias=True,
            mlp_bias=True,
            use_sliding_window=True,
            sliding_window=12,
            no_rope_layers=[1, 0, 1],
            rope_parameters=_YARN,
        ),
    ),
    Case("cohere", _layer_norm(transformers.CohereConfig, logit_scale=0.5)),
    Case(
        "cohere-head-norms-biases-untied",
        _layer_norm(
            transformers.CohereConfig,
            use_qk_norm=True,
            attention_bias=True,
            tie_word_embeddings=False,
            logit_scale=2.0,
        ),
    ),
    Case(
        "cohere2",
        _layer_norm(
            transformers.Cohere2Config,
            num_hidden_layers=4,
            logit_scale=0.5,
            sliding_window=12,
            sliding_window_pattern=3,
        ),
    ),
    Case("glm", _llama(transformers.GlmConfig, pad_token_id=0, head_dim=16)),
    Case(
        "glm4-tied-no-biases",
        _llama(
            transformers.Glm4Config,
            pad_token_id=0,
            head_dim=16,
            tie_word_embeddings=True,
            attention_bias=False,
        ),
    ),
    Case(
        "qwen2-moe",
        _llama(transformers.Qwen2MoeConfig, **_MIXTURE, shared_expert_intermediate_size=40),
    ),
    Case(
        "qwen2-moe-dense-between-window",
        _llama(
            transformers.Qwen2MoeConfig,
            **_MIXTURE,
            num_hidden_layers=4,
            shared_expert_intermediate_size=40,
            norm_topk_prob=True,
            decoder_sparse_step=2,
            mlp_only_layers=[3],
            qkv_bias=False,
            use_sliding_window=True,
            sliding_window=12,
            max_window_layers=3,
            tie_word_embeddings=True,
        ),
    ),
    Case("qwen3-moe", _llama(transformers.Qwen3MoeConfig, **_MIXTURE, norm_topk_prob=True)),
    Case(
        "qwen3-moe-dense-first-window",
        _llama(
            transformers.Qwen3MoeConfig,
            **_MIXTURE,
            norm_topk_prob=False,
            mlp_only_layers=[0],
            head_dim=16,
            attention_bias=True,
            use_sliding_window=True,
            sliding_window=12,
        ),
    ),
    Case("granite-moe", _llama(transformers.GraniteMoeConfig, **_GRANITE, num_local_experts=5)),
    Case(
        "granite-moe-shared",
        _llama(
            transformers.GraniteMoeSharedConfig,
            **_GRANITE,
            num_local_experts=5,
            num_experts_per_tok=3,
            shared_intermediate_size=40,
        ),
    ),
    Case(
        "gpt-oss",
        _llama(
            transformers.GptOssConfig,
            num_local_experts=5,
            num_experts_per_tok=2,
            head_dim=16,
            sliding_window=12,
            rope_parameters=_YARN | {"truncate": False},
        ),
    ),
    Case("deepseek-v2", _deepseek(transformers.DeepseekV2Config)),
    Case(
        "deepseek-v2-groups-yarn-biases",
        _deepseek(
            transformers.DeepseekV2Config,
            q_lora_rank=20,
            n_group=3,
            topk_group=2,
            topk_method="group_limited_greedy",
            routed_scaling_factor=2.0,
            attention_bias=True,
            rope_parameters=_YARN | {"mscale": 0.7, "mscale_all_dim": 0.9},
        ),
    ),
    Case("deepseek-v3", _deepseek(transformers.DeepseekV3Config, q_lora_rank=20, n_group=1)),
    Case(
        "deepseek-v3-groups-halves-tied",
        _deepseek(
            transformers.DeepseekV3Config,
            q_lora_rank=None,
            n_group=3,
            topk_group=2,
            norm_topk_prob=False,
            routed_scaling_factor=2.5,
            rope_interleave=False,
            tie_word_embeddings=True,
            rope_parameters=_YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
        ),
    ),
]

# Their frequencies change where a text outgrows 32 tokens.
OUTGROWN = [
    Case(
        "llama-dynamic",
        _llama(
            max_position_embeddings=32,
            rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
        ),
    ),
    Case(
        "phi3-longrope",
        _llama(
            transformers.Phi3Config,
            pad_token_id=0,
            original_max_position_embeddings=32,
            rope_parameters={
                "rope_type": "longrope",
                "short_factor": [1.0, 1.1, 1.3],
                "long_factor": [1.5, 4.0, 9.0],
                "partial_rotary_factor": 0.75,
            },
        ),
    ),
]
