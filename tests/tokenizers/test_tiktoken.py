"""Files in tiktoken's format, against the algorithm that their ranks stand for."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.errors import PresetError
from nextword.tokenizers import BytePairTokenizer, load_tokenizer, tiktoken_files
from nextword.tokenizers.tokenizer_config import TokenizerConfig
from trained_tokenizers import byte_level_library, checkpoint, deterministic, tiktoken_file

BYTES = [bytes([byte]) for byte in range(256)]
LETTERS = st.text(alphabet="abcd é", max_size=12)


def encode(ranks: dict[bytes, int], word: bytes) -> list[int]:
    """Return the ids of a word as tiktoken defines them: the lowest rank is joined first."""
    if word in ranks:
        return [ranks[word]]
    parts = [bytes([byte]) for byte in word]
    while True:
        joined = [ranks.get(left + right) for left, right in pairwise(parts)]
        found = [rank for rank in joined if rank is not None]
        if not found:
            return [ranks[part] for part in parts]
        at = joined.index(min(found))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def words(text: str) -> list[bytes]:
    """Split text of letters and spaces as GPT-2 does."""
    return [word.encode() for word in re.findall(r" ?[^ ]+| +(?![^ ])| +", text)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiktoken")


@deterministic
@given(data=st.data())
def test_ids_follow_from_the_ranks(directory: Path, data: st.DataObject) -> None:
    # As training makes them: every token is two that came before.
    tokens = list(BYTES)
    used = [b"a", b"b", b"c", b"d", b" "]
    for _ in range(data.draw(st.integers(0, 12))):
        token = data.draw(st.sampled_from(used)) + data.draw(st.sampled_from(used))
        if token not in tokens:
            tokens.append(token)
            used.append(token)
    path = directory / "a.tiktoken"
    path.write_bytes(tiktoken_file(tokens))
    ours = BytePairTokenizer.from_tiktoken(path, split="gpt-2")
    ranks = {token: rank for rank, token in enumerate(tokens)}
    for text in data.draw(st.lists(LETTERS, min_size=1, max_size=6)):
        assert ours.tokenize(text) == [id for word in words(text) for id in encode(ranks, word)]
        assert ours.detokenize(ours.tokenize(text)) == text


def test_a_trained_vocabulary_gives_the_same_ids(
    directory: Path, training_text: list[str], corpus: list[str]
) -> None:
    library = byte_level_library("gpt-2", training_text)
    ordinary = range(3, 600)
    spell = {c: b for b, c in tiktoken_files.byte_level_alphabet().items()}
    tokens = [bytes(spell[c] for c in library.id_to_token(id)) for id in ordinary]
    path = directory / "b.tiktoken"
    path.write_bytes(tiktoken_file(tokens))
    ours = BytePairTokenizer.from_tiktoken(path, split="gpt-2")
    texts = [text for text in corpus if "<" not in text]
    expected = [[id - 3 for id in library.encode(text).ids] for text in texts]
    assert ours.tokenize(texts) == expected


@pytest.mark.parametrize("filename", ["tokenizer.model", "tiktoken.model", "any.tiktoken"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_where_such_files_are_found(filename: str, end: str, tmp_path: Path) -> None:
    content = tiktoken_file([*BYTES, b"th", b"the"]).replace(b"\n", end.encode())
    (tmp_path / filename).write_bytes(content)
    (tmp_path / "tokenizer_config.json").write_text(
        '{"eos_token": "<|eot_id|>", "bos_token": "<|begin_of_text|>"}'
    )
    ours = load_tokenizer(checkpoint(tmp_path))
    assert isinstance(ours, BytePairTokenizer)
    assert ours.tokenize("the") == [257]
    assert (ours.start_token_id, ours.end_token_id, ours.end_token_ids) == (258, 259, (259,))
    assert ours.add_start_token  # as Llama 3's own code does
    assert ours.tokenize("<|eot_id|>", parse_special=True) == [259]


def test_the_class_says_how_text_is_split(tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(tiktoken_file([*BYTES, b"12", "é".encode()]))
    load = BytePairTokenizer.from_tiktoken
    assert load(path).tokenize("12") == [256]  # up to three digits are a word
    digits = load(path, TokenizerConfig(tokenizer_class="QWenTokenizer"))
    assert digits.tokenize("12e\u0301") == [ord("1"), ord("2"), 257]  # one digit; composed
    assert not digits.add_start_token
    with pytest.raises(PresetError, match="must be one of 'LlamaTokenizer'.*'OtherTokenizer'"):
        load(path, TokenizerConfig(tokenizer_class="OtherTokenizer"))


LINES = tiktoken_file(BYTES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must have a token for every byte"),
        (LINES[:-9], "must have a token for every byte|no token in base64"),
        (LINES + b"YWI 256\n", "line 257 is not base64"),
        (LINES + b"YWI= -1\n", "line 257 is no token in base64 and its rank"),
        (LINES + b"YWI= 1e3\n", "line 257 is no token"),
        (LINES + b"YWI=\n", "line 257 is no token"),
        (LINES + b"YWI= 256 7\n", "line 257 is no token"),
        (LINES + b"YWI= 9999999999\n", "line 257 is no token"),
        (LINES + b"YWI= 999999999\n", "must have ids from 0 to"),
        (LINES + b"YWI= 5\n", "two tokens have the same rank"),
        (LINES + b"YWI= 256\nYWI= 257\n", "line 258 has a token that came before"),
        (LINES + b"YW" * 700 + b" 256\n", "a token of 1050 bytes, not 1 to 512"),
        (LINES + b"= 256\n", "line 257 is no token"),
        (b"<!DOCTYPE html>", "it is an HTML page"),
        (b"\x80\x02x", "it is a Python pickle|line 1 is no token"),
    ],
)
def test_damaged_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(content)
    with pytest.raises(PresetError, match=message) as caught:
        BytePairTokenizer.from_tiktoken(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(LINES + b"\n" * 16 * 2**20)
    with pytest.raises(PresetError, match="at most 16,777,216 bytes"):
        BytePairTokenizer.from_tiktoken(path)
    path.write_bytes(tiktoken_file([*BYTES, *(b"a" * length for length in range(2, 100))]))
    monkeypatch.setattr(tiktoken_files, "_MAX_MERGES", 4000)
    with pytest.raises(PresetError, match="made of others in at most 4,000 ways"):
        BytePairTokenizer.from_tiktoken(path)


def test_a_file_of_sentencepiece_is_told_apart(tmp_path: Path) -> None:
    for content, expected in (
        (LINES, True),
        (b"\x0a\x0e\x0a\x05<unk>\x15\0\0\0\0\x18\x02", False),
        (b"", False),
        (b"x" * 5000, False),
    ):
        (tmp_path / "tokenizer.model").write_bytes(content)
        assert tiktoken_files.is_tiktoken_file(tmp_path / "tokenizer.model") is expected


def test_it_is_saved_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(tiktoken_file([*BYTES, b"th", b"the", b" the"]))
    ours: Any = BytePairTokenizer.from_tiktoken(path)
    ours.save_assets(tmp_path)
    again = BytePairTokenizer.from_assets(ours.get_config(), tmp_path)
    texts = ["the other the", "THE the\n\n 1234 é"]
    assert again.tokenize(texts) == ours.tokenize(texts)
