"""Small SentencePiece models trained on the spot, in the ways of well-known families."""

import io
import struct
from collections.abc import Iterable
from typing import Any

from sentencepiece import SentencePieceTrainer, sentencepiece_model_pb2

_IDENTITY = {
    "model_type": "bpe",
    "vocab_size": 800,
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "character_coverage": 0.98,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "dummy prefix": _IDENTITY,
    "no prefix": {
        **_IDENTITY,
        "add_dummy_prefix": False,
        "user_defined_symbols": ["<start_of_turn>", "<end_of_turn>", "\n\n", "<b>"],
        "pad_id": 0,
        "eos_id": 1,
        "bos_id": 2,
        "unk_id": 3,
        "bos_piece": "<bos>",
        "eos_piece": "<eos>",
    },
    "unigram": {"model_type": "unigram", "vocab_size": 400, "hard_vocab_limit": False},
    "unigram with bytes": {
        "model_type": "unigram",
        "vocab_size": 700,
        "hard_vocab_limit": False,
        "byte_fallback": True,
    },
    "word": {"model_type": "word", "vocab_size": 200},
    "char": {"model_type": "char", "vocab_size": 100},
}


def train(kind: str, training_text: Iterable[str]) -> bytes:
    """Return a model of a kind in `SETTINGS`."""
    model = io.BytesIO()
    lines = [line for text in training_text for line in text.splitlines() if line]
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, minloglevel=2, **SETTINGS[kind]
    )
    return model.getvalue()


def gguf_data(proto: bytes, **changes: Any) -> dict[str, Any]:
    """Return the keys that a converter writes for a model."""
    model = sentencepiece_model_pb2.ModelProto.FromString(proto)
    data = {
        "model": "llama",
        "tokens": [p.piece for p in model.pieces],
        "scores": [p.score for p in model.pieces],
        "token_type": [p.type for p in model.pieces],
        "bos_token_id": model.trainer_spec.bos_id,
        "eos_token_id": model.trainer_spec.eos_id,
        "unknown_token_id": model.trainer_spec.unk_id,
        "add_space_prefix": model.normalizer_spec.add_dummy_prefix,
    } | changes
    return {f"tokenizer.ggml.{key}": value for key, value in data.items() if value is not None}


def varint(value: int) -> bytes:
    """Return a number as protocol buffers spell it."""
    low, high = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def message(number: int, content: bytes) -> bytes:
    """Return a field with a message or string in it."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def piece(text: str | bytes, type: int = 1, score: float = 0.0) -> bytes:
    """Return the field of a piece."""
    text = text.encode() if isinstance(text, str) else text
    content = message(1, text) + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(type)
    return message(1, content)
