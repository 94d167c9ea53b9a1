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
    """One configuration of one of transformers' model classes."""

    name: str
    config: Callable[[], transformers.PretrainedConfig]

    def make(self, directory: Path, dtype: torch.dtype = torch.float32) -> Any:
        """Save a random model in `directory` and return it."""
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(self.config())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.2)
                else:
                    parameter.mul_(4.0 if "embed" not in name and "wte" not in name else 8.0)
        model = model.to(dtype).eval()
        model.generation_config.eos_token_id = None
        model.generation_config.pad_token_id = None
        model.save_pretrained(directory)
        return model


def _llama(**changes: Any) -> Callable[[], transformers.PretrainedConfig]:
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
    return lambda: transformers.LlamaConfig(**settings | changes)


def _gpt2(**changes: Any) -> Callable[[], transformers.PretrainedConfig]:
    settings = {
        "vocab_size": 131,
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 4,
        "n_positions": 256,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return lambda: transformers.GPT2Config(**settings | changes)


_LLAMA3_SCALING = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
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
    Case("gpt2", _gpt2()),
    Case("gpt2-inner", _gpt2(n_inner=48, layer_norm_epsilon=1e-3)),
]
