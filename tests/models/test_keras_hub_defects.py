"""What is known to go wrong in KerasHub 0.32 goes right here, one test each.

Where there is an independent oracle, it is asked: transformers for tokens, the model's own logits
for what is generated.
"""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tokenizers import Tokenizer as Library
from tokenizers import models as library_models
from tokenizers import pre_tokenizers, trainers
from transformers import GPT2TokenizerFast, Qwen2TokenizerFast

import nextword
from nextword.samplers import BeamSampler, GreedySampler

END = "<|endoftext|>"
# Merged across lines and words, as only a tokenizer that does not split text first would.
TEXTS = ["Hello\n\nWorld", "\n\n", "if (a) {\n  b();\n}", "foo()\n    return x"]


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of a vocabulary and its merges, which cross every boundary between words."""
    library = Library(library_models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, initial_alphabet=alphabet, special_tokens=[END], show_progress=False
    )
    library.train_from_iterator(TEXTS * 3, trainer)
    model = json.loads(library.to_str())["model"]
    directory = tmp_path_factory.mktemp("vocabulary")
    (directory / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (directory / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    return directory / "vocab.json", directory / "merges.txt"


@pytest.fixture(scope="module")
def make_model(vocabulary: tuple[Path, Path]) -> Any:
    def make(dtype: str = "float32") -> Any:
        keras.utils.set_random_seed(0)
        tokenizer = nextword.models.GPT2Tokenizer(*map(str, vocabulary))
        backbone = nextword.models.GPT2Backbone(
            vocabulary_size=tokenizer.vocabulary_size(),
            num_layers=1,
            num_heads=2,
            hidden_dim=16,
            intermediate_dim=16,
            max_sequence_length=32,
            dtype=dtype,
        )
        preprocessor = nextword.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=16)
        lm = nextword.models.GPT2CausalLM(backbone, preprocessor)
        lm.compile(sampler="greedy")
        return lm

    return make


@pytest.fixture(scope="module")
def lm(make_model: Any) -> Any:
    return make_model()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (nextword.models.GPT2Tokenizer, GPT2TokenizerFast),
        (nextword.models.QwenTokenizer, Qwen2TokenizerFast),
    ],
)
def test_text_is_split_before_it_is_merged(
    vocabulary: tuple[Path, Path], ours: Any, theirs: Any
) -> None:
    files = tuple(map(str, vocabulary))
    expected = theirs(*files, unk_token=END, bos_token=END, eos_token=END, pad_token=END)
    tokenizer = ours(*files)
    unsplit = json.loads(vocabulary[0].read_text())
    assert "ĊĊ" in unsplit  # what would be taken otherwise
    for text in TEXTS:
        assert list(tokenizer.tokenize(text)) == expected(text)["input_ids"]
        assert tokenizer.detokenize(tokenizer.tokenize(text)) == text


# The entries of GPT-2's and Qwen's own vocabularies that these texts need, and those that a
# tokenizer takes that does not split text first.
REAL = {
    "GPT2Tokenizer": (
        {"H": 39, "W": 54, "d": 67, "e": 68, "l": 75, "o": 78, "r": 81, "Ċ": 198, "or": 273}
        | {"ll": 297, "ld": 335, "ĊĊ": 628, "ell": 695, "orld": 1764, "World": 10603}
        | {"ello": 11109, "Hello": 15496, "<|endoftext|>": 50256},
        ["o r", "l l", "l d", "Ċ Ċ", "e ll", "or ld", "W orld", "ell o", "H ello"],
        "Hello\n\nWorld",
        [15496, 198, 198, 10603],
    ),
    "QwenTokenizer": (
        {"(": 7, ")": 8, ";": 26, "a": 64, "b": 65, "f": 69, "i": 72, "{": 90, "}": 92}
        | {"Ċ": 198, "Ġ": 220, "ĠĠ": 256, ";Ċ": 280, "Ġb": 293, "Ġ{": 314, ");Ċ": 317}
        | {"Ġ(": 320, "if": 333, "Ġ{Ċ": 341, "();Ċ": 543, "<|endoftext|>": 151643},
        ["Ġ Ġ", "; Ċ", "Ġ b", "Ġ {", ") ;Ċ", "Ġ (", "i f", "Ġ{ Ċ", "( );Ċ"],
        "if (a) {\n  b();\n}",
        [333, 320, 64, 8, 341, 220, 293, 543, 92],
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_the_ids_of_the_real_vocabularies(name: str) -> None:
    vocabulary, merges, text, expected = REAL[name]
    tokenizer = getattr(nextword.models, name)(vocabulary, merges)
    assert list(tokenizer.tokenize(text)) == expected
    assert tokenizer.detokenize(expected) == text


def test_a_tied_llama_is_saved_and_loaded(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    backbone = nextword.models.Llama3Backbone(
        vocabulary_size=20,
        num_layers=1,
        num_query_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        num_key_value_heads=1,
        tie_word_embeddings=True,
    )
    backbone.save_to_preset(tmp_path / "preset")
    again = nextword.models.Backbone.from_preset(tmp_path / "preset")
    assert again.config.tie_word_embeddings
    for weight, expected in zip(again.weights, backbone.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(expected))


def test_no_start_token_where_none_is_wanted(lm: Any) -> None:
    text, tokenizer = "Hello", lm.preprocessor.tokenizer
    ids = list(tokenizer.tokenize(text))
    for add_start_token in (True, False):
        preprocessor = nextword.models.GPT2CausalLMPreprocessor(
            tokenizer, sequence_length=16, add_start_token=add_start_token, add_end_token=False
        )
        start = [tokenizer.start_token_id] if add_start_token else []
        prompt = preprocessor.generate_preprocess([text])
        sample, _, _ = preprocessor([text])
        for inputs in (prompt, sample):
            found = np.asarray(inputs["token_ids"])[0][np.asarray(inputs["padding_mask"])[0]]
            assert found.tolist() == start + ids


def test_a_stop_token_that_is_also_padding(lm: Any) -> None:
    prompt = np.array([[5, 6, 7, 0, 0, 0, 0, 0]])
    mask = prompt != 0
    model = nextword.models.GPT2CausalLM(lm.backbone)
    model.compile(sampler="greedy")
    free = model.generate({"token_ids": prompt, "padding_mask": mask}, stop_token_ids=None)
    assert 0 not in free["token_ids"][0, 3:]
    stopped = model.generate({"token_ids": prompt, "padding_mask": mask}, stop_token_ids=[0])
    np.testing.assert_array_equal(stopped["token_ids"], free["token_ids"])


def test_the_saved_dtype_is_kept(make_model: Any, tmp_path: Path) -> None:
    make_model("bfloat16").save_to_preset(tmp_path / "preset")
    for cls in (nextword.models.CausalLM, nextword.models.Backbone):
        assert {w.dtype for w in cls.from_preset(tmp_path / "preset").weights} == {"bfloat16"}
    wide = nextword.models.CausalLM.from_preset(tmp_path / "preset", dtype="float32")
    assert {weight.dtype for weight in wide.weights} == {"float32"}


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [({"load_weight": False}, "load_weights"), ({"sequence_len": 4}, "sequence_length")],
)
def test_misspelt_arguments(lm: Any, tmp_path: Path, arguments: dict[str, Any], hint: str) -> None:
    lm.save_to_preset(tmp_path / "preset")
    with pytest.raises(TypeError, match=f"{next(iter(arguments))}.*Did you mean '{hint}'"):
        nextword.models.CausalLM.from_preset(tmp_path / "preset", **arguments)
    with pytest.raises(TypeError, match="no argument 'foo_bar'"):
        nextword.models.GPT2Backbone(20, 1, 1, 8, 8, foo_bar=3)


def test_unknown_samplers() -> None:
    with pytest.raises(ValueError, match="Unknown sampler 'foo'"):
        nextword.samplers.get("foo")
    assert isinstance(nextword.samplers.get(GreedySampler), GreedySampler)


def test_quantize_straight_after_construction(make_model: Any) -> None:
    lm = make_model()
    lm.quantize("int8")
    assert "int8" in {weight.dtype for weight in lm.backbone.weights}
    assert lm.generate("Hello", max_length=12).startswith("Hello")


def test_all_beams_through_generate(make_model: Any) -> None:
    lm = make_model()
    lm.compile(sampler=BeamSampler(num_beams=3, return_all_beams=True))
    prompts = ["Hello", "foo()"]
    beams = lm.generate(prompts, max_length=10, stop_token_ids=None)
    assert [len(set(texts)) for texts in beams] == [3, 3]
    # The best first, by the log-probabilities that the model itself gives to the new tokens.
    for prompt, texts in zip(prompts, beams, strict=True):
        assert all(text.startswith(prompt) for text in texts)
    model = nextword.models.GPT2CausalLM(lm.backbone)
    model.compile(sampler=BeamSampler(num_beams=3, return_all_beams=True))
    start = lm.preprocessor.generate_preprocess(prompts, sequence_length=10)
    found = model.generate(start, stop_token_ids=None)["token_ids"]
    lengths = np.asarray(start["padding_mask"]).sum(-1)
    for rows, length in zip(found, lengths, strict=True):
        logits = np.asarray(
            model({"token_ids": rows, "padding_mask": np.ones_like(rows)}), "float64"
        )
        log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        chosen = np.take_along_axis(log_probabilities[:, :-1], rows[:, 1:, None], -1)[..., 0]
        scores = chosen[:, length - 1 :].sum(-1)
        assert (np.diff(scores) <= 1e-5).all()
