"""Small tokenizers trained on the spot and saved by transformers, which is the oracle for them."""

import json
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import settings
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from nextword.presets import resolve_preset
from nextword.tokenizers.pre_tokenizers import SPLIT_RULES

deterministic = settings(max_examples=200, deadline=None, derandomize=True)

CHAT_ML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

ATOMS = [
    *("hello", " world", " the license", "Don't", " I'LL", " we've", "HelloWorld", "x" * 60),
    *("\n", "\n\n", "\t", " ", "    ", "  ", "\r\n", "\u00a0", "\u2028", " \n\t "),
    *("1", "23", " 4567", "½", "²", "١٢٣", "12,345.67", "0xFF"),
    *("你好", "日本語", "ひらがな", "한국어", "привет", "שלום", "مرحبا", "नमस्ते", "ไทย"),
    *(
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "e\u0301",
        "é",
        "ﬁ",
        "Å",
        "\uff21",
        "\ufeff",
        "\x00",
        "\x7f",
        "\U0010ffff",
    ),
    *("def f(x):\n    return x[1:] * 2", "/* c */", "//", "\\", '"', "$", "€", "__init__", "…"),
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "end|>", "<think>", "</think>"),
    *("<s>", "</s>", "<0x0A>", "▁", "Ġ", "Ċ"),
]


def byte_level_library(pre: str, training_text: list[str], size: int = 600) -> Library:
    """Return a tokenizer of the `tokenizers` library that splits text as `pre` names it."""
    library = Library(models.BPE())
    rules = SPLIT_RULES[pre]
    if rules.compose:
        library.normalizer = normalizers.NFC()
    library.pre_tokenizer = rules.pre_tokenizer()
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    library.train_from_iterator(training_text, trainer)
    library.add_tokens(["<think>", "</think>"])
    return library


def byte_fallback_library(training_text: list[str]) -> Library:
    """Return a tokenizer in the way of those that were converted from SentencePiece."""
    library = Library(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    library.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, limit_alphabet=120, show_progress=False
    )
    words = [word for text in training_text for word in text.split(" ")]
    library.train_from_iterator(words, trainer)
    return _without_byte_tokens_added(library)


def _without_byte_tokens_added(library: Library) -> Library:
    """The trainer takes byte tokens only as special ones, which they are not."""
    data = json.loads(library.to_str())
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    data["post_processor"] = json.loads(
        processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        ).__getstate__()
    )
    return Library.from_str(json.dumps(data))


def tiktoken_file(tokens: Iterable[bytes]) -> bytes:
    """Return a file in tiktoken's format with tokens in the order of their ranks."""
    lines = (b64encode(token) + b" %d\n" % rank for rank, token in enumerate(tokens))
    return b"".join(lines)


def gguf_data(library: Library, **changes: Any) -> dict[str, Any]:
    """Return the keys that a converter writes for a tokenizer of the `tokenizers` library."""
    added = library.get_added_tokens_decoder()
    ids = range(library.get_vocab_size())
    types = [(3 if added[id].special else 4) if id in added else 1 for id in ids]
    merges = json.loads(library.to_str())["model"]["merges"]
    data = {
        "model": "gpt2",
        "pre": "qwen2",
        "tokens": [library.id_to_token(id) for id in ids],
        "token_type": types,
        "merges": [" ".join(merge) for merge in merges],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "padding_token_id": 0,
        **changes,
    }
    return {
        "tokenizer.chat_template": CHAT_ML,
        **{f"tokenizer.ggml.{key}": value for key, value in data.items() if value is not None},
    }


def save(library: Library, directory: Path, **special: Any) -> Path:
    """Save a tokenizer as transformers does."""
    PreTrainedTokenizerFast(tokenizer_object=library, **special).save_pretrained(directory)
    return directory


def checkpoint(directory: Path, generation_config: dict[str, Any] | None = None) -> Any:
    """Return what `load_tokenizer` needs to know of a transformers checkpoint."""
    return SimpleNamespace(
        format="transformers",
        name=str(directory),
        source=resolve_preset(directory),
        generation_config=generation_config or {},
    )
