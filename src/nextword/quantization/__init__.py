"""Packed weight formats and their exact (de)quantisation."""

from nextword.quantization.grouped import Q4_0, Q4_1, Q8_0
from nextword.quantization.int8 import INT8
from nextword.quantization.weight_format import FLOAT, Part, WeightFormat

FORMATS: dict[str, WeightFormat] = {form.mode: form for form in (INT8, Q8_0, Q4_1, Q4_0)}
"""The formats of a packed matrix, by mode."""

__all__ = ["FLOAT", "FORMATS", "INT8", "Q4_0", "Q4_1", "Q8_0", "Part", "WeightFormat"]
