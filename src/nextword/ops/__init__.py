"""The few hot operations, each with a portable implementation in `keras.ops`."""

from nextword.ops.attention import attention
from nextword.ops.int8_linear import int8_linear, int8_weight_linear
from nextword.ops.linear import linear
from nextword.ops.packed_layout import unpack
from nextword.ops.packed_linear import packed_linear, packed_rows

__all__ = [
    "attention",
    "int8_linear",
    "int8_weight_linear",
    "linear",
    "packed_linear",
    "packed_rows",
    "unpack",
]
