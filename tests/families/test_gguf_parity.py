"""Families stored as GGUF, laid out as llama.cpp's converter does, against transformers."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

import nextword
from families.cases import CASES
from gguf_files import write_gguf
from nextword.presets import PresetError


def interleaved(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Permute query or key rows from half-split rotary pairs to neighbouring ones."""
    halves = weight.reshape(num_heads, 2, -1, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def llama_as_gguf(model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    config = model.config
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.dimension_count": config.head_dim,
        "llama.attention.key_length": config.head_dim,
        "llama.attention.value_length": config.head_dim,
        "llama.rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "llama.vocab_size": config.vocab_size,
    }
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers.": "blk.",
        ".input_layernorm": ".attn_norm",
        ".post_attention_layernorm": ".ffn_norm",
        ".self_attn.o_proj": ".attn_output",
        ".self_attn.q_proj": ".attn_q",
        ".self_attn.k_proj": ".attn_k",
        ".self_attn.v_proj": ".attn_v",
        ".mlp.gate_proj": ".ffn_gate",
        ".mlp.up_proj": ".ffn_up",
        ".mlp.down_proj": ".ffn_down",
    }
    tensors = {}
    for name, value in weights(model).items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        for theirs, stored in names.items():
            name = name.replace(theirs, stored)
        if ".attn_q." in name:
            value = interleaved(value, config.num_attention_heads)
        elif ".attn_k." in name:
            value = interleaved(value, config.num_key_value_heads)
        tensors[name] = value
    return metadata, tensors


def gpt2_as_gguf(model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    config = model.config
    metadata = {
        "general.architecture": "gpt2",
        "gpt2.block_count": config.n_layer,
        "gpt2.context_length": config.n_positions,
        "gpt2.embedding_length": config.n_embd,
        "gpt2.feed_forward_length": config.n_inner or 4 * config.n_embd,
        "gpt2.attention.head_count": config.n_head,
        "gpt2.attention.layer_norm_epsilon": config.layer_norm_epsilon,
    }
    names = {
        "transformer.wte": "token_embd",
        "transformer.wpe": "position_embd",
        "transformer.ln_f": "output_norm",
        "transformer.h.": "blk.",
        ".ln_1": ".attn_norm",
        ".ln_2": ".ffn_norm",
        ".attn.c_attn": ".attn_qkv",
        ".attn.c_proj": ".attn_output",
        ".mlp.c_fc": ".ffn_up",
        ".mlp.c_proj": ".ffn_down",
    }
    tensors = {}
    for name, value in weights(model).items():
        if name == "lm_head.weight":
            continue
        is_transposed = ".c_" in name and value.ndim == 2
        for theirs, stored in names.items():
            name = name.replace(theirs, stored)
        tensors[name] = np.ascontiguousarray(value.T) if is_transposed else value
    return metadata, tensors


def weights(model: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


WRITERS = {"llama": llama_as_gguf, "gpt2": gpt2_as_gguf}
STORED = {"llama", "llama-tied", "llama-wide-heads", "gpt2", "gpt2-inner"}


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in STORED], ids=lambda case: case.name
)
def test_logits(case: Any, tmp_path: Path) -> None:
    reference = case.make(tmp_path / "transformers")
    metadata, tensors = WRITERS[reference.config.model_type](reference)
    path = write_gguf(tmp_path / "model.gguf", metadata, tensors)
    lm = nextword.models.CausalLM.from_preset(path, preprocessor=None)
    token_ids = np.random.default_rng(1).integers(0, reference.config.vocab_size, (2, 50))
    with torch.no_grad():
        expected = reference(torch.tensor(token_ids)).logits.numpy()
    logits = lm({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    np.testing.assert_allclose(keras.ops.convert_to_numpy(logits), expected, rtol=0, atol=1e-4)
    assert lm.backbone.config.context_length == 256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llama.rope.scaling.type": "yarn"}, "'rope.scaling.type'.*'yarn'"),
        ({"llama.expert_count": 8}, "does not know.*expert_count=8"),
        ({"llama.rope.dimension_count": 4}, "'rope.dimension_count' .* must be 8"),
        ({"llama.block_count": 2**31}, "'block_count'"),
        ({"general.architecture": "mamba"}, "architecture 'mamba'.*Known.*gpt2, llama"),
    ],
)
def test_unknown_settings_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    reference = CASES[0].make(tmp_path / "transformers")
    metadata, tensors = llama_as_gguf(reference)
    path = write_gguf(tmp_path / "model.gguf", metadata | changes, tensors)
    with pytest.raises(PresetError, match=message):
        nextword.models.CausalLM.from_preset(path, preprocessor=None)
