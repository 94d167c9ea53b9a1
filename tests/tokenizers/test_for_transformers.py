"""Tokenizers as `save_for_transformers` writes them, read by transformers' AutoTokenizer."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from nextword.errors import PresetError
from nextword.tokenizers import BytePairTokenizer, SentencePieceTokenizer, load_tokenizer
from sentence_piece_models import train
from trained_tokenizers import ATOMS, CHAT_ML, checkpoint

SENTENCE_PIECES = ("dummy prefix", "no prefix", "unigram", "unigram with bytes")


@pytest.fixture(scope="module")
def protos() -> dict[str, bytes]:
    license = Path(__file__).parents[2] / "LICENSE"
    text = [license.read_text(encoding="utf-8"), *ATOMS * 4]
    return {kind: train(kind, text) for kind in (*SENTENCE_PIECES, "word")}


def exported(tokenizer: Any, directory: Path, *, add_start_token: bool = False) -> Any:
    """Return a tokenizer as transformers reads it from what was written."""
    tokenizer.save_for_transformers(directory, add_start_token=add_start_token)
    return AutoTokenizer.from_pretrained(directory)


def assert_equal(ours: Any, theirs: Any, texts: list[str], *, ties: int = 0) -> None:
    """Check that both give the same ids and texts; `ties` texts may be split in another order."""
    ids = ours.tokenize(texts, parse_special=True)
    found = theirs(texts, add_special_tokens=False)["input_ids"]
    assert list(map(sorted, found)) == list(map(sorted, ids))
    assert sum(one != other for one, other in zip(found, ids, strict=True)) <= ties
    for row in ids[:200]:
        for skip in (True, False):
            expected = ours.detokenize(row, skip_special_tokens=skip)
            decoded = theirs.decode(
                row, skip_special_tokens=skip, clean_up_tokenization_spaces=False
            )
            assert decoded == expected
    for role in ("bos_token", "eos_token", "pad_token"):
        assert getattr(theirs, role) == ours._roles.get(role)


KINDS = ("gpt-2", "smollm", "llama-bpe", "qwen2", "gpt-4o", "deepseek-v3", "byte-fallback")


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_from_transformers(kind, pairs, corpus, tmp_path):
    ours, _ = pairs[kind]
    assert_equal(ours, exported(ours, tmp_path), corpus)


def test_tokenizers_from_keras_hubs_files(pairs, corpus, tmp_path):
    loaded, _ = pairs["gpt-2"]
    loaded.save_assets(tmp_path)
    ours = BytePairTokenizer(
        tmp_path / "vocabulary.json",
        tmp_path / "merges.txt",
        unsplittable_tokens=["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
    )
    directory = tmp_path / "exported"
    directory.mkdir()
    assert_equal(ours, exported(ours, directory), corpus)


@pytest.mark.parametrize("kind", SENTENCE_PIECES)
@pytest.mark.parametrize("legacy", [False, True])
def test_sentence_pieces(kind, legacy, protos, corpus, tmp_path):
    original = tmp_path / "original"
    original.mkdir()
    (original / "tokenizer.model").write_bytes(protos[kind])
    if legacy:
        (original / "tokenizer_config.json").write_text('{"legacy": true}')
    ours = load_tokenizer(checkpoint(original))
    assert isinstance(ours, SentencePieceTokenizer)
    directory = tmp_path / "exported"
    directory.mkdir()
    if not legacy and kind.startswith("unigram"):
        # A space behind a special token stays there, and goes in SentencePiece.
        corpus = [text for text in corpus if "<s>" not in text and "</s>" not in text]
        assert len(corpus) > 300
    # Of equally probable splits, the two libraries may find another one.
    assert_equal(ours, exported(ours, directory), corpus, ties=20 if "unigram" in kind else 0)
    assert (directory / "tokenizer.model").read_bytes() == protos[kind]

    again = load_tokenizer(checkpoint(directory))
    for parse_special in (False, True):
        rows = (each.tokenize(corpus, parse_special=parse_special) for each in (ours, again))
        assert len({str(list(map(sorted, row))) for row in rows}) == 1


def test_the_start_token_and_the_chat_template(pairs, tmp_path):
    ours, _ = pairs["qwen2"]
    for adds in (True, False):
        theirs = exported(ours, tmp_path, add_start_token=adds)
        start = [ours.start_token_id] if adds else []
        assert theirs("Hello")["input_ids"] == start + ours.tokenize("Hello")
        assert load_tokenizer(checkpoint(tmp_path)).add_start_token == adds
    assert theirs.chat_template == CHAT_ML
    messages = [{"role": "user", "content": "Hello"}]
    expected = ours.encode_chat(messages)
    conversation = theirs.apply_chat_template(messages, add_generation_prompt=True)
    assert conversation["input_ids"] == expected


def test_models_of_words_are_refused(protos, tmp_path):
    tokenizer = SentencePieceTokenizer(protos["word"])
    with pytest.raises(PresetError, match=r"must be 'BPE' or 'UNIGRAM'"):
        tokenizer.save_for_transformers(tmp_path, add_start_token=False)
