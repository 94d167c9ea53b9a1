"""From text to the id arrays that a model takes."""

from nextword.preprocessing.packing import frame, pad
from nextword.preprocessing.segments import TRUNCATIONS, PackedSegments, pack_segments
from nextword.preprocessing.texts import text_list
from nextword.preprocessing.tokenizer_state import deserialize_tokenizer, serialize_tokenizer

__all__ = [
    "TRUNCATIONS",
    "PackedSegments",
    "deserialize_tokenizer",
    "frame",
    "pack_segments",
    "pad",
    "serialize_tokenizer",
    "text_list",
]
