"""KerasHub's files do not say how text is split, so a family's tokenizer class does."""

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

import nextword
from trained_tokenizers import byte_level_library, save

MODELS = nextword.models


def vocabulary_and_merges(directory: Path, cls: Any) -> tuple[dict[str, int], list[str]]:
    """Return those of a saved tokenizer, with the special tokens that a family has besides."""
    model = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    special = [token for token in cls.role_tokens.values() if token not in model["vocab"]]
    ids = enumerate([*model["vocab"], *special])
    return {token: id for id, token in ids}, [" ".join(merge) for merge in model["merges"]]


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        (MODELS.BloomTokenizer, "bloom"),
        (MODELS.FalconTokenizer, "falcon"),
        (MODELS.GPTNeoXTokenizer, "olmo"),
        (MODELS.OPTTokenizer, "gpt-2"),
    ],
)
def test_text_is_split_as_in_the_checkpoints(
    cls: Any, kind: str, training_text: list[str], corpus: list[str], tmp_path: Path
) -> None:
    save(byte_level_library(kind, training_text), tmp_path)
    vocabulary, merges = vocabulary_and_merges(tmp_path, cls)
    ours = cls(vocabulary, merges)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    texts = [text for text in corpus if "<" not in text]  # no special tokens
    assert ours.tokenize(texts) == theirs(texts, add_special_tokens=False)["input_ids"]


def test_gpt_neox_tokenizer_is_that_of_transformers(
    training_text: list[str], corpus: list[str], tmp_path: Path
) -> None:
    save(byte_level_library("olmo", training_text), tmp_path)
    vocabulary, merges = vocabulary_and_merges(tmp_path, MODELS.GPTNeoXTokenizer)
    pairs = [tuple(merge.split(" ")) for merge in merges]
    theirs = transformers.GPTNeoXTokenizer(vocab=vocabulary, merges=pairs)
    texts = [text for text in corpus if "<" not in text]
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    assert MODELS.GPTNeoXTokenizer(vocabulary, merges).tokenize(texts) == expected
