"""Packed weight formats and their exact (de)quantisation."""

from nextword.ops.packed_layout import GROUP
from nextword.quantization.grouped import Q4_0, Q4_1, Q8_0, GroupedFormat
from nextword.quantization.int8 import INT8, INT8_WEIGHT_ONLY
from nextword.quantization.weight_format import FLOAT, Part, WeightFormat

FORMATS: dict[str, WeightFormat] = {
    form.mode: form for form in (INT8, INT8_WEIGHT_ONLY, Q8_0, Q4_1, Q4_0)
}
"""The formats of a packed matrix, by mode."""

BLOCK_FORMATS: dict[str, GroupedFormat] = {form.mode.upper(): form for form in (Q8_0, Q4_1, Q4_0)}
"""The formats that hold the blocks of GGUF as they are, by the name of the blocks' type."""

__all__ = [
    "BLOCK_FORMATS",
    "FLOAT",
    "FORMATS",
    "GROUP",
    "INT8",
    "INT8_WEIGHT_ONLY",
    "Q4_0",
    "Q4_1",
    "Q8_0",
    "GroupedFormat",
    "Part",
    "WeightFormat",
]
