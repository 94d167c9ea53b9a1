"""From text to the id arrays that a model takes."""

from nextword.preprocessing.packing import frame, pad
from nextword.preprocessing.texts import text_list
from nextword.preprocessing.tokenizer_state import deserialize_tokenizer, serialize_tokenizer

__all__ = ["deserialize_tokenizer", "frame", "pad", "serialize_tokenizer", "text_list"]
