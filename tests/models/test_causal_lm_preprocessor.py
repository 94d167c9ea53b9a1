"""`CausalLMPreprocessor` frames, cuts and pads as KerasHub's does, and says no where that errs."""

import json
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nextword
from nextword.presets import PresetError
from nextword.tokenizers import load_tokenizer
from trained_tokenizers import CHAT_ML, byte_level_library, checkpoint, save

WORDS = ["hello", "thequickbrownfoxjumpsoverthelazydog", "", "dog"]
END = "<|endoftext|>"


def make_tokenizer(directory: Path, **roles: Any) -> Any:
    save(byte_level_library("gpt-2", WORDS, size=280), directory, **roles)
    return load_tokenizer(checkpoint(directory))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """As GPT-2's: one token starts, ends and pads."""
    directory = tmp_path_factory.mktemp("tokenizer")
    return make_tokenizer(directory, bos_token=END, eos_token=END, pad_token=END)


@pytest.fixture(scope="module")
def kerashub_tokenizer(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    keras_hub = pytest.importorskip("keras_hub")
    directory = tmp_path_factory.mktemp("kerashub")
    tokenizer.save_assets(directory)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # KerasHub's own
        return keras_hub.tokenizers.GPT2Tokenizer(
            vocabulary=json.loads((directory / "vocabulary.json").read_text()),
            merges=(directory / "merges.txt").read_text().splitlines(),
        )


def preprocessor(tokenizer: Any, **settings: Any) -> Any:
    return nextword.models.CausalLMPreprocessor(tokenizer, **settings)


@pytest.mark.parametrize("add_start_token", [True, False])
@pytest.mark.parametrize("add_end_token", [True, False])
@pytest.mark.parametrize("sequence_length", [1, 2, 5, 40])
def test_training_samples_are_kerashub_s(
    tokenizer: Any,
    kerashub_tokenizer: Any,
    add_start_token: bool,
    add_end_token: bool,
    sequence_length: int,
) -> None:
    settings = {
        "sequence_length": sequence_length,
        "add_start_token": add_start_token,
        "add_end_token": add_end_token,
    }
    ours = preprocessor(tokenizer, **settings)(WORDS)
    import keras_hub

    theirs = keras_hub.models.GPT2CausalLMPreprocessor(kerashub_tokenizer, **settings)(WORDS)
    for found, expected in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        np.testing.assert_array_equal(found, np.asarray(expected))
    assert {a.shape for a in keras.tree.flatten(ours)} == {(4, sequence_length)}


def test_every_part_of_a_sample(tokenizer: Any) -> None:
    x, y, sample_weight = preprocessor(tokenizer, sequence_length=8)(["hello", WORDS[1]])
    ids = [tokenizer.tokenize(text) for text in ["hello", WORDS[1]]]
    end, short = tokenizer.end_token_id, [0, *ids[0], 0]
    length = len(short)
    assert (end, length < 8, len(ids[1]) > 8) == (0, True, True)
    assert x["token_ids"][0].tolist() == (short + [0] * 8)[:8]
    assert x["padding_mask"][0].tolist() == [i < length for i in range(8)]
    assert y[0].tolist() == (short[1:] + [0] * 8)[:8]
    assert sample_weight[0].tolist() == [i < length - 1 for i in range(8)]
    # Text that is too long is cut, and ends all the same.
    assert y[1].tolist() == [*ids[1][:7], end]
    assert sample_weight[1].all()
    assert [a.dtype.name for a in (x["token_ids"], y, sample_weight)] == ["int32", "int32", "bool"]


def test_one_text_and_several(tokenizer: Any) -> None:
    make = preprocessor(tokenizer, sequence_length=6)
    one, several = make("hello"), make(["hello"])
    for a, b in zip(keras.tree.flatten(one), keras.tree.flatten(several), strict=True):
        np.testing.assert_array_equal(a, b[0])
    called = make.call(np.array([b"hello"]), sequence_length=3)
    assert called[1].shape == (1, 3)
    prompt = make.generate_preprocess("hello")
    assert prompt["token_ids"].shape == (6,)
    assert make.generate_postprocess(prompt) == "hello"


@pytest.mark.parametrize("add_start_token", [True, False])
def test_generation(tokenizer: Any, add_start_token: bool) -> None:
    make = preprocessor(tokenizer, sequence_length=64, add_start_token=add_start_token)
    prompts = make.generate_preprocess(WORDS)
    start = [tokenizer.start_token_id] * add_start_token
    for row, mask, text in zip(prompts["token_ids"], prompts["padding_mask"], WORDS, strict=True):
        assert row[mask].tolist() == start + tokenizer.tokenize(text)
    assert make.tokenize_prompts(WORDS) == [start + tokenizer.tokenize(text) for text in WORDS]
    assert make.generate_postprocess(prompts) == WORDS
    with pytest.raises(ValueError, match="Prompt 1 has .* sequence_length=4"):
        make.generate_preprocess(WORDS, sequence_length=4)


def test_no_special_tokens(tmp_path: Path) -> None:
    make = preprocessor(make_tokenizer(tmp_path), sequence_length=40)
    x, _, sample_weight = make([*WORDS, "d"])
    assert x["padding_mask"][1].sum() == sample_weight[1].sum() + 1
    # Nothing predicts the only token of a text, nor anything in an empty one.
    assert sample_weight[[2, 4]].sum() == 0
    assert x["padding_mask"][[2, 4]].sum() == 1


@pytest.mark.parametrize("length", [0, -1, 2.5, "8", True, None])
def test_sequence_length_is_checked(tokenizer: Any, length: Any) -> None:
    with pytest.raises(ValueError, match=r"positive integer. Received"):
        preprocessor(tokenizer, sequence_length=length)
    make = preprocessor(tokenizer)
    with pytest.raises(ValueError, match=r"positive integer. Received"):
        make.sequence_length = length
    if length is not None:
        with pytest.raises(ValueError, match=r"positive integer. Received"):
            make(WORDS, sequence_length=length)
    assert make.sequence_length == 1024


def test_labels_of_the_user_s_own(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="`y` must be None.*preprocessor=None"):
        preprocessor(tokenizer)(WORDS, np.zeros(4))
    with pytest.raises(ValueError, match="`sample_weight` must be None"):
        preprocessor(tokenizer)(WORDS, sample_weight=np.zeros(4))


def test_config_round_trip(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path, eos_token="<|im_end|>", chat_template=CHAT_ML)
    original = nextword.models.GPT2CausalLMPreprocessor(
        tokenizer, sequence_length=7, add_start_token=False, add_end_token=True
    )
    # Through JSON, as Keras does, and without the files that the tokenizer came from.
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    for path in tmp_path.iterdir():
        path.unlink()
    assert stored["registered_name"] == "nextword>GPT2CausalLMPreprocessor"
    again = keras.saving.deserialize_keras_object(stored)
    assert type(again) is type(original)
    assert again.get_config() == original.get_config()
    assert again.sequence_length == 7
    assert (again.add_start_token, again.add_end_token) == (False, True)
    for a, b in zip(
        keras.tree.flatten(again(WORDS)), keras.tree.flatten(original(WORDS)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    message = [{"role": "user", "content": "hello"}]
    assert again.tokenizer.encode_chat(message) == tokenizer.encode_chat(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_name": "BytePairTokeniser"}, "known class.*Did you mean 'BytePairTokenizer'"),
        ({"class_name": "os.system"}, "known class"),
        ({"assets": {"../evil": ""}}, r"no file of this name. Received: '../evil'"),
        ({"assets": {"/etc/passwd": ""}}, "no file of this name"),
        ({"assets": {"tokenizer.json": "%"}}, "base64"),
        ({"assets": {"tokenizer.json": 3}}, "base64"),
        ({"assets": {"tokenizer.json": ""}}, "tokenizer.json"),
        ({"assets": []}, "must be objects"),
        ({"more": 1}, "must have the keys"),
    ],
)
def test_a_damaged_tokenizer_is_refused(tokenizer: Any, changes: Any, message: str) -> None:
    config = preprocessor(tokenizer).get_config()
    config["tokenizer"] |= changes
    with pytest.raises(PresetError, match=message):
        nextword.models.CausalLMPreprocessor.from_config(config)
