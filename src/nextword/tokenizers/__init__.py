"""Tokenizers: text to token ids and back, and conversations to prompts."""

from nextword.tokenizers.byte_pair import BytePairTokenizer
from nextword.tokenizers.chat_template import ChatTemplate
from nextword.tokenizers.loading import load_tokenizer
from nextword.tokenizers.stream_decoder import StreamDecoder
from nextword.tokenizers.tokenizer import Tokenizer

__all__ = ["BytePairTokenizer", "ChatTemplate", "StreamDecoder", "Tokenizer", "load_tokenizer"]
