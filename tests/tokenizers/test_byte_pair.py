"""`BytePairTokenizer` against transformers, and with input it must refuse or survive."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from nextword.errors import PresetError
from nextword.tokenizers import BytePairTokenizer, load_tokenizer
from nextword.tokenizers.tokenizer_config import TokenizerConfig
from trained_tokenizers import byte_level_library, checkpoint, deterministic, save

BYTE_LEVEL = ["gpt-2", "smollm", "llama-bpe", "qwen2", "gpt-4o", "deepseek-v3"]
KINDS = [*BYTE_LEVEL, "byte-fallback"]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_those_of_transformers(kind, pairs, corpus):
    ours, theirs = pairs[kind]
    expected = theirs(corpus, add_special_tokens=False)["input_ids"]
    assert ours.tokenize(corpus, parse_special=True) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_text_are_text_by_default(kind, pairs, corpus):
    ours, theirs = pairs[kind]
    rows = ours.tokenize(corpus)
    expected = theirs(corpus, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert rows == expected
    # The unknown token of a vocabulary with letters it lacks is special and does occur.
    unknown = {ours.token_to_id("<unk>")} if kind == "byte-fallback" else set()
    assert not ours.special_token_ids & {id for row in rows for id in row} - unknown


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skip", [True, False])
def test_text_equals_that_of_transformers(kind, skip, pairs, corpus):
    ours, theirs = pairs[kind]
    for row in ours.tokenize(corpus, parse_special=True):
        expected = theirs.decode(row, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
        assert ours.detokenize(row, skip_special_tokens=skip) == expected


@pytest.mark.parametrize("kind", ["gpt-2", "smollm", "llama-bpe", "gpt-4o", "deepseek-v3"])
@deterministic
@given(text=st.text())
def test_text_survives_the_round_trip(kind, text, pairs):
    ours, _ = pairs[kind]
    assert ours.detokenize(ours.tokenize(text)) == text
    assert ours.detokenize(ours.tokenize(text, parse_special=True), skip_special_tokens=False) == (
        text
    )


@pytest.mark.parametrize("kind", KINDS)
@deterministic
@given(data=st.data())
def test_a_stream_joins_to_the_whole_text(kind, data, pairs):
    ours, _ = pairs[kind]
    ids = data.draw(st.lists(st.integers(0, ours.vocabulary_size() - 1)))
    decoder = ours.stream_decoder()
    pieces = []
    while ids_left := ids[sum(len(piece_ids) for piece_ids, _ in pieces) :]:
        taken = ids_left[: data.draw(st.integers(1, 4))]
        pieces.append((taken, decoder.push(taken)))
    text = "".join(piece for _, piece in pieces) + decoder.flush()
    assert text == ours.detokenize(ids)


def test_a_stream_never_shows_half_a_character(pairs):
    ours, _ = pairs["gpt-2"]
    text = "naïve 👩‍👩‍👧‍👦 नमस्ते 你好"
    decoder = ours.stream_decoder()
    pieces = [decoder.push(id) for id in ours.tokenize(text)]
    assert "" in pieces
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == text
    assert decoder.flush() == ""


def test_a_batch_gives_the_rows_that_its_texts_give(pairs, corpus):
    ours, _ = pairs["smollm"]
    rows = [ours.tokenize(text) for text in corpus]
    assert ours.tokenize(corpus) == rows
    assert ours.tokenize(tuple(corpus[:9])) == rows[:9]
    # numpy drops NUL from the end of a string.
    texts = [text for text in corpus if not text.endswith("\x00")]
    assert ours.tokenize(np.array(texts)) == ours.tokenize(texts)
    assert ours.tokenize(np.array(texts, dtype=object)) == ours.tokenize(texts)
    assert ours.tokenize(np.str_("hello")) == ours.tokenize("hello")
    assert ours.tokenize(np.array("hello")) == ours.tokenize("hello")


def test_empty_inputs(pairs):
    ours, _ = pairs["smollm"]
    assert ours.tokenize("") == []
    assert ours.tokenize([]) == []
    assert ours.tokenize([""]) == [[]]
    assert ours.detokenize([]) == ""
    assert ours.detokenize(np.zeros((0,), "int32")) == ""
    assert ours.detokenize([[], []]) == ["", ""]


@pytest.mark.parametrize(
    "inputs",
    [None, 3, b"bytes", ["text", None], ["text", 3], [["nested"]], {"a": "b"}, np.array([1, 2])],
)
def test_only_strings_are_tokenized(inputs, pairs):
    ours, _ = pairs["smollm"]
    with pytest.raises(TypeError, match=r"inputs must be .*Received: "):
        ours.tokenize(inputs)


def test_a_matrix_of_strings_is_refused(pairs):
    ours, _ = pairs["smollm"]
    with pytest.raises(TypeError, match=r"array of shape \[1, 2\]"):
        ours.tokenize(np.array([["a", "b"]]))


def test_lone_surrogates_are_refused(pairs):
    ours, _ = pairs["smollm"]
    with pytest.raises(ValueError, match=r"lone surrogates.*'\\udc80' at position 2"):
        ours.tokenize(["fine", "ab\udc80"])


@pytest.mark.parametrize("to_ids", [np.array, tuple, list, lambda ids: [np.int64(i) for i in ids]])
def test_ids_may_be_numpy(to_ids, pairs):
    ours, _ = pairs["smollm"]
    ids = ours.tokenize("numbers from numpy")
    assert ours.detokenize(to_ids(ids)) == "numbers from numpy"
    assert ours.detokenize([to_ids(ids), to_ids(ids[:2])]) == [
        "numbers from numpy",
        ours.detokenize(ids[:2]),
    ]
    assert ours.detokenize(np.array([ids, ids])) == ["numbers from numpy"] * 2


@pytest.mark.parametrize("id", [-1, 602 + 2, 2**70])
def test_ids_outside_the_vocabulary_are_named(id, pairs):
    ours, _ = pairs["smollm"]
    assert ours.vocabulary_size() == 602
    for call in (ours.detokenize, ours.stream_decoder().push):
        with pytest.raises(ValueError, match=f"from 0 to 601. Received: {id}"):
            call([1, id])
    with pytest.raises(ValueError, match="from 0 to 601"):
        ours.id_to_token(id)


@pytest.mark.parametrize("ids", [3, "text", None, [1.5], ["a"], [[1], 2], np.array([1.0])])
def test_only_integers_are_detokenized(ids, pairs):
    ours, _ = pairs["smollm"]
    with pytest.raises(TypeError, match="Received: "):
        ours.detokenize(ids)


def test_tokens_and_ids(pairs):
    ours, theirs = pairs["smollm"]
    for id in range(ours.vocabulary_size()):
        assert ours.id_to_token(id) == theirs.convert_ids_to_tokens(id)
        assert ours.token_to_id(ours.id_to_token(id)) == id
    with pytest.raises(ValueError, match=r"'<\|im_strat\|>'. Did you mean '<\|im_start\|>'"):
        ours.token_to_id("<|im_strat|>")


def test_roles(pairs):
    ours, _ = pairs["smollm"]
    assert (ours.start_token_id, ours.end_token_id, ours.pad_token_id) == (1, 2, 0)
    assert ours.special_token_ids == {0, 1, 2}
    assert ours.end_token_ids == (2, 0)
    assert not ours.add_start_token


def test_the_post_processor_says_whether_there_is_a_start_token(pairs):
    ours, _ = pairs["byte-fallback"]
    assert ours.add_start_token
    assert ours.start_token_id == 1
    assert 1 not in ours.tokenize("no start token here", parse_special=True)


def test_both_modes_at_once_from_many_threads(pairs, corpus):
    ours, _ = pairs["gpt-2"]
    expected = {mode: ours.tokenize(corpus, parse_special=mode) for mode in (True, False)}
    assert expected[True] != expected[False]

    def run(number: int) -> bool:
        mode = number % 2 == 0
        return [ours.tokenize(text, parse_special=mode) for text in corpus] == expected[mode]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(8)))


def tokenizer_json(tmp_path: Path, library, **changes) -> Path:
    """Write a tokenizer.json in which some sections are replaced."""
    data = json.loads(library.to_str())
    for section, value in changes.items():
        data[section] = value(data[section]) if callable(value) else value
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.fixture
def library(training_text):
    return byte_level_library("gpt-2", training_text, size=400)


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_added_tokens_with_flags_match_as_in_transformers(flag, library, tmp_path, corpus):
    library.add_tokens([AddedToken("end|>", **{flag: True}), AddedToken("you", **{flag: True})])
    library.add_special_tokens([AddedToken("<|tool|>", **{flag: True})])
    directory = save(library, tmp_path)
    ours, theirs = load_tokenizer(checkpoint(directory)), library
    texts = [*corpus, "young you", "a  <|tool|>  b", "a<|tool|>b", "x <|tool|>"]
    expected = [theirs.encode(text, add_special_tokens=False).ids for text in texts]
    assert ours.tokenize(texts, parse_special=True) == expected


def test_a_word_spelled_like_a_special_token_stays_a_word(library, tmp_path):
    library.model.ignore_merges = True

    def with_word(model):
        return {**model, "vocab": {**model["vocab"], "STOP": 402}}

    def with_token(tokens):
        return [*tokens, {"id": 402, "content": "STOP", "special": True}]

    path = tokenizer_json(tmp_path, library, model=with_word, added_tokens=with_token)
    ours = BytePairTokenizer.from_tokenizer_json(path)
    assert ours.tokenize("STOP", parse_special=True) == [402]
    ids = ours.tokenize("STOP it STOP")
    assert 402 not in ids
    assert ours.detokenize(ids) == "STOP it STOP"


def test_added_tokens_keep_the_ids_of_the_file(library, tmp_path):
    # The library itself numbers them anew, and gives some token another's id.
    def with_tokens(tokens):
        return [*tokens, {"id": 500, "content": "<|a|>", "special": True}]

    path = tokenizer_json(tmp_path, library, added_tokens=with_tokens)
    ours = BytePairTokenizer.from_tokenizer_json(path)
    assert ours.tokenize("<|a|>", parse_special=True) == [500]
    assert ours.vocabulary_size() == 501
    assert ours.detokenize([500, 450], skip_special_tokens=False) == "<|a|>"
    with pytest.raises(ValueError, match="Received: id=450, which is unused"):
        ours.id_to_token(450)


def test_settings_of_training_do_not_change_ids(library, tmp_path):
    text = "the license and the work " * 40
    expected = BytePairTokenizer.from_tokenizer_json(tokenizer_json(tmp_path, library))
    path = tokenizer_json(
        tmp_path,
        library,
        truncation={
            "direction": "Right",
            "max_length": 8,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        padding={
            "strategy": {"Fixed": 512},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        },
        model=lambda model: {**model, "dropout": 0.5},
    )
    ours = BytePairTokenizer.from_tokenizer_json(path)
    assert ours.tokenize(text) == expected.tokenize(text)


def test_byte_tokens_are_bytes_and_what_is_not_utf8_is_replaced(pairs):
    ours, _ = pairs["byte-fallback"]
    ids = [ours.token_to_id(f"<0x{byte:02X}>") for byte in "€é".encode()]
    assert ours.detokenize(ids) == "€é"
    assert ours.detokenize(ids[:2]) == "\ufffd"
    assert ours.detokenize(ours.tokenize("  two spaces")) == "  two spaces"


def test_a_long_word_takes_linear_time(pairs):
    ours, _ = pairs["smollm"]
    start = time.process_time()
    assert ours.detokenize(ours.tokenize("a" * 400_000)) == "a" * 400_000
    assert time.process_time() - start < 10


def test_a_pattern_that_backtracks_is_stopped(library, tmp_path):
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    path = tokenizer_json(
        tmp_path, library, pre_tokenizer={**split, "pattern": {"Regex": "(a|aa)+$c"}}
    )
    ours = BytePairTokenizer.from_tokenizer_json(path)
    start = time.process_time()
    with pytest.raises(PresetError, match="failed: .*retry-limit"):
        ours.tokenize("a" * 1_000)
    assert time.process_time() - start < 10


def broken(model=None, **sections):
    """Return changes to a tokenizer.json; `model` are changes to its model."""
    if model is not None:
        sections["model"] = lambda old: {**old, **model}
    return sections


TOKEN = {"id": 7, "content": "<x>", "special": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (broken(model={"merges": ["a b", "x"]}), "Merge 1 .* must be two tokens. Received: 'x'"),
        (broken(model={"merges": [["a", "b", "c"]]}), "Merge 0"),
        (broken(model={"merges": [[1, 2]]}), "Merge 0"),
        (broken(model={"merges": None}), "Merge 0"),
        (broken(model={"merges": ["Ġ nowhere"]}), "merges of .* must be of tokens .*nowhere"),
        (broken(model={"merges": ["Ġ Ġ", "~ ~"]}), "merges of .*'~' and '~'"),
        (broken(model={"vocab": {"a": 9, "b": 9}, "merges": []}), "have the same id"),
        ({**broken(model={"vocab": {}, "merges": []}), "added_tokens": []}, "must not be empty"),
        (broken(model={"vocab": {"a": -1}, "merges": []}), "must have ids from 0"),
        (broken(model={"vocab": {"a": 2**31}, "merges": []}), "must have ids from 0"),
        (broken(model={"vocab": {"a": 2**80}, "merges": []}), "must have ids from 0"),
        (broken(model={"vocab": {"a": "0"}, "merges": []}), "map every token to an integer"),
        (broken(model={"vocab": {"a": True}, "merges": []}), "map every token to an integer"),
        (broken(model={"vocab": ["a"], "merges": []}), "map every token to an integer"),
        (broken(model={"type": "Unigram"}), "must hold a model of the type 'BPE'.*'Unigram'"),
        (broken(model={"type": "WordPiece"}), "must hold a model of the type 'BPE'"),
        (broken(model={"byte_fallback": "yes"}), "'byte_fallback' .* must be of type bool"),
        (broken(model={"unk_token": "<nowhere>"}), "unknown token .* must be in its vocabulary"),
        ({"model": None}, "model in 'tokenizer.json' must be an object"),
        ({"model": lambda old: [old]}, "model in 'tokenizer.json' must be an object"),
        ({"decoder": None}, "decoder of a tokenizer.json must be ByteLevel"),
        ({"decoder": {"type": "WordPiece", "prefix": "##"}}, "Received: 'WordPiece'"),
        ({"decoder": {"type": "Sequence", "decoders": {}}}, "decoder of a tokenizer.json"),
        ({"decoder": {"type": "Sequence", "decoders": []}}, "decoder of a tokenizer.json"),
        ({"pre_tokenizer": {"type": "Nothing"}}, "pre_tokenizer in the tokenizer.json"),
        ({"pre_tokenizer": 3}, "pre_tokenizer in the tokenizer.json"),
        (
            {
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"Regex": "(" * 10_000},
                    "behavior": "Isolated",
                    "invert": False,
                }
            },
            "pre_tokenizer in the tokenizer.json",
        ),
        ({"normalizer": {"type": "Precompiled"}}, "normalizer in the tokenizer.json"),
        ({"added_tokens": {"a": 1}}, "added token .* must have an id and a content"),
        ({"added_tokens": ["a"]}, "added token .* must have an id and a content"),
        ({"added_tokens": [{**TOKEN, "id": "7"}]}, "must have an id and a content"),
        ({"added_tokens": [{**TOKEN, "content": ""}]}, "is empty or has another id"),
        ({"added_tokens": [TOKEN, {**TOKEN, "id": 8}]}, "is empty or has another id"),
        ({"added_tokens": [{**TOKEN, "id": 5}]}, "same id"),
        ({"added_tokens": [{**TOKEN, "id": -1}]}, "must have ids from 0"),
        ({"added_tokens": [{**TOKEN, "id": 2**40}]}, "must have ids from 0"),
        (
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [{"SpecialToken": {"id": "<nowhere>", "type_id": 0}}],
                }
            },
            "start token .* must be in its vocabulary. Received: '<nowhere>'",
        ),
    ],
)
def test_damaged_files_are_refused(changes, message, library, tmp_path):
    path = tokenizer_json(tmp_path, library, **changes)
    with pytest.raises(PresetError, match=message) as caught:
        BytePairTokenizer.from_tokenizer_json(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"<!doctype html><html></html>", b"\xff\xfe", b"[" * 200_000]
)
def test_files_that_are_not_json_are_refused(content, tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(PresetError, match=r"tokenizer\.json"):
        BytePairTokenizer.from_tokenizer_json(path)


def test_a_negative_byte_token_is_text(library, tmp_path):
    decoder = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    model = {"vocab": {"<0x-1>": 0, "<0x7g>": 1, "<0x41>": 2, "▁a": 3}, "merges": []}
    path = tokenizer_json(
        tmp_path,
        library,
        added_tokens=[],
        decoder={"type": "Sequence", "decoders": decoder},
        model=lambda old: {**old, **model, "byte_fallback": True},
    )
    ours = BytePairTokenizer.from_tokenizer_json(path)
    assert ours.detokenize([3, 0, 1, 2]) == " a<0x-1><0x7g>A"


def test_vocabulary_and_merges_without_other_files(library, tmp_path, corpus):
    library.model.save(str(tmp_path))
    files = (tmp_path / "vocab.json", tmp_path / "merges.txt")
    ours = BytePairTokenizer.from_vocabulary_and_merges(*files)
    from transformers import GPT2Tokenizer

    theirs = GPT2Tokenizer(vocab=str(files[0]), merges=str(files[1]))
    expected = theirs(corpus, add_special_tokens=False)["input_ids"]
    assert ours.tokenize(corpus, parse_special=True) == expected
    assert ours.start_token_id == ours.end_token_id == theirs.eos_token_id
    merges = files[1].read_text(encoding="utf-8")
    files[1].write_text(merges.replace("\n", "\r\n"), encoding="utf-8", newline="")
    again = BytePairTokenizer.from_vocabulary_and_merges(*files)
    assert again.tokenize(corpus) == ours.tokenize(corpus)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TokenizerConfig(tokenizer_class="BertTokenizer"), "Received: 'BertTokenizer'"),
        (
            TokenizerConfig(tokenizer_class="Qwen2Tokenizer", add_prefix_space=True),
            "add_prefix_space is supported only where",
        ),
    ],
)
def test_vocabulary_and_merges_of_other_kinds_are_refused(config, message, library, tmp_path):
    library.model.save(str(tmp_path))
    with pytest.raises(PresetError, match=message):
        BytePairTokenizer.from_vocabulary_and_merges(
            tmp_path / "vocab.json", tmp_path / "merges.txt", config
        )


@pytest.mark.parametrize("merges", ["#version: 0.2\na\n", "a b c\n", "a  b\n", "a nowhere\n"])
def test_damaged_merges_are_refused(merges, tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(PresetError, match="Merge 0|nowhere"):
        BytePairTokenizer.from_vocabulary_and_merges(
            tmp_path / "vocab.json", tmp_path / "merges.txt"
        )
