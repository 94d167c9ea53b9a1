"""Tokenizers survive being saved; KerasHub's own files suffice to make one."""

import json
from typing import ClassVar

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

from nextword.errors import PresetError
from nextword.tokenizers import BytePairTokenizer, Qwen3Tokenizer, load_tokenizer
from nextword.tokenizers.unigram import UnigramTokenizer
from trained_tokenizers import CHAT_ML, byte_level_library, checkpoint, save

KINDS = ["gpt-2", "smollm", "llama-bpe", "qwen2", "gpt-4o", "deepseek-v3", "byte-fallback"]


def assert_equal(first, second, corpus):
    """Assert that two tokenizers do the same in every respect."""
    for parse_special in (False, True):
        rows = first.tokenize(corpus, parse_special=parse_special)
        assert second.tokenize(corpus, parse_special=parse_special) == rows
        assert second.detokenize(rows) == first.detokenize(rows)
        assert second.detokenize(rows, skip_special_tokens=False) == first.detokenize(
            rows, skip_special_tokens=False
        )
    assert second.get_vocabulary() == first.get_vocabulary()
    assert second.special_token_ids == first.special_token_ids
    assert second.end_token_ids == first.end_token_ids
    assert second.add_start_token == first.add_start_token
    for role in ("start", "end", "pad"):
        for name in (f"{role}_token", f"{role}_token_id"):
            assert getattr(second, name) == getattr(first, name)
    templates = [t.chat_template and t.chat_template.source for t in (first, second)]
    assert templates[0] == templates[1]
    assert second.get_config() == first.get_config()


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_the_same_again(kind, pairs, corpus, tmp_path):
    ours, theirs = pairs[kind]
    ours.save_assets(tmp_path)
    again = type(ours).from_assets(ours.get_config(), tmp_path)
    assert type(again) is type(ours)
    assert_equal(ours, again, corpus)
    # What is beside KerasHub's files is a tokenizer of transformers.
    saved = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    texts = corpus[:300]
    assert saved(texts)["input_ids"] == theirs(texts)["input_ids"]
    written = {path.name for path in tmp_path.iterdir()}
    kerashub = {"vocabulary.json", "merges.txt"} if kind != "byte-fallback" else set()
    assert written - set(ours.own_asset_files) == kerashub


def test_every_setting_of_a_checkpoint_is_saved(training_text, corpus, tmp_path):
    library = byte_level_library("gpt-2", training_text, size=400)
    library.add_tokens([AddedToken("<tool>", lstrip=True, single_word=True)])
    save(library, tmp_path, eos_token="<|im_end|>", bos_token="<|endoftext|>")
    (tmp_path / "chat_template.jinja").write_text(CHAT_ML + "\r\n", newline="")
    ours = load_tokenizer(checkpoint(tmp_path, {"eos_token_id": [5, 2]}))
    ours.add_start_token = True
    ours.sequence_length = 7
    directory = tmp_path / "assets"
    directory.mkdir()
    ours.save_assets(directory)
    again = BytePairTokenizer.from_assets(ours.get_config(), directory)
    assert again.end_token_ids == ours.end_token_ids == (2, 5, 0)
    assert again.sequence_length == 7
    ours.sequence_length = again.sequence_length = None
    assert_equal(ours, again, [*corpus, "a <tool> b", "a<tool>"])
    # Saved again without a template, none is left.
    ours.chat_template = None
    ours.save_assets(directory)
    assert BytePairTokenizer.from_assets({}, directory).chat_template is None


def test_kerashubs_files_alone(pairs, corpus, tmp_path):
    ours, _ = pairs["qwen2"]
    ours.save_assets(tmp_path)
    for name in ours.own_asset_files:
        (tmp_path / name).unlink()
    # The vocabulary maps every token, added ones too; KerasHub reads both files line by line.
    vocabulary = json.loads((tmp_path / "vocabulary.json").read_text(encoding="utf-8"))
    assert vocabulary == {token: ours.token_to_id(token) for token in ours.get_vocabulary()}
    merges = (tmp_path / "merges.txt").read_text(encoding="utf-8").splitlines()
    assert all(left + right in vocabulary for left, right in map(str.split, merges))

    config = {
        "name": "tokenizer",
        "trainable": True,
        "dtype": {"class_name": "DTypePolicy", "config": {"name": "int32"}},
        "config_file": "tokenizer.json",
        "sequence_length": None,
        "add_prefix_space": False,
        "unsplittable_tokens": ["<|im_end|>", "<|endoftext|>"],
    }
    again = Qwen3Tokenizer.from_assets(config, tmp_path)
    assert type(again) is Qwen3Tokenizer
    texts = [text for text in corpus if "think>" not in text]  # not special, so not known
    for parse_special in (False, True):
        expected = ours.tokenize(texts, parse_special=parse_special)
        assert again.tokenize(texts, parse_special=parse_special) == expected
    assert again.special_token_ids == ours.special_token_ids
    assert (again.end_token_id, again.pad_token_id, again.start_token_id) == (2, 0, None)
    assert again.end_token_ids == (2, 0)
    assert again.get_config()["unsplittable_tokens"] == ["<|im_end|>", "<|endoftext|>"]


