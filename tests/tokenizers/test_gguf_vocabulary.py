"""Tokenizers from GGUF files: the real one of SmolLM2, and ones that are damaged."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.errors import PresetError
from nextword.presets import open_checkpoint, resolve_preset
from nextword.tokenizers import BytePairTokenizer, load_tokenizer
from trained_tokenizers import byte_level_library, deterministic, gguf_data

VECTORS = json.loads(
    (Path(__file__).parents[1] / "data" / "smollm2_token_vectors.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def smollm2_tokenizer(smollm2_path):
    checkpoint = open_checkpoint(resolve_preset(smollm2_path))
    try:
        return load_tokenizer(checkpoint)
    finally:
        checkpoint.close()


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_smollm2_tokenizes_as_its_own_tokenizer_does(vector, smollm2_tokenizer):
    ids = smollm2_tokenizer.tokenize(vector["text"])
    assert ids == vector["hf_tokenizers_ids"]
    assert smollm2_tokenizer.detokenize(ids) == vector["text"]


def test_special_tokens_of_smollm2(smollm2_tokenizer):
    assert smollm2_tokenizer.vocabulary_size() == 49152
    assert smollm2_tokenizer.start_token_id == 1
    assert smollm2_tokenizer.end_token_id == smollm2_tokenizer.pad_token_id == 2
    assert smollm2_tokenizer.end_token_ids == (2, 0)
    assert smollm2_tokenizer.special_token_ids == set(range(17))
    assert not smollm2_tokenizer.add_start_token
    assert smollm2_tokenizer.token_to_id("<|im_start|>") == 1
    assert smollm2_tokenizer.tokenize("<repo_name>", parse_special=True) == [3]
    assert 3 not in smollm2_tokenizer.tokenize("<repo_name>")


def test_chat_of_smollm2(smollm2_tokenizer):
    ids = smollm2_tokenizer.encode_chat([{"role": "user", "content": "Hi"}])
    assert smollm2_tokenizer.detokenize(ids, skip_special_tokens=False) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [id for id in ids if id < 17] == [1, 2, 1, 2, 1]


@pytest.fixture(scope="module")
def library(training_text):
    return byte_level_library("qwen2", training_text)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "gpt-4o", "deepseek-v3", "llama-bpe"])
def test_a_gguf_file_gives_the_ids_of_the_tokenizer_json(pre, pairs, corpus):
    from_json, theirs = pairs[pre]
    from_gguf = BytePairTokenizer.from_gguf(gguf_data(theirs.backend_tokenizer, pre=pre))
    for parse_special in (True, False):
        rows = from_gguf.tokenize(corpus, parse_special=parse_special)
        assert from_gguf.detokenize(rows) == from_json.detokenize(rows)
        assert rows == from_json.tokenize(corpus, parse_special=parse_special)
    messages = [{"role": "user", "content": "<|im_end|> <think>"}]
    assert from_gguf.encode_chat(messages) == from_json.encode_chat(messages)
    assert from_gguf.special_token_ids == from_json.special_token_ids
    assert from_gguf.end_token_ids == from_json.end_token_ids


def test_words_that_are_tokens_stay_whole_where_the_name_says_so():
    tokens = ["a", "b", "c", "abc"]
    data = {"model": "gpt2", "tokens": tokens, "merges": []}

    def load(pre):
        keys = {f"tokenizer.ggml.{key}": value for key, value in {**data, "pre": pre}.items()}
        return BytePairTokenizer.from_gguf(keys)

    assert load("llama-bpe").tokenize("abc") == [3]
    assert load("gpt-2").tokenize("abc") == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"add_bos_token": True}, True),
        ({"add_bos_token": True, "bos_token_id": None}, False),
        ({"pre": "llama-bpe"}, True),
        ({"pre": "llama-bpe", "add_bos_token": False}, False),
    ],
)
def test_the_start_token_is_added_where_the_file_says_so(changes, expected, library):
    tokenizer = BytePairTokenizer.from_gguf(gguf_data(library, **changes))
    assert tokenizer.add_start_token is expected


def prefixed(changes):
    return {f"tokenizer.ggml.{key}": value for key, value in changes.items()}


def test_every_declared_end_token_ends_a_text(library):
    a, b = (library.token_to_id(letter) for letter in "ab")
    data = gguf_data(library, eot_token_id=a, eom_token_id=b)
    tokenizer = BytePairTokenizer.from_gguf(data)
    assert tokenizer.end_token_ids == (2, a, b, 0)
    # A token with a role is special, whatever the file calls it.
    assert {a, b} <= tokenizer.special_token_ids
    assert a not in tokenizer.tokenize("xay")


def test_end_of_a_message_is_not_the_end_of_an_answer_that_has_several():
    tokens = ["a", "<|end|>", "<|return|>", "<|call|>"]
    data = prefixed({"model": "gpt2", "pre": "gpt-4o", "tokens": tokens, "merges": []})
    types = {"tokenizer.ggml.token_type": [1, 3, 3, 3]}
    assert BytePairTokenizer.from_gguf(data | types).end_token_ids == (2, 3)
    assert BytePairTokenizer.from_gguf(data).end_token_ids == ()
    without = prefixed({"tokens": ["a", "<|end|>"], "token_type": [1, 3]})
    assert BytePairTokenizer.from_gguf(data | without).end_token_ids == (1,)


def test_files_without_optional_keys(library):
    data = gguf_data(library, token_type=None, padding_token_id=None)
    del data["tokenizer.chat_template"]
    tokenizer = BytePairTokenizer.from_gguf(data)
    assert tokenizer.chat_template is None
    assert tokenizer.pad_token_id is None
    assert tokenizer.special_token_ids == {1, 2}


def test_several_empty_tokens(library):
    tokens = [library.id_to_token(id) for id in range(library.get_vocab_size())]
    data = gguf_data(library, tokens=[*tokens, "", ""], token_type=None)
    tokenizer = BytePairTokenizer.from_gguf(data)
    assert tokenizer.vocabulary_size() == len(tokens) + 2
    assert tokenizer.tokenize("a") == [tokens.index("a")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "llama"}, "must be of the kind 'gpt2'.*'tokenizer.ggml.model' is 'llama'"),
        ({"model": None}, "must be of the kind 'gpt2'.*is None"),
        ({"pre": "smolm"}, "Received: 'smolm'. Did you mean 'smollm'"),
        ({"pre": None}, "does not say how text is split"),
        ({"tokens": None}, r"'tokenizer\.ggml\.tokens' of 'x' must be a list of strings"),
        ({"tokens": []}, "must be a list with the tokens"),
        ({"tokens": ["a", 3]}, "must be a list of strings"),
        ({"tokens": "abc"}, "must be a list of strings"),
        ({"tokens": ["a", "b", "a"]}, "has the same token twice"),
        ({"merges": None}, r"'tokenizer\.ggml\.merges' of 'x' must be a list of strings"),
        ({"merges": ["ab"]}, "two tokens and a space between. Received: 'ab'"),
        ({"merges": ["a b c"]}, "two tokens and a space between"),
        ({"merges": [" b"]}, "two tokens and a space between"),
        ({"merges": ["a nowhere"]}, "merges of .* must be of tokens .*nowhere"),
        ({"token_type": [3]}, "a list with the type of every token"),
        ({"token_type": 3}, "a list with the type of every token"),
        (
            {"bos_token_id": 602},
            "bos_token_id' of 'x' must be an id from 0 to 601. Received: '602'",
        ),
        ({"eos_token_id": -1}, "eos_token_id' of 'x' must be an id"),
        ({"eot_token_id": 2**63}, "eot_token_id' of 'x' must be an id"),
        ({"padding_token_id": 1.0}, "padding_token_id' of 'x' must be an id"),
        ({"unknown_token_id": True}, "unknown_token_id' of 'x' must be an id"),
        ({"add_bos_token": "yes"}, "add_bos_token' of 'x' must be true or false"),
    ],
)
def test_damaged_files_are_refused(changes, message, library):
    with pytest.raises(PresetError, match=message) as caught:
        BytePairTokenizer.from_gguf(gguf_data(library, **changes), name="x")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800


def test_a_chat_template_that_is_no_text_is_refused(library):
    with pytest.raises(PresetError, match="chat template must be a string"):
        BytePairTokenizer.from_gguf(gguf_data(library) | {"tokenizer.chat_template": 3})


letters = st.sampled_from(["a", "b", "ab", "ba", "<0x-1>", "", " ", "<s>", "é", "\x00", "Ġ"])
keys = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["gpt2", "gpt2", "gpt2", "llama", 3]),
        "pre": st.sampled_from(["gpt-2", "llama-bpe", "falcon", "x", None]),
        "tokens": st.lists(letters, max_size=8, unique=True),
        "token_type": st.one_of(st.none(), st.lists(st.integers(-1, 7), max_size=8)),
        "merges": st.lists(st.tuples(letters, letters).map(" ".join), max_size=4),
    },
    optional={
        "bos_token_id": st.integers(-1, 9),
        "eos_token_id": st.integers(-1, 9),
        "add_bos_token": st.sampled_from([True, False, 1]),
    },
)


@deterministic
@given(keys, st.text(alphabet="ab <s>é"))
def test_any_file_gives_a_tokenizer_or_one_error(changes, text):
    try:
        tokenizer = BytePairTokenizer.from_gguf(prefixed(changes))
    except PresetError:
        return
    ids = tokenizer.tokenize(text)
    assert all(0 <= id < tokenizer.vocabulary_size() for id in ids)
    assert not tokenizer.special_token_ids.intersection(ids)
    tokenizer.detokenize(ids)
    tokenizer.detokenize(range(tokenizer.vocabulary_size()), skip_special_tokens=False)
