"""Tokenizers in GGUF files written here: llama.cpp and nextword read from them what was written."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaTokenizer

import nextword
from nextword.models.families.llama import LlamaCausalLM, LlamaCausalLMPreprocessor
from nextword.presets import PresetError
from nextword.tokenizers import SentencePieceTokenizer, WordPieceTokenizer, load_tokenizer
from nextword.tokenizers.converted_sentence_piece import ConvertedSentencePieceTokenizer
from nextword.tokenizers.gguf_keys import gguf_tokenizer_keys
from nextword.tokenizers.tokenizer_config import TokenizerConfig
from sentence_piece_models import train
from trained_tokenizers import byte_fallback_library, checkpoint, save

# In Unicode's normal form C, to which llama.cpp brings no text.
HARD = [
    "The quick brown fox, it's 12345.67!",
    "  two spaces\tand\ttabs \n\n\n  end  ",
    "def f(x):\n    return x[1:] * 2  # comment",
    "你好。世界 日本語 한국어 привет",
    "👩‍👩‍👧‍👦 🏳️‍🌈",
    "<s> </s> <|im_start|> <0x0A> ▁ Ġ",
    "x" * 70,
    "DON'T we'll I'LL",
    "",
]


def written(tokenizer: Any, path: Path) -> Path:
    """Write a model of one layer with a tokenizer, and return the file."""
    backbone = nextword.models.LlamaBackbone(
        vocabulary_size=tokenizer.vocabulary_size() + 3,
        num_layers=1,
        num_query_heads=1,
        num_key_value_heads=1,
        hidden_dim=32,
        intermediate_dim=32,
        context_length=256,
    )
    preprocessor = LlamaCausalLMPreprocessor(tokenizer, add_start_token=tokenizer.add_start_token)
    LlamaCausalLM(backbone, preprocessor).export_to_gguf(path)
    return path


def check(tokenizer: Any, path: Path, texts: Sequence[str] = HARD) -> None:
    """Compare what llama.cpp and nextword make of a tokenizer's file with the tokenizer."""
    llama_cpp = pytest.importorskip("llama_cpp", exc_type=ImportError).llama_cpp
    expected = [tokenizer.tokenize(text) for text in texts]
    with llama_cpp(written(tokenizer, path)) as model:
        assert [model.tokenize(text) for text in texts] == expected
    read = nextword.models.CausalLM.from_preset(path, load_weights=False).preprocessor.tokenizer
    assert [read.tokenize(text) for text in texts] == expected
    assert read.role_ids == tokenizer.role_ids
    assert read.end_token_ids == tokenizer.end_token_ids
    assert read.special_token_ids == tokenizer.special_token_ids
    assert read.add_start_token == tokenizer.add_start_token
    sources = (t.chat_template and t.chat_template.source for t in (read, tokenizer))
    assert len(set(sources)) == 1


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "gpt-4o", "llama-bpe"])
def test_byte_pairs(pre: str, pairs: Any, tmp_path: Path) -> None:
    ours, _ = pairs[pre]
    check(ours, tmp_path / "model.gguf")


@pytest.mark.parametrize("kind", ["dummy prefix", "no prefix"])
def test_sentence_pieces(kind: str, training_text: list[str], tmp_path: Path) -> None:
    proto = train(kind, training_text)
    tokenizer = SentencePieceTokenizer.from_proto(proto, TokenizerConfig(legacy=True))
    check(tokenizer, tmp_path / "model.gguf")


def test_sentence_pieces_in_a_tokenizer_json(training_text: list[str], tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(train("dummy prefix", training_text))
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    data = json.loads(LlamaTokenizer.from_pretrained(tmp_path, **roles).backend_tokenizer.to_str())
    data["model"]["unk_token"] = "<unk>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(roles), encoding="utf-8")
    tokenizer = load_tokenizer(checkpoint(tmp_path))
    assert isinstance(tokenizer, ConvertedSentencePieceTokenizer)
    # To a space at the beginning the file adds none, where SentencePiece and llama.cpp do.
    texts = [text for text in HARD if not text.startswith(" ")]
    check(tokenizer, tmp_path / "model.gguf", texts)


def test_a_tokenizer_json_that_is_no_sentence_piece_model(
    training_text: list[str], tmp_path: Path
) -> None:
    roles = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    save(byte_fallback_library(training_text), tmp_path / "files", **roles)
    tokenizer = load_tokenizer(checkpoint(tmp_path / "files"))
    with pytest.raises(PresetError, match="no place for the vocabulary of a Converted"):
        written(tokenizer, tmp_path / "model.gguf")


def test_what_the_format_has_no_words_for(training_text: list[str], tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with pytest.raises(PresetError, match="no place for the vocabulary of a WordPieceTokenizer"):
        written(WordPieceTokenizer(["[UNK]", "a"]), path)
    unigram = SentencePieceTokenizer.from_proto(train("unigram", training_text))
    with pytest.raises(PresetError, match="Only SentencePiece models of byte pairs.*UNIGRAM"):
        written(unigram, path)
    tokenizer = nextword.tokenizers.BytePairTokenizer({"a": 0, "b": 1}, [], add_prefix_space=True)
    with pytest.raises(PresetError, match="no name for the way in which the tokenizer splits"):
        written(tokenizer, path)
    assert not path.exists()


def test_more_tokens_than_the_model_has(tmp_path: Path) -> None:
    tokenizer = nextword.tokenizers.BytePairTokenizer({"a": 0, "b": 1}, [])
    with pytest.raises(PresetError, match="each of the 2 tokens.* Received: a model with 1"):
        gguf_tokenizer_keys(tokenizer, num_tokens=1, add_start_token=False)
