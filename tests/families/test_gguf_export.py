"""GGUF files written here: llama.cpp computes what transformers does, and nothing is lost."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nextword
from families.cases import CASES, Case
from nextword.models.families.gpt2 import GPT2Tokenizer
from nextword.presets import PresetError, open_checkpoint, resolve_preset
from nextword.tokenizers.spelling import byte_level_alphabet

VOCABULARY = ["<|endoftext|>", *sorted(byte_level_alphabet().values()), "he"]
PROMPT = list(range(40, 60))
# What GGUF cannot tell of the case's model, or llama.cpp does not compute, and what is put instead.
_PLAIN = {"rope_type": "default", "rope_theta": 1e4}
EXPORTED: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-tied": {},
    "llama-wide-heads": {},
    "llama-llama3-scaling": {},
    "llama-linear-scaling": {},
    "llama-yarn": {},
    "gpt2": {},
    "gemma": {},
    "gemma2": {},
    "gemma3": {"query_pre_attn_scalar": 16},
    "mistral-wide-heads-tied-no-window": {},
    "mixtral-tied-three-experts-each": {},
    "qwen2": {},
    "qwen2-moe": {},
    "qwen3": {},
    "qwen3-moe": {},
    "bloom": {},
    "phi": {},
    "phi3": {},
    "gpt-neox": {},
    "falcon-7b": {},
    "falcon-40b": {},
    "olmo2": {},
    "olmo3": {"rope_parameters": {"full_attention": _PLAIN, "sliding_attention": _PLAIN}},
    "granite": {},
    "granite-tied-biases": {},
    "granite-moe": {},
    "granite-moe-shared": {},
    "stablelm": {},
    "starcoder2": {"sliding_window": None},
    "smollm3": {"no_rope_layers": [1, 1, 1]},
    "cohere": {},
    "cohere2": {},
    "glm": {"head_dim": 8},
    "glm4-tied-no-biases": {},
    "gpt-oss": {},
    "deepseek-v2": {"q_lora_rank": 20},
    "deepseek-v3": {"q_lora_rank": 20},
}


def made(name: str, directory: Path, **changes: Any) -> tuple[Any, Any]:
    """Return a case's model of transformers, and ours with a tokenizer."""
    case = next(case for case in CASES if case.name == name)

    def config() -> Any:
        changed = case.config()
        for key, value in {"vocab_size": 260, **changes}.items():
            setattr(changed, key, value)
        return changed

    reference = Case(name, config).make(directory)
    lm = nextword.models.CausalLM.from_preset(directory, preprocessor=None)
    tokenizer = GPT2Tokenizer({token: id for id, token in enumerate(VOCABULARY)}, ["h e"])
    lm.preprocessor = type(lm).preprocessor_cls(tokenizer, add_start_token=False)
    return reference, lm


def tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    """Return the encoding and the numbers of every tensor of a GGUF file."""
    checkpoint: Any = open_checkpoint(resolve_preset(path))
    return {
        name: (checkpoint.encoding(name), checkpoint.tensor(name).tobytes())
        for name in checkpoint.tensor_names()
    }


