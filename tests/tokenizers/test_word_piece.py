"""`WordPieceTokenizer` against transformers' BertTokenizer."""

import json
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, BertTokenizer

from nextword.errors import PresetError
from nextword.tokenizers import WordPieceTokenizer, load_tokenizer
from trained_tokenizers import checkpoint, deterministic

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CONFIGS = {
    "uncased": {},
    "cased": {"do_lower_case": False},
    "accents": {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False},
}


@pytest.fixture(scope="session")
def words(training_text) -> list[str]:
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(lowercase=False)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=900, special_tokens=SPECIAL, limit_alphabet=150, show_progress=False
    )
    library.train_from_iterator(training_text, trainer)
    return [library.id_to_token(id) for id in range(library.get_vocab_size())]


@pytest.fixture(scope="session")
def both(words, tmp_path_factory):
    """By name in `CONFIGS`: directory, our tokenizer, transformers'."""
    found = {}
    for name, config in CONFIGS.items():
        directory = tmp_path_factory.mktemp("bert")
        (directory / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
        theirs = BertTokenizer.from_pretrained(directory)
        found[name] = (directory, load_tokenizer(checkpoint(directory)), theirs)
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_ids_and_text_equal_those_of_transformers(name, both, corpus):
    _, ours, theirs = both[name]
    texts = [*corpus, "He didn't say: 'wait', do not go! [MASK] I'm x" + "y" * 101]
    for parse_special in (False, True):
        rows = ours.tokenize(texts, parse_special=parse_special)
        assert (
            rows
            == (
                theirs(texts, add_special_tokens=False, split_special_tokens=not parse_special)[
                    "input_ids"
                ]
            )
        )
        for row in rows:
            if row and not ours.id_to_token(row[0]).startswith("##"):
                for skip in (True, False):
                    expected = theirs.decode(row, skip_special_tokens=skip)
                    assert ours.detokenize(row, skip_special_tokens=skip) == expected


@pytest.mark.parametrize("name", CONFIGS)
def test_a_tokenizer_json(name, both, corpus, tmp_path):
    _, ours, theirs = both[name]
    theirs.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").unlink(missing_ok=True)
    again = load_tokenizer(checkpoint(tmp_path))
    assert isinstance(again, WordPieceTokenizer)
    for parse_special in (False, True):
        expected = ours.tokenize(corpus, parse_special=parse_special)
        assert again.tokenize(corpus, parse_special=parse_special) == expected
    assert again.get_config() == ours.get_config()
    assert again.special_token_ids == ours.special_token_ids == {0, 1, 2, 3, 4}


def test_roles(both):
    _, ours, theirs = both["uncased"]
    assert (ours.start_token, ours.end_token, ours.pad_token) == ("[CLS]", "[SEP]", "[PAD]")
    assert ours.special_tokens == SPECIAL
    assert ours.vocabulary_size() == len(theirs)
    assert ours.get_vocabulary() == theirs.convert_ids_to_tokens(list(range(len(theirs))))
    assert ours.add_start_token


@deterministic
@given(data=st.data())
def test_a_stream_joins_to_the_whole_text(data, both):
    ours = both["uncased"][1]
    ids = data.draw(st.lists(st.integers(0, ours.vocabulary_size() - 1)))
    decoder = ours.stream_decoder()
    assert "".join(map(decoder.push, ids)) + decoder.flush() == ours.detokenize(ids)


@deterministic
@given(text=st.text())
def test_any_text_has_ids(text, both):
    ours = both["cased"][1]
    assert not {0, 2, 3, 4} & set(ours.tokenize(text))


VOCABULARY = [
    *SPECIAL,
    "the",
    "The",
    "qu",
    "##ick",
    "é",
    "e",
    "中",
    "国",
    "中国",
    ".",
    "<tag>",
    "x",
]


def test_arguments_of_kerashub(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_text("".join(f"{token}\n" for token in VOCABULARY), encoding="utf-8")
    for vocabulary in (VOCABULARY, path, str(path)):
        ours = WordPieceTokenizer(vocabulary)
        assert ours("The quick é.") == [6, 7, 8, 9, 14]
    assert WordPieceTokenizer(VOCABULARY, lowercase=True)("The é") == [5, 9]
    assert WordPieceTokenizer(VOCABULARY, lowercase=True, strip_accents=True)("É") == [10]
    assert WordPieceTokenizer(VOCABULARY)("中国") == [11, 12]
    assert WordPieceTokenizer(VOCABULARY, split_on_cjk=False)("中国") == [13]
    assert WordPieceTokenizer(VOCABULARY, split=False)(["quick", "the x"]) == [[7, 8], [1]]
    other = [*VOCABULARY, "@@x"]
    assert WordPieceTokenizer(other, suffix_indicator="@@")("ex") == [10, 17]
    assert WordPieceTokenizer(VOCABULARY, oov_token="x")("zzz") == [16]
    dense = WordPieceTokenizer(VOCABULARY, sequence_length=3)
    np.testing.assert_array_equal(dense(["the", "the the the the"]), [[5, 0, 0], [5, 5, 5]])

    text = "[MASK] <tag>"
    assert WordPieceTokenizer(VOCABULARY)(text) == [1] * 6
    assert WordPieceTokenizer(VOCABULARY, special_tokens=["<tag>"])(text, parse_special=True) == [
        *(4, 15)
    ]
    always = WordPieceTokenizer(
        VOCABULARY, special_tokens=["<tag>"], special_tokens_in_strings=True
    )
    assert always(text) == [4, 15]
    assert always.encode([text]) == [[1] * 6]


class FamilyTokenizer(WordPieceTokenizer):
    role_tokens: ClassVar = {"bos_token": "<tag>", "pad_token": "x"}


def test_saved_and_loaded(corpus, words, tmp_path):
    ours = FamilyTokenizer([*words, "<tag>", "x" * 3], lowercase=True, special_tokens=["[MASK]"])
    assert (ours.start_token, ours.end_token, ours.pad_token) == ("<tag>", None, "x")
    ours.sequence_length = 9
    ours.special_tokens_in_strings = True
    ours.save_assets(tmp_path)
    config = {**ours.get_config(), "vocabulary": None, "name": "bert", "dtype": "int32"}
    assert set(ours.get_config()) == set(FamilyTokenizer.config_keys)
    again = FamilyTokenizer.from_assets(config, tmp_path)
    for name in FamilyTokenizer.own_asset_files:
        (tmp_path / name).unlink(missing_ok=True)
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary.txt"]
    alone = FamilyTokenizer.from_assets(config, tmp_path)
    expected = ours.tokenize(corpus)
    for tokenizer in (again, alone):
        np.testing.assert_array_equal(tokenizer.tokenize(corpus), expected)
        assert tokenizer.get_config() == ours.get_config()
        assert tokenizer.special_token_ids == ours.special_token_ids
        assert tokenizer.pad_token_id == ours.pad_token_id
        assert tokenizer.get_vocabulary() == ours.get_vocabulary()


@pytest.mark.parametrize(
    ("vocabulary", "changes", "message"),
    [
        (["[UNK]", "a", "a"], {}, "must be a list of tokens, each once"),
        (["[UNK]", ""], {}, "must be a list of tokens, each once"),
        (["[UNK]", 3], {}, "must be a list of tokens, each once"),
        ([], {}, "must be a list of tokens, each once"),
        (3, {}, "must be a list of tokens"),
        (["a"], {}, r"special tokens of .*'\[UNK\]'"),
        (["a"], {"oov_token": "b"}, "special tokens of .*'b'"),
        (["[UNK]"], {"special_tokens": ["<x>"]}, "special tokens of .*'<x>'"),
    ],
)
def test_vocabularies_that_do_not_fit_are_refused(vocabulary, changes, message):
    with pytest.raises(PresetError, match=message):
        WordPieceTokenizer(vocabulary, **changes)


@pytest.mark.parametrize("content", [b"", b"[UNK]\n\n", b"[UNK]\na\na\n", b"\xff", b"a\nb\n"])
def test_damaged_files_are_refused(content, tmp_path):
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(PresetError):
        load_tokenizer(checkpoint(tmp_path))


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_reads_what_is_exported(name, both, corpus, tmp_path):
    _, ours, theirs = both[name]
    ours.save_for_transformers(tmp_path, add_start_token=False)
    exported = AutoTokenizer.from_pretrained(tmp_path)
    texts = {"add_special_tokens": False, "split_special_tokens": True, "text": corpus}
    assert exported(**texts)["input_ids"] == theirs(**texts)["input_ids"]
