"""Tokenizers that the tests of this room share."""

import random
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from nextword.tokenizers import load_tokenizer
from trained_tokenizers import (
    ATOMS,
    CHAT_ML,
    byte_fallback_library,
    byte_level_library,
    checkpoint,
    save,
)


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """Texts with everything that is known to trip tokenizers."""
    chance = random.Random(17)
    mixed = ["".join(chance.choices(ATOMS, k=chance.randint(1, 12))) for _ in range(600)]
    return ["", *ATOMS, *mixed, Path(__file__).read_text(encoding="utf-8")]


@pytest.fixture(scope="session")
def training_text() -> list[str]:
    """Text of this repository and of `ATOMS`, to train on."""
    root = Path(__file__).parents[2]
    files = [root / "LICENSE", *sorted((root / "src/nextword/tokenizers").glob("*.py"))]
    return [*(file.read_text(encoding="utf-8") for file in files), *ATOMS * 3]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory, training_text: list[str]) -> dict[str, Path]:
    """Directories with tokenizers of several kinds, saved by transformers."""
    root = tmp_path_factory.mktemp("saved")
    roles = {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": CHAT_ML,
    }
    kinds = ("gpt-2", "smollm", "llama-bpe", "qwen2", "gpt-4o", "deepseek-v3")
    directories = {
        kind: save(byte_level_library(kind, training_text), root / kind, **roles) for kind in kinds
    }
    directories["byte-fallback"] = save(
        byte_fallback_library(training_text),
        root / "byte-fallback",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    return directories


@pytest.fixture(scope="session")
def pairs(saved: dict[str, Path]) -> dict[str, tuple[Any, PreTrainedTokenizerFast]]:
    """By kind: the tokenizer as we load it, and as transformers does."""
    return {
        kind: (
            load_tokenizer(checkpoint(directory)),
            PreTrainedTokenizerFast.from_pretrained(directory),
        )
        for kind, directory in saved.items()
    }