@pytest.mark.parametrize("as_files", [False, True])
def test_the_constructor_takes_data_or_files(as_files, training_text, corpus, tmp_path):
    library = byte_level_library("gpt-2", training_text)
    library.model.save(str(tmp_path))
    files = (tmp_path / "vocab.json", tmp_path / "merges.txt")
    vocabulary = json.loads(files[0].read_text(encoding="utf-8"))
    merges = files[1].read_text(encoding="utf-8").splitlines()
    data = [str(path) for path in files] if as_files else [vocabulary, merges]
    ours = BytePairTokenizer(*data, sequence_length=None, unsplittable_tokens=["<|endoftext|>"])
    texts = [text for text in corpus if "<|im_" not in text]
    theirs = GPT2Tokenizer(vocab=str(files[0]), merges=str(files[1]))
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    assert ours.tokenize(texts, parse_special=True) == expected
    assert ours(texts, parse_special=True) == expected
    assert ours.special_tokens == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

    prefixed = BytePairTokenizer(*data, add_prefix_space=True)
    theirs = GPT2Tokenizer(vocab=str(files[0]), merges=str(files[1]), add_prefix_space=True)
    texts = ["hello", " world", "", "\nx"]
    assert prefixed.tokenize(texts) == theirs(texts, add_special_tokens=False)["input_ids"]
    assert prefixed.get_config()["add_prefix_space"] is True


def test_text_is_split_as_the_family_does():
    # What KerasHub gets wrong: it joins "\n" across what a pre-tokenizer keeps apart.
    vocabulary = {"Ċ": 0, "ĊĊ": 1, "W": 2, "Ġ": 3, "ĠW": 4}
    merges = ["Ċ Ċ", "Ġ W"]
    assert BytePairTokenizer(vocabulary, merges).tokenize("\n\nW") == [0, 0, 2]
    assert BytePairTokenizer(vocabulary, merges, split="qwen2").tokenize("\n\nW") == [1, 2]


def test_rows_of_one_length():
    vocabulary = {"a": 0, "b": 1, "<pad>": 2}

    class Padded(BytePairTokenizer):
        role_tokens: ClassVar = {"pad_token": "<pad>"}

    tokenizer = Padded(vocabulary, [], sequence_length=3)
    ids = tokenizer(["ab", "abab", ""])
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids, [[0, 1, 2], [0, 1, 0], [2, 2, 2]])
    np.testing.assert_array_equal(tokenizer.tokenize("b"), [1, 2, 2])
    assert BytePairTokenizer(vocabulary, [], sequence_length=3)("b").tolist() == [1, 0, 0]
    assert BytePairTokenizer(vocabulary, [], 2)([]).shape == (0, 2)
    for value in (0, -1, True, 1.5, "3"):
        with pytest.raises(ValueError, match="sequence_length must be a positive integer"):
            tokenizer.sequence_length = value


@pytest.mark.parametrize("merges", [3, ["ab"], ["a c"], [1], ["a a"]])
def test_merges_that_do_not_fit_are_refused(merges):
    with pytest.raises(PresetError, match="[Mm]erge"):
        BytePairTokenizer({"a": 0, "b": 1}, merges)


@pytest.mark.parametrize("vocabulary", [None, ["a"], {"a": "b"}, {"a": -1}, {}, {1: 1}])
def test_vocabularies_that_do_not_fit_are_refused(vocabulary):
    with pytest.raises(PresetError, match="vocabulary of"):
        BytePairTokenizer(vocabulary, [])


def test_special_tokens_must_be_in_the_vocabulary():
    with pytest.raises(PresetError, match=r"special tokens of .*'<\|im_end\|>'"):
        Qwen3Tokenizer({"a": 0}, [])
    with pytest.raises(PresetError, match="special tokens of .*'<x>'"):
        BytePairTokenizer({"a": 0}, [], unsplittable_tokens=["<x>"])
    with pytest.raises(PresetError, match="Received: 'qwen3'. Did you mean 'qwen"):
        BytePairTokenizer({"a": 0}, [], split="qwen3")


def test_stored_configurations_that_are_not_known_are_refused(pairs, tmp_path):
    pairs["gpt-2"][0].save_assets(tmp_path)
    with pytest.raises(PresetError, match="no key 'sequence_lenght'. Did you mean 'sequence_len"):
        BytePairTokenizer.from_assets({"sequence_lenght": 3}, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(PresetError, match=r"merges\.txt"):
        BytePairTokenizer.from_assets({}, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sequence_length", 2**40),
        ("sequence_length", 0),
        ("sequence_length", "7"),
        ("add_prefix_space", 1),
        ("unsplittable_tokens", "<|im_end|>"),
        ("unsplittable_tokens", [["<|im_end|>"]]),
    ],
)
def test_stored_configurations_with_other_values_are_refused(key, value, pairs, tmp_path):
    pairs["gpt-2"][0].save_assets(tmp_path)
    with pytest.raises(PresetError, match=f"must have another value for '{key}'"):
        BytePairTokenizer.from_assets({key: value}, tmp_path)


@pytest.mark.parametrize("directory", ["empty", "absent"])
def test_a_tokenizer_that_is_one_file_says_which_it_lacks(tmp_path, directory):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PresetError, match=r"has no tokenizer\.json.*UnigramTokenizer"):
        UnigramTokenizer.from_assets({}, tmp_path / directory)
