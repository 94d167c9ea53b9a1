"""Families stored as GGUF, laid out as llama.cpp's converter does, against transformers."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

import nextword
from families.cases import CASES, OUTGROWN
from gguf_files import write_gguf
from nextword.presets import PresetError


def interleaved(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Permute query or key rows from half-split rotary pairs to neighbouring ones."""
    halves = weight.reshape(num_heads, 2, -1, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def llama_as_gguf(model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return metadata and tensors of a model of Llama's kind."""
    config = model.config
    kind = config.model_type
    head_dim = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    rope = config.rope_parameters
    metadata = {
        "general.architecture": kind,
        f"{kind}.block_count": config.num_hidden_layers,
        f"{kind}.context_length": config.max_position_embeddings,
        f"{kind}.embedding_length": config.hidden_size,
        f"{kind}.feed_forward_length": config.intermediate_size,
        f"{kind}.attention.head_count": config.num_attention_heads,
        f"{kind}.attention.head_count_kv": config.num_key_value_heads,
        f"{kind}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{kind}.rope.freq_base": float(rope["rope_theta"]),
        f"{kind}.rope.dimension_count": int(head_dim * rope.get("partial_rotary_factor", 1)),
    }
    if kind == "llama":
        metadata["llama.vocab_size"] = config.vocab_size
    if kind == "phi3":
        metadata["phi3.attention.sliding_window"] = config.sliding_window or 0
        metadata["phi3.rope.scaling.original_context_length"] = config.max_position_embeddings
    elif hasattr(config, "head_dim"):
        metadata[f"{kind}.attention.key_length"] = head_dim
        metadata[f"{kind}.attention.value_length"] = head_dim
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "model.layers.": "blk.",
        ".input_layernorm": ".attn_norm",
        ".post_attention_layernorm": ".ffn_norm",
        ".self_attn.o_proj": ".attn_output",
        ".self_attn.qkv_proj": ".attn_qkv",
        ".self_attn.q_norm": ".attn_q_norm",
        ".self_attn.k_norm": ".attn_k_norm",
        ".self_attn.q_proj": ".attn_q",
        ".self_attn.k_proj": ".attn_k",
        ".self_attn.v_proj": ".attn_v",
        ".mlp.gate_up_proj": ".ffn_up",
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
        if kind == "llama" and ".attn_q." in name:
            value = interleaved(value, config.num_attention_heads)
        elif kind == "llama" and ".attn_k." in name:
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


def gemma_as_gguf(model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    config = model.config
    metadata, tensors = llama_as_gguf(model)
    if config.model_type == "gemma2":
        metadata["gemma2.attn_logit_softcapping"] = config.attn_logit_softcapping
        metadata["gemma2.final_logit_softcapping"] = config.final_logit_softcapping
        metadata["gemma2.attention.sliding_window"] = config.sliding_window
        for name in [name for name in tensors if ".ffn_norm." in name]:
            tensors[name.replace(".ffn_norm.", ".post_attention_norm.")] = tensors.pop(name)
        for name in [name for name in tensors if "_feedforward_layernorm." in name]:
            stored = name.replace(".pre_feedforward_layernorm.", ".ffn_norm.")
            stored = stored.replace(".post_feedforward_layernorm.", ".post_ffw_norm.")
            tensors[stored] = tensors.pop(name)
    return metadata, {
        name: value + 1 if "norm." in name else value for name, value in tensors.items()
    }


def fused_as_gguf(model: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return metadata and tensors of BLOOM, GPT-NeoX or Falcon."""
    config = model.config
    kind = config.model_type.replace("_", "")
    groups = num_heads = config.num_attention_heads
    head_dim = config.hidden_size // num_heads
    metadata = {
        "general.architecture": kind,
        f"{kind}.block_count": config.num_hidden_layers,
        f"{kind}.context_length": 256,
        f"{kind}.embedding_length": config.hidden_size,
        f"{kind}.feed_forward_length": 4 * config.hidden_size,
        f"{kind}.attention.head_count": num_heads,
        f"{kind}.attention.layer_norm_epsilon": 1e-5,
    }
    if kind == "gptneox":
        metadata["gptneox.feed_forward_length"] = config.intermediate_size
        metadata["gptneox.rope.dimension_count"] = head_dim // 4
        metadata["gptneox.use_parallel_residual"] = config.use_parallel_residual
    elif kind == "falcon":
        groups = config.num_kv_heads if config.new_decoder_architecture else 1
        metadata["falcon.tensor_data_layout"] = "jploski"
    if kind != "gptneox":
        metadata[f"{kind}.attention.head_count_kv"] = groups
    names = {
        ".mlp.dense_h_to_4h": ".ffn_up",
        ".mlp.dense_4h_to_h": ".ffn_down",
        "transformer.h.": "blk.",
        "gpt_neox.layers.": "blk.",
        "transformer.": "",
        "gpt_neox.": "",
        "embed_in": "token_embd",
        "word_embeddings_layernorm": "token_embd_norm",
        "word_embeddings": "token_embd",
        "final_layer_norm": "output_norm",
        "ln_f": "output_norm",
        "lm_head": "output",
        ".attention.": ".self_attention.",
        ".self_attention.dense": ".attn_output",
        ".self_attention.query_key_value": ".attn_qkv",
        ".input_layernorm": ".attn_norm",
        ".post_attention_layernorm": ".ffn_norm",
        ".ln_attn": ".attn_norm_2",
        ".ln_mlp": ".attn_norm",
    }
    tensors = {}
    for name, value in weights(model).items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        for theirs, stored in names.items():
            name = name.replace(theirs, stored)
        if ".attn_qkv." in name:
            heads = value.reshape(groups, -1, head_dim, *value.shape[1:])
            parts = heads[:, :-2], heads[:, [-2]], heads[:, [-1]]
            value = np.concatenate([part.reshape(-1, *value.shape[1:]) for part in parts])
        tensors[name] = value
    return metadata, tensors


def weights(model: Any) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


WRITERS = {
    "llama": llama_as_gguf,
    "qwen2": llama_as_gguf,
    "qwen3": llama_as_gguf,
    "phi3": llama_as_gguf,
    "gpt2": gpt2_as_gguf,
    "gemma": gemma_as_gguf,
    "gemma2": gemma_as_gguf,
    "bloom": fused_as_gguf,
    "gpt_neox": fused_as_gguf,
    "falcon": fused_as_gguf,
}
STORED = {
    "llama",
    "llama-tied",
    "llama-wide-heads",
    "qwen2",
    "qwen3",
    "phi3",
    "phi3-tied-window-partial-rotary",
    "gpt2",
    "gpt2-inner",
    "gemma",
    "gemma2",
    "bloom",
    "gpt-neox",
    "falcon-7b",
    "falcon-40b",
}


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in STORED], ids=lambda case: case.name
)
def test_logits(case: Any, tmp_path: Path) -> None:
    reference = case.make(tmp_path / "transformers")
    metadata, tensors = WRITERS[reference.config.model_type](reference)
    lm = check_logits(reference, write_gguf(tmp_path / "model.gguf", metadata, tensors))
    if reference.config.model_type != "bloom":  # which has no limit
        assert lm.backbone.config.context_length == 256


def check_logits(reference: Any, path: Path) -> Any:
    """Load a model's GGUF file, compare its logits with the model's, and return it."""
    lm = nextword.models.CausalLM.from_preset(path, preprocessor=None)
    token_ids = np.random.default_rng(1).integers(0, reference.config.vocab_size, (2, 50))
    with torch.no_grad():
        expected = reference(torch.tensor(token_ids)).logits.numpy()
    logits = lm({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    np.testing.assert_allclose(keras.ops.convert_to_numpy(logits), expected, rtol=0, atol=1e-4)
    return lm


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llama.rope.scaling.type": "longrope"}, "'rope.scaling.type'.*'longrope'"),
        ({"llama.attention.clamp_kqv": 8.0}, "does not know.*attention.clamp_kqv=8.0"),
        ({"llama.expert_count": 8}, "lacks the key 'expert_used_count'"),
        ({"llama.rope.dimension_count": 4}, "'rope.dimension_count' .* must be 8"),
        ({"llama.block_count": 2**31}, "'block_count'"),
        (
            {"general.architecture": "mamba"},
            "architecture 'mamba'.*not supported.*gpt2, .*llama, .*qwen2",
        ),
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


def test_heads_of_another_width_are_refused_where_there_is_no_choice(tmp_path: Path) -> None:
    metadata, tensors = llama_as_gguf(CASES[0].make(tmp_path / "transformers"))
    metadata = {key.replace("llama.", "starcoder2."): value for key, value in metadata.items()}
    metadata |= {"general.architecture": "starcoder2", "starcoder2.attention.key_length": 16}
    path = write_gguf(tmp_path / "model.gguf", metadata, tensors)
    with pytest.raises(PresetError, match=r"'attention.key_length' .* must be 8\. Received: 16"):
        nextword.models.CausalLM.from_preset(path, preprocessor=None)


def test_linear_scaling(tmp_path: Path) -> None:
    reference = case_named("qwen2").make(tmp_path / "transformers")
    metadata, tensors = llama_as_gguf(reference)
    metadata |= {"qwen2.rope.scaling.type": "linear", "qwen2.rope.scaling.factor": 4.0}
    path = write_gguf(tmp_path / "model.gguf", metadata, tensors)
    lm = nextword.models.CausalLM.from_preset(path, preprocessor=None, load_weights=False)
    assert lm.backbone.config.rotary.scaling.factor == 4.0


def test_long_rope(tmp_path: Path) -> None:
    reference = next(c for c in OUTGROWN if c.name == "phi3-longrope").make(tmp_path / "model")
    metadata, tensors = llama_as_gguf(reference)
    rope = reference.config.rope_parameters
    metadata |= {
        "phi3.rope.scaling.original_context_length": 32,
        "phi3.rope.scaling.attn_factor": (1 + np.log(256 / 32) / np.log(32)) ** 0.5,
    }
    factors = {
        f"rope_factors_{kind}.weight": np.array(rope[f"{kind}_factor"], "float32")
        for kind in ("short", "long")
    }
    check_logits(reference, write_gguf(tmp_path / "model.gguf", metadata, tensors | factors))


def test_llama3_scaling(tmp_path: Path) -> None:
    reference = case_named("llama-llama3-scaling").make(tmp_path / "model")
    metadata, tensors = llama_as_gguf(reference)
    turns = 32 * 5e5 ** -(np.arange(4) / 4) / (2 * np.pi)
    kept = np.clip((turns - 1) / (4 - 1), 0, 1)
    tensors["rope_freqs.weight"] = (1 / ((1 - kept) / 8 + kept)).astype("float32")
    check_logits(reference, write_gguf(tmp_path / "model.gguf", metadata, tensors))


def test_yarn(tmp_path: Path) -> None:
    reference = case_named("llama-yarn").make(tmp_path / "model")
    metadata, tensors = llama_as_gguf(reference)
    metadata |= {
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 8.0,
        "llama.rope.scaling.original_context_length": 32,
    }
    check_logits(reference, write_gguf(tmp_path / "model.gguf", metadata, tensors))


def case_named(name: str) -> Any:
    return next(case for case in CASES if case.name == name)