@pytest.mark.parametrize("name", EXPORTED)
def test_llama_cpp_continues_as_transformers(name: str, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", exc_type=ImportError).llama_cpp
    reference, lm = made(name, tmp_path / "transformers", **EXPORTED[name])
    path, again = tmp_path / "model.gguf", tmp_path / "again.gguf"
    lm.export_to_gguf(path)
    prompt = torch.tensor([PROMPT])
    expected = reference.generate(prompt, max_new_tokens=16, do_sample=False)[0, len(PROMPT) :]
    with llama_cpp(path) as model:
        assert model.generate(PROMPT, 16) == expected.tolist()
    nextword.models.CausalLM.from_preset(path).export_to_gguf(again)
    assert again.read_bytes() == path.read_bytes()


def wide(directory: Path) -> Any:
    """Return a model whose rows, all but those of one matrix, have whole blocks."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
    return made("llama-tied", directory, **sizes)[1]


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"])
def test_what_was_stored_once_is_stored_again_without_loss(dtype: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    wide(tmp_path / "model").export_to_gguf(first, dtype=dtype)
    lm = nextword.models.CausalLM.from_preset(first, dtype="float32")
    lm.export_to_gguf(second, dtype=dtype)
    assert second.read_bytes() == first.read_bytes()
    assert {encoding for encoding, _ in tensors(first).values()} == {"F32", dtype.upper()}


@pytest.mark.parametrize("dtype", ["q8_0", "q4_0", "q4_1"])
def test_llama_cpp_predicts_as_we_do_from_blocks(dtype: str, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", exc_type=ImportError).llama_cpp
    wide(tmp_path / "model").export_to_gguf(tmp_path / "model.gguf", dtype=dtype)
    lm = nextword.models.CausalLM.from_preset(tmp_path / "model.gguf", preprocessor=None)
    text = np.random.default_rng(0).integers(1, 257, 60)
    logits = lm({"token_ids": text[None], "padding_mask": np.ones((1, 60), int)})
    ours = np.asarray(logits)[0].argmax(-1)
    with llama_cpp(tmp_path / "model.gguf") as model:
        theirs = [model.generate(text[: i + 1], 1)[0] for i in range(60)]
    assert np.mean(ours == theirs) >= 0.95


@pytest.mark.parametrize("dtype", ["q8_0", "q4_0", "q4_1"])
def test_matrices_in_blocks_are_not_rounded_again(dtype: str, tmp_path: Path) -> None:
    lm = wide(tmp_path / "model")
    lm.quantize(dtype)
    path = tmp_path / "model.gguf"
    lm.export_to_gguf(path)
    kernel = "blk.1.ffn_down.weight"
    layer = lm.backbone.transformer_layers[1].feed_forward.feed_forward_output
    matrix = layer.matrices[0]
    held = matrix.form.dequantize(matrix.merged_parts())[: matrix.shape[0]]
    assert tensors(path)[kernel] == (dtype.upper(), held.tobytes())
    lm.export_to_gguf(tmp_path / "floats.gguf", dtype="f32")
    assert tensors(tmp_path / "floats.gguf")[kernel] == ("F32", held.tobytes())


def test_what_lora_has_trained_is_merged(tmp_path: Path) -> None:
    lm = wide(tmp_path / "model")
    lm.backbone.enable_lora(2, ["value"], alpha=4)
    value = lm.backbone.transformer_layers[0].self_attention.value
    a, b = value.matrices[0].update.factors
    b.assign(np.random.default_rng(0).normal(size=b.shape))
    merged = np.asarray(value.kernel.variables["values"]) + 2 * np.asarray(b) @ np.asarray(a)
    lm.export_to_gguf(tmp_path / "model.gguf")
    checkpoint = open_checkpoint(resolve_preset(tmp_path / "model.gguf"))
    stored = checkpoint.tensor("blk.0.attn_v.weight")
    np.testing.assert_allclose(stored, merged, rtol=1e-6, atol=1e-6)


def test_rows_without_whole_blocks_are_halves(tmp_path: Path) -> None:
    _, lm = made("llama", tmp_path / "model")
    lm.export_to_gguf(tmp_path / "model.gguf", dtype="q8_0")
    encodings = {name: encoding for name, (encoding, _) in tensors(tmp_path / "model.gguf").items()}
    assert encodings["blk.0.ffn_down.weight"] == "F16"
    assert encodings["blk.0.ffn_up.weight"] == "Q8_0"
    assert encodings["blk.0.ffn_norm.weight"] == "F32"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("opt", "OPTBackbone: it has no architecture for the family"),
        ("gptj", "GPTJBackbone: it has no architecture"),
        ("mistral", "MistralBackbone: its architecture 'llama' cannot tell sliding_window=12"),
        ("llama-biases", "LlamaBackbone: .* cannot tell feed_forward_bias=True"),
        ("falcon-1b", "FalconBackbone: .*position_embedding='alibi'"),
        ("phi-head-norms-tied", "cannot tell query_key_norm='head', tie_word_embeddings=True"),
        ("qwen3-moe-dense-first-window", "'qwen3moe' cannot tell sliding_window=12.*experts="),
        ("cohere-head-norms-biases-untied", "'command-r' cannot tell .*tie_word_embeddings=False"),
    ],
)
def test_what_gguf_cannot_tell_is_named(name: str, message: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == name)
    case.make(tmp_path / "model")
    lm = nextword.models.CausalLM.from_preset(
        tmp_path / "model", preprocessor=None, load_weights=False
    )
    with pytest.raises(PresetError, match=message):
        lm.export_to_gguf(tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_an_unknown_dtype_is_an_error(tmp_path: Path) -> None:
    _, lm = made("llama", tmp_path / "model")
    with pytest.raises(ValueError, match=r"`dtype` must be one of .*'q8_0'.* Received: dtype='q5'"):
        lm.export_to_gguf(tmp_path / "model.gguf", dtype="q5")


def test_weights_too_large_for_the_dtype_leave_the_old_file(tmp_path: Path) -> None:
    _, lm = made("llama", tmp_path / "model")
    path = tmp_path / "model.gguf"
    lm.export_to_gguf(path)
    before = path.read_bytes()
    kernel = lm.backbone.transformer_layers[2].feed_forward.gate.kernel.variables["values"]
    kernel.assign(np.full(kernel.shape, 1e6))
    with pytest.raises(PresetError, match=r"In F16, the tensor 'blk\.2\.ffn_gate\.weight' must"):
        lm.export_to_gguf(path, dtype="f16")
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [tmp_path / "model", path]


def test_a_model_without_tokenizer(tmp_path: Path) -> None:
    _, lm = made("llama", tmp_path / "model")
    lm.preprocessor = None
    lm.export_to_gguf(tmp_path / "model.gguf")
    nextword.models.CausalLM.from_preset(tmp_path / "model.gguf", preprocessor=None)
    with pytest.raises(PresetError, match="must be of the kind 'gpt2'"):
        nextword.models.CausalLM.from_preset(tmp_path / "model.gguf")
