"""`nextword convert`: a model in another file format."""

from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

import nextword
from nextword.models.families.gpt2 import GPT2CausalLM, GPT2CausalLMPreprocessor, GPT2Tokenizer
from tiny_bert import classifier


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    """A small preset in KerasHub's format."""
    directory = tmp_path_factory.mktemp("presets") / "tiny"
    keras.utils.set_random_seed(0)
    backbone = nextword.models.GPT2Backbone(
        vocabulary_size=4, num_layers=1, num_heads=2, hidden_dim=32, intermediate_dim=64
    )
    vocabulary = {"<|endoftext|>": 0, "h": 1, "e": 2, "he": 3}
    tokenizer = GPT2Tokenizer(vocabulary, ["h e"])
    lm = GPT2CausalLM(backbone, GPT2CausalLMPreprocessor(tokenizer))
    lm.save_to_preset(directory)
    return directory


def kernel(path: Path) -> np.ndarray:
    lm = nextword.models.CausalLM.from_preset(path, dtype="float32")
    layer = lm.backbone.transformer_layers[0].feed_forward.intermediate
    return np.asarray(layer.kernel.variables["values"]).astype("float32")


def test_there_and_back_again(nextword_command, preset, tmp_path):
    file, back = tmp_path / "tiny.gguf", tmp_path / "back"
    result = nextword_command("convert", preset, file, "--to", "gguf")
    assert result.status == 0
    assert result.stdout == ""
    size = file.stat().st_size / 1e6
    assert f"tiny.gguf: {size:,.1f} MB, in " in result.stderr
    result = nextword_command("convert", file, back, "--to", "keras", "--quiet")
    assert (result.status, result.stdout, result.stderr) == (0, "", ""), result.exception
    np.testing.assert_array_equal(kernel(back), kernel(preset))


def test_dtypes(nextword_command, preset, tmp_path):
    file, halves = tmp_path / "tiny.gguf", tmp_path / "halves"
    assert nextword_command("convert", preset, file, "--to", "gguf", "--dtype", "q8_0").status == 0
    largest = np.abs(kernel(preset)).max()
    difference = np.abs(kernel(file) - kernel(preset)).max()
    # Half a step, and what the scale loses in float16.
    assert 0 < difference <= largest * (1 / 254 + 2**-11)
    arguments = (preset, halves, "--to", "keras", "--dtype", "float16")
    assert nextword_command("convert", *arguments).status == 0
    assert nextword.models.CausalLM.from_preset(halves).backbone.dtype_policy.name == "float16"


def test_to_transformers(nextword_command, preset, tmp_path):
    directory = tmp_path / "checkpoint"
    arguments = (preset, directory, "--to", "transformers", "--dtype", "float16")
    assert nextword_command("convert", *arguments).status == 0
    model = AutoModelForCausalLM.from_pretrained(directory)
    assert model.dtype == torch.float16
    stored = model.transformer.h[0].mlp.c_fc.weight.detach().float().numpy()
    np.testing.assert_array_equal(stored, kernel(preset).T.astype("float16"))


def test_a_classifier(nextword_command, tmp_path):
    model, preset, directory = classifier(), tmp_path / "preset", tmp_path / "checkpoint"
    model.save_to_preset(preset)
    assert nextword_command("convert", preset, directory, "--to", "transformers").status == 0
    theirs = AutoModelForSequenceClassification.from_pretrained(directory)
    kernel = theirs.bert.embeddings.word_embeddings.weight.detach().numpy()
    np.testing.assert_array_equal(
        kernel, model.backbone.token_embedding.embeddings.variables["values"]
    )
    result = nextword_command("convert", preset, tmp_path / "model.gguf", "--to", "gguf")
    assert result.status == 1
    assert "holds a BertTextClassifier, which is no CausalLM" in result.words
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.parametrize(
    ("target", "dtype", "known"),
    [
        ("gguf", "float16", "f32, f16, bf16, q8_0, q4_1, q4_0"),
        ("keras", "q8_0", "float32, bfloat"),
        ("transformers", "q8_0", "float32, bfloat"),
    ],
)
def test_a_dtype_of_another_format(nextword_command, preset, tmp_path, target, dtype, known):
    arguments = (preset, tmp_path / "out", "--to", target, "--dtype", dtype)
    result = nextword_command("convert", *arguments)
    assert result.status == 2
    assert known in result.words
    assert f"Received: {dtype}" in result.words
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_kept_unless_it_is_to_be_replaced(nextword_command, preset, tmp_path):
    file = tmp_path / "tiny.gguf"
    file.write_text("mine")
    result = nextword_command("convert", preset, file, "--to", "gguf")
    assert result.status == 2
    assert "is there already" in result.words
    assert file.read_text() == "mine"
    assert nextword_command("convert", preset, file, "--to", "gguf", "--overwrite").status == 0
    assert file.read_bytes()[:4] == b"GGUF"
    assert nextword_command("convert", preset, tmp_path, "--to", "gguf").status == 2
    result = nextword_command("convert", file, tmp_path, "--to", "keras")
    assert result.status == 1
    assert "must be new or empty" in result.stderr


def test_smollm2_in_blocks_of_8_bits(nextword_command, smollm2, smollm2_path, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp", exc_type=ImportError).llama_cpp
    file = tmp_path / "smollm2.gguf"
    arguments = (smollm2_path, file, "--to", "gguf", "--dtype", "q8_0")
    assert nextword_command("convert", *arguments).status == 0
    prompt = "The capital of France is"
    tokenizer = smollm2.preprocessor.tokenizer
    token_ids = tokenizer.tokenize(prompt)
    text = smollm2.generate(prompt, max_new_tokens=16)
    with llama_cpp(file) as model:
        assert model.tokenize(prompt) == token_ids
        continuation = model.generate(token_ids, 16)
        messages = [{"role": "user", "content": "Hi"}]
        chat = smollm2.preprocessor.tokenizer.encode_chat(messages)
        assert model.tokenize(model.apply_template(messages), parse_special=True) == chat
    assert tokenizer.detokenize(token_ids + continuation) == text
