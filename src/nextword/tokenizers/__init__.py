"""Tokenizers: text to token ids and back, and conversations to prompts."""

from typing import Any

import nextword
from nextword.tokenizers.byte_pair import BytePairTokenizer
from nextword.tokenizers.chat_template import ChatTemplate
from nextword.tokenizers.converted_sentence_piece import ConvertedSentencePieceTokenizer
from nextword.tokenizers.loading import load_tokenizer
from nextword.tokenizers.sentence_piece import SentencePieceTokenizer
from nextword.tokenizers.stream_decoder import StreamDecoder
from nextword.tokenizers.tokenizer import Tokenizer
from nextword.tokenizers.unigram import UnigramTokenizer
from nextword.tokenizers.word_piece import WordPieceTokenizer

__all__ = [
    "BytePairTokenizer",
    "ChatTemplate",
    "ConvertedSentencePieceTokenizer",
    "SentencePieceTokenizer",
    "StreamDecoder",
    "Tokenizer",
    "UnigramTokenizer",
    "WordPieceTokenizer",
    "load_tokenizer",
]


def __getattr__(name: str) -> Any:
    # Loading the families takes a Keras backend: not for names that cannot be theirs.
    if name.endswith("Tokenizer") and name in (families := nextword.family_tokenizers()):
        return families[name]
    raise AttributeError(f"module 'nextword.tokenizers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *nextword.family_tokenizers()])
