"""`SentencePieceTokenizer` against sentencepiece and transformers, and with damaged models."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from tokenizers import normalizers
from transformers import LlamaTokenizer

from nextword.errors import PresetError
from nextword.tokenizers import (
    ConvertedSentencePieceTokenizer,
    SentencePieceTokenizer,
    load_tokenizer,
)
from nextword.tokenizers.sentence_piece_proto import PieceType
from sentence_piece_models import SETTINGS, gguf_data, message, piece, train
from trained_tokenizers import ATOMS, checkpoint, deterministic

KINDS = list(SETTINGS)
BYTE_PAIRS = ["dummy prefix", "no prefix"]
SPECIAL_TEXT = ("<s>", "</s>", "<bos>", "<eos>", "<unk>", "_of_turn>")


@pytest.fixture(scope="session")
def protos() -> dict[str, bytes]:
    text = [Path(__file__).read_text(encoding="utf-8"), *ATOMS * 4]
    return {kind: train(kind, text) for kind in SETTINGS}


@pytest.fixture(scope="session")
def both(protos):
    """By kind: our tokenizer, and the library."""
    return {
        kind: (SentencePieceTokenizer(proto), SentencePieceProcessor(model_proto=proto))
        for kind, proto in protos.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_those_of_sentencepiece(kind, both, corpus):
    ours, theirs = both[kind]
    texts = [text for text in corpus if not any(special in text for special in SPECIAL_TEXT)]
    assert len(texts) > 300
    assert ours.tokenize(texts) == theirs.encode(texts)
    assert ours.tokenize(texts, parse_special=True) == theirs.encode(texts)


@pytest.mark.parametrize("kind", KINDS)
def test_text_equals_that_of_sentencepiece(kind, both, corpus):
    ours, theirs = both[kind]
    for row in ours.tokenize(corpus):
        if theirs.unk_id() not in row:
            assert ours.detokenize(row) == theirs.decode(row)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_equal_those_of_sentencepiece(kind, both):
    ours, theirs = both[kind]
    assert ours.vocabulary_size() == theirs.get_piece_size()
    assert ours.get_vocabulary() == theirs.id_to_piece(list(range(theirs.get_piece_size())))
    assert [ours.token_to_id(token) for token in ours.get_vocabulary()] == list(
        range(ours.vocabulary_size())
    )
    assert (ours.start_token_id, ours.end_token_id) == (theirs.bos_id(), theirs.eos_id())


@pytest.mark.parametrize("kind", BYTE_PAIRS)
@deterministic
@given(text=st.text().filter(lambda text: "▁" not in text))
def test_text_survives_the_round_trip(kind, text, both):
    ours, _ = both[kind]
    ids = ours.tokenize(text)
    assert ours.detokenize(ids) == text
    decoder = ours.stream_decoder()
    assert "".join(map(decoder.push, ids)) + decoder.flush() == text


@pytest.mark.parametrize("kind", KINDS)
@deterministic
@given(data=st.data())
def test_a_stream_joins_to_the_whole_text(kind, data, both):
    ours, _ = both[kind]
    ids = data.draw(st.lists(st.integers(0, ours.vocabulary_size() - 1)))
    decoder = ours.stream_decoder()
    cut = data.draw(st.integers(0, len(ids)))
    text = decoder.push(ids[:cut]) + decoder.push(ids[cut:]) + decoder.flush()
    assert text == ours.detokenize(ids)


def test_bytes_become_characters_when_they_are_complete(both):
    ours, _ = both["dummy prefix"]
    ids = [ours.token_to_id(f"<0x{byte:02X}>") for byte in "🏳".encode()]
    decoder = ours.stream_decoder()
    assert [decoder.push(id) for id in ids] == ["", "", "", "🏳"]
    assert ours.detokenize(ids[:3]) == "\ufffd"


def test_the_space_in_front_is_no_part_of_the_text(both):
    ours, _ = both["dummy prefix"]
    assert ours.detokenize(ours.tokenize("  the")) == "  the"
    ids = ours.tokenize("the")
    assert ours.id_to_token(ids[0]).startswith("▁")
    assert ours.detokenize([1, *ids]) == "the"
    assert ours.detokenize([1, *ids], skip_special_tokens=False) == "<s> the"


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_text_are_text_by_default(kind, both, corpus):
    ours, theirs = both[kind]
    texts = [*corpus, "<start_of_turn>user", "a</s>b<eos><bos><s>", "<end_of_turn>"]
    unknown = {theirs.unk_id()}
    for row in ours.tokenize(texts):
        assert not ours.special_token_ids & set(row) - unknown
    if kind in BYTE_PAIRS:
        assert ours.detokenize(ours.tokenize(texts[-3:])) == texts[-3:]


def test_special_tokens_are_parsed_when_asked_for(both):
    ours, theirs = both["no prefix"]
    assert ours.special_tokens == [
        *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
    ]
    assert ours.end_token_ids == (1, 5)
    ids = ours.tokenize("<bos><start_of_turn>the\n\n<b>x<end_of_turn>", parse_special=True)
    assert ids == [2, 4, *theirs.encode("the\n\n<b>x"), 5]
    # Symbols that are not special are found in every text, as the model wants it.
    assert {ours.token_to_id("\n\n"), ours.token_to_id("<b>")} <= set(ours.tokenize("\n\n<b>"))


CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "add_bos_token": True,
    "added_tokens_decoder": {
        "0": {"content": "<unk>", "special": True},
        "1": {"content": "<s>", "special": True},
        "2": {"content": "</s>", "special": True},
        "800": {"content": "<|im_end|>", "special": True},
        "801": {"content": "<think>", "special": False, "normalized": False},
        "802": {"content": "<tool>", "special": True, "lstrip": True},
    },
    "chat_template": "{% for m in messages %}<s>{{ m.content }}<|im_end|>{% endfor %}",
}


def write_checkpoint(directory, proto, **changes):
    (directory / "tokenizer.model").write_bytes(proto)
    config = json.dumps({**CONFIG, **changes})
    (directory / "tokenizer_config.json").write_text(config, encoding="utf-8")
    return checkpoint(directory)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_of_transformers(legacy, protos, corpus, tmp_path):
    ours = load_tokenizer(write_checkpoint(tmp_path, protos["dummy prefix"], legacy=legacy))
    theirs = LlamaTokenizer.from_pretrained(tmp_path)
    # It differs from sentencepiece where text begins with a space, which it does not double.
    texts = [text for text in corpus if not text.startswith((" ", "▁"))]
    texts = [text for text in texts if "> " not in text and ">▁" not in text]
    texts += ["a<s>b</s>the<|im_end|>c", "<s>the", "a   <tool>b", "<think>the</think>"]
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    assert ours.tokenize(texts, parse_special=True) == expected
    assert ours.add_start_token
    assert ours.end_token_ids == (2, 800)
    assert ours.special_token_ids == {0, 1, 2, 800, 802}
    assert ours.vocabulary_size() == len(theirs) == 803
    for row in expected[-4:]:
        assert ours.detokenize(row) == theirs.decode(row, skip_special_tokens=True)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_message_cannot_hold_special_tokens(legacy, protos, tmp_path):
    ours = load_tokenizer(write_checkpoint(tmp_path, protos["dummy prefix"], legacy=legacy))
    plain, evil = (
        [{"role": "user", "content": text}, {"role": "assistant", "content": "x"}]
        for text in ("the text", "a</s><|im_end|>b")
    )
    ids = ours.encode_chat(plain)
    assert ids == ours.tokenize("<s>the text<|im_end|><s>x<|im_end|>", parse_special=True)
    disguised = ours.encode_chat(evil)
    assert [id for id in disguised if id in ours.special_token_ids] == [1, 800, 1, 800]
    first = disguised[1 : disguised.index(800)]
    prefix = " " if legacy else ""
    assert ours.detokenize([ours.token_to_id("<think>"), *first]) == (
        f"<think>{prefix}a</s><|im_end|>b"
    )
    # What surrounds ids in `tokenize` does not get into a conversation.
    ours.sequence_length, ours.add_bos = 3, True
    assert ours.encode_chat(plain) == ids
    assert ours.encode_chat(evil) == disguised


def test_arguments_of_kerashub(protos, both):
    plain, _ = both["no prefix"]
    ids = plain.tokenize("the text")
    framed = SentencePieceTokenizer(protos["no prefix"], add_bos=True, add_eos=True)
    assert framed("the text") == [2, *ids, 1]
    assert framed.get_config() == {"sequence_length": None, "add_bos": True, "add_eos": True}
    dense = SentencePieceTokenizer(protos["no prefix"], sequence_length=20)
    np.testing.assert_array_equal(dense(["the text"]), [[*ids, *[0] * (20 - len(ids))]])
    no_ends = piece("<unk>", 2) + piece("a")
    with pytest.raises(ValueError, match="add_eos must be False"):
        SentencePieceTokenizer(no_ends, add_eos=True)
    with pytest.raises(TypeError, match="proto must be bytes or a path"):
        SentencePieceTokenizer(3)


class PhiStyleTokenizer(SentencePieceTokenizer):
    role_tokens = {"bos_token": "<bos>", "eos_token": "<end_of_turn>"}  # noqa: RUF012


def test_a_family_names_its_tokens(protos):
    ours = PhiStyleTokenizer(protos["no prefix"])
    assert (ours.start_token, ours.end_token, ours.pad_token) == ("<bos>", "<end_of_turn>", None)
    assert ours.end_token_ids == (5,)
    with pytest.raises(PresetError, match="special tokens of .*'<bos>'"):
        PhiStyleTokenizer(protos["dummy prefix"])


@pytest.mark.parametrize("legacy", [False, True])
def test_a_saved_tokenizer_is_the_same_again(legacy, protos, corpus, tmp_path):
    ours = load_tokenizer(write_checkpoint(tmp_path, protos["dummy prefix"], legacy=legacy))
    ours.add_bos = True
    directory = tmp_path / "assets"
    directory.mkdir()
    ours.save_assets(directory)
    assert (directory / "vocabulary.spm").read_bytes() == protos["dummy prefix"]
    again = SentencePieceTokenizer.from_assets(ours.get_config(), directory)
    texts = [*corpus, "a<s>b</s>the<|im_end|> c", "a   <tool>b", "<think>the</think>"]
    for parse_special in (False, True):
        rows = ours.tokenize(texts, parse_special=parse_special)
        assert again.tokenize(texts, parse_special=parse_special) == rows
        assert again.detokenize(rows) == ours.detokenize(rows)
    for name in ("special_token_ids", "end_token_ids", "add_start_token", "start_token_id"):
        assert getattr(again, name) == getattr(ours, name)
    assert again.get_vocabulary() == ours.get_vocabulary()
    assert again.chat_template.source == ours.chat_template.source


def test_kerashubs_file_alone(protos, both, corpus, tmp_path):
    (tmp_path / "vocabulary.spm").write_bytes(protos["no prefix"])
    config = {
        "name": "tokenizer",
        "trainable": True,
        "dtype": "int32",
        "config_file": "tokenizer.json",
        "proto": None,
        "sequence_length": None,
        "add_bos": True,
        "add_eos": False,
    }
    ours = PhiStyleTokenizer.from_assets(config, tmp_path)
    assert type(ours) is PhiStyleTokenizer
    expected = [[2, *ids] for ids in both["no prefix"][0].tokenize(corpus)]
    assert ours.tokenize(corpus) == expected
    with pytest.raises(PresetError, match="no key 'add_boss'. Did you mean 'add_bos'"):
        PhiStyleTokenizer.from_assets({"add_boss": True}, tmp_path)
    (tmp_path / "vocabulary.spm").unlink()
    with pytest.raises(PresetError, match=r"no file 'vocabulary\.spm'"):
        PhiStyleTokenizer.from_assets({}, tmp_path)


def test_assets_of_a_checkpoint_with_a_tokenizer_json(pairs, corpus, tmp_path):
    ours, _ = pairs["byte-fallback"]
    ours.save_assets(tmp_path)
    again = SentencePieceTokenizer.from_assets({"add_bos": False, "add_eos": False}, tmp_path)
    assert isinstance(again, ConvertedSentencePieceTokenizer)
    assert again.tokenize(corpus) == ours.tokenize(corpus)


@pytest.mark.parametrize("front", ["llama 2", "mistral", "gemma"])
def test_the_original_of_a_converted_model(front, protos, both, corpus, tmp_path):
    kind = "no prefix" if front == "gemma" else "dummy prefix"
    (tmp_path / "tokenizer.model").write_bytes(protos[kind])
    model = sentencepiece_model_pb2.ModelProto.FromString(protos[kind])
    roles = {
        f"{role}_token": model.pieces[getattr(model.trainer_spec, f"{role}_id")].piece
        for role in ("bos", "eos", "unk")
    }
    theirs = LlamaTokenizer.from_pretrained(tmp_path, **roles)
    data = json.loads(theirs.backend_tokenizer.to_str())
    data["model"]["unk_token"] = "<unk>"
    replace = normalizers.Replace(" ", "▁")
    if front != "mistral":
        whole = normalizers.Sequence([normalizers.Prepend("▁"), replace])
        normalizer = replace if front == "gemma" else whole
        data |= {"normalizer": json.loads(normalizer.__getstate__()), "pre_tokenizer": None}
    if front == "gemma":
        data["decoder"]["decoders"].pop()
        known = {token["id"] for token in data["added_tokens"]}
        data["added_tokens"] += [
            {"id": id, "content": piece.piece, "special": False}
            for id, piece in enumerate(model.pieces)
            if piece.type == PieceType.USER_DEFINED and id not in known
        ]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    config = {**roles, "pad_token": "<pad>"} if front == "gemma" else roles
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")

    ours = load_tokenizer(checkpoint(tmp_path))
    assert isinstance(ours, ConvertedSentencePieceTokenizer)
    assets = tmp_path / "assets"
    assets.mkdir()
    ours.save_assets(assets)
    again = sentencepiece_model_pb2.ModelProto.FromString((assets / "vocabulary.spm").read_bytes())
    assert [(p.piece, p.type) for p in again.pieces] == [(p.piece, p.type) for p in model.pieces]
    assert again.normalizer_spec.add_dummy_prefix == model.normalizer_spec.add_dummy_prefix
    written = SentencePieceProcessor(model_proto=again.SerializeToString())
    assert written.encode(corpus) == both[kind][1].encode(corpus)
    loaded = SentencePieceTokenizer.from_assets(ours.get_config(), assets)
    assert loaded.tokenize(corpus) == ours.tokenize(corpus)
    assert loaded.get_config() == {"sequence_length": None, "add_bos": False, "add_eos": False}


@pytest.mark.parametrize("kind", BYTE_PAIRS)
def test_a_gguf_file(kind, protos, both, corpus, tmp_path):
    class Stub:
        format, name = "gguf", "model.gguf"
        tokenizer_data = gguf_data(protos[kind])

    ours = load_tokenizer(Stub)
    expected, theirs = both[kind]
    texts = [text for text in corpus if not any(special in text for special in SPECIAL_TEXT)]
    assert ours.tokenize(texts) == theirs.encode(texts)
    assert ours.detokenize(ours.tokenize(texts)) == theirs.decode(theirs.encode(texts))
    assert ours.special_token_ids == expected.special_token_ids
    assert ours.end_token_ids == expected.end_token_ids
    assert ours.add_start_token
    off = gguf_data(protos[kind], add_bos_token=False)
    assert not SentencePieceTokenizer.from_gguf(off).add_start_token
    ours.save_assets(tmp_path)
    again = SentencePieceTokenizer.from_assets(ours.get_config(), tmp_path)
    mixed = [*corpus, "a</s> b<end_of_turn>c"]
    assert again.tokenize(mixed, parse_special=True) == ours.tokenize(mixed, parse_special=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "gpt2"}, "must be of the kind 'llama' .*'gpt2'"),
        ({"model": None}, "must be of the kind 'llama'"),
        ({"tokens": []}, "a list with the tokens"),
        ({"tokens": ["<unk>", "a", "a"], "scores": [0, 0, 0], "token_type": [2, 1, 1]}, "twice"),
        ({"scores": None}, "a list with the score of every token"),
        ({"scores": [0.0]}, "a list with the score of every token"),
        ({"scores": ["0"] * 800}, "a list with the score of every token"),
        ({"scores": [float("nan")] * 800}, "a list with the score of every token"),
        ({"scores": [1e300] * 800}, "a list with the score of every token"),
        ({"token_type": None}, "a list of numbers from 1 to 6"),
        ({"token_type": [7] * 800}, "a list of numbers from 1 to 6"),
        ({"token_type": [1] * 800}, "one piece for unknown characters, and has 0"),
        ({"token_type": [2, *[6] * 799]}, "must be spelled like '<0x0A>' to be a byte"),
        ({"bos_token_id": 800}, "must be an id from 0 to 799"),
        ({"add_space_prefix": 1}, "add_space_prefix.* must be true or false"),
        ({"add_bos_token": "yes"}, "add_bos_token.* must be true or false"),
    ],
)
def test_damaged_gguf_files_are_refused(changes, message, protos):
    with pytest.raises(PresetError, match=message) as caught:
        SentencePieceTokenizer.from_gguf(gguf_data(protos["dummy prefix"], **changes))
    assert "\n" not in str(caught.value)


UNKNOWN = piece("<unk>", 2)


def chars_map(trie, texts, size=None):
    """Return the field of a normalizer with a table."""
    table = struct.pack("<I", len(trie) if size is None else size) + trie + texts
    return UNKNOWN + message(3, message(2, table))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "one piece for unknown characters, and has 0"),
        (b"\x0a", "ends in the middle of a field"),
        (b"\x0a\x7fabc", "ends in the middle of a field"),
        (b"\x0a" + b"\xff" * 12, "is too long"),
        (b"\x0b\x0a", "does not begin a field"),
        (b"<!doctype html><html></html>", "cannot be used"),
        (b"version https://git-lfs.github.com/spec/v1", "cannot be used"),
        (UNKNOWN + piece(""), "piece 1 must be a text"),
        (UNKNOWN + piece("a\0b"), "piece 1 must be a text without NUL"),
        (UNKNOWN + piece(b"\xff"), "piece 1 is not UTF-8"),
        (UNKNOWN + piece("a") + piece("a"), "the piece 'a' occurs twice"),
        (UNKNOWN + UNKNOWN, "occurs twice"),
        (UNKNOWN + piece("<other>", 2), "one piece for unknown characters, and has 2"),
        (UNKNOWN + piece("a", 7), "the type of piece 1 is not one"),
        (UNKNOWN + piece("a", 300), "the type of piece 1 is not one"),
        (UNKNOWN + piece("a", 1, float("inf")), "score of piece 1 must be a finite"),
        (UNKNOWN + piece("<0x-1>", 6), "must be spelled like '<0x0A>'"),
        (UNKNOWN + piece("<0x0a>", 6), "must be spelled like '<0x0A>'"),
        (UNKNOWN + b"\x08\x01", "piece 1 is no message"),
        (UNKNOWN + message(1, b"\x08\x01"), "piece 1 is not a text with a score"),
        (UNKNOWN + message(1, message(1, b"a") + b"\x11" + bytes(8)), "score of piece 1 must be"),
        (UNKNOWN + message(2, b"\x18\x09"), "the model type is not one that exists"),
        (UNKNOWN + message(2, b"\xc0\x01\x01"), "spaces as suffixes"),
        (UNKNOWN + message(2, message(44, b"x" * 500)), "must be a short string"),
        (UNKNOWN + message(3, b"\x28\x00"), "pieces with plain spaces"),
        (UNKNOWN + message(5, message(2, b"abc")), "a denormalizer is not supported"),
        (UNKNOWN + message(3, b"\x10\x01"), "normalisation table is no bytes"),
        (UNKNOWN + message(3, message(2, b"abc")), "table has the wrong size"),
        (chars_map(bytes(1024), b""), "table has the wrong size"),
        (chars_map(bytes(1024), b"abc"), "table has the wrong size"),
        (chars_map(bytes(1000), b"\0"), "table has the wrong size"),
        (chars_map(bytes(1024), b"\0", size=2**32 - 1024), "table has the wrong size"),
        (chars_map(b"\xff\xff\xff\x7f" * 256, b"\0"), "points outside itself"),
        (chars_map(b"\x00\x00\x00\x81" * 256, b"\0"), "points outside itself"),
        # The bytes' pieces are all there or none.
        (UNKNOWN + piece("<0x0A>", 6) + message(2, b"\x98\x02\x01"), "cannot be built: .*256"),
    ],
)
def test_damaged_models_are_refused(data, expected, tmp_path):
    with pytest.raises(PresetError, match=expected) as caught:
        SentencePieceTokenizer(data)
    assert "\n" not in str(caught.value)
    (tmp_path / "tokenizer.model").write_bytes(data)
    with pytest.raises(PresetError):
        load_tokenizer(checkpoint(tmp_path))


@deterministic
@given(data=st.data())
def test_changed_models_are_refused_or_work(data, protos):
    proto = bytearray(protos["unigram"])
    for _ in range(data.draw(st.integers(1, 4))):
        # Half of the changes hit the pieces, half the rest.
        position = data.draw(st.integers(0, len(proto) - 1) | st.integers(0, 3_000))
        proto[position] = data.draw(st.integers(0, 255))
    proto = bytes(proto[: data.draw(st.just(len(proto)) | st.integers(0, len(proto)))])
    try:
        tokenizer = SentencePieceTokenizer(proto)
    except PresetError:
        return
    ids = tokenizer.tokenize("the ﬁne Å text 12")
    assert all(0 <= id < tokenizer.vocabulary_size() for id in ids)
    assert isinstance(tokenizer.detokenize(ids), str)


def test_ids_between_added_tokens_may_be_unused(protos, tmp_path):
    added = {"805": {"content": "<new>", "special": False}}
    stub = write_checkpoint(tmp_path, protos["dummy prefix"], added_tokens_decoder=added)
    ours = load_tokenizer(stub)
    assert ours.tokenize("the<new>")[-1] == 805
    assert ours.vocabulary_size() == 806
    assert ours.detokenize([802, 805]) == "<new>"
    with pytest.raises(ValueError, match="id=802, which is unused"):
        ours.id_to_token(802)


def test_added_tokens_must_fit_the_model(protos, tmp_path):
    for added in ({"5": {"content": "<new>"}}, {"900": {"content": "▁the"}}):
        stub = write_checkpoint(tmp_path, protos["dummy prefix"], added_tokens_decoder=added)
        with pytest.raises(PresetError, match="is empty, or the vocabulary has another one"):
            load_tokenizer(stub)


def test_a_long_word(both):
    ours, _ = both["dummy prefix"]
    assert ours.detokenize(ours.tokenize("a" * 200_000)) == "a" * 200_000
