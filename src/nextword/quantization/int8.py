"""Weights of 8 bits with a scale for each output, for inputs of 8 bits or for floats.

With inputs of 8 bits it is what Keras calls "int8", number by number: the absolute maximum of each
row becomes 127.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from nextword.ops import int8_linear, int8_weight_linear
from nextword.ops.int8_linear import EPSILON, LARGEST
from nextword.ops.native.step_program import NativeMatrix, NotCoveredError
from nextword.quantization.weight_format import Part


class Int8Format:
    """A matrix as int8 `values` and a float32 `scale` for each row, which divides them.

    Args:
        mode: what `quantize` calls the format.
        linear: the product of inputs, values and scale.
        rounds_inputs: whether that rounds the inputs, too, as the native kernels do not.

    Example:
    >>> parts = INT8.quantize(np.array([[0.5, -0.2, 0.0]], "float32"))
    >>> parts["values"].tolist(), parts["scale"].round(3).tolist()
    ([[127, -51, 0]], [254.0])
    """

    def __init__(
        self, mode: str, linear: Callable[[Any, Any, Any], Any], *, rounds_inputs: bool
    ) -> None:
        self.mode = mode
        self._linear = linear
        self._rounds_inputs = rounds_inputs

    def fits(self, shape: tuple[int, int]) -> bool:
        return True

    def parts(self, shape: tuple[int, int]) -> dict[str, Part]:
        return {"values": Part(shape, "int8"), "scale": Part(shape[:1], "float32")}

    def quantize(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        largest = np.abs(matrix).max(axis=-1).astype("float32")
        scale = np.float32(LARGEST) / (largest + np.float32(EPSILON))
        values = np.rint(matrix * scale[:, None]).clip(-LARGEST, LARGEST)
        return {"values": values.astype("int8"), "scale": scale}

    def dequantize(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        return parts["values"].astype("float32") / parts["scale"][:, None]

    def apply(self, inputs: Any, parts: Mapping[str, Any]) -> Any:
        return self._linear(inputs, parts["values"], parts["scale"])

    def rows(self, indices: Any, parts: Mapping[str, Any]) -> Any:
        values = ops.cast(ops.take(parts["values"], indices, axis=0), "float32")
        return values / ops.expand_dims(ops.take(parts["scale"], indices, axis=0), -1)

    def floats(self, parts: Mapping[str, Any]) -> Any:
        return ops.cast(parts["values"], "float32") / ops.expand_dims(parts["scale"], -1)

    def native(self, shape: tuple[int, int], parts: Mapping[str, Any]) -> NativeMatrix:
        if self._rounds_inputs:
            raise NotCoveredError
        return NativeMatrix(*shape, parts["values"], parts["scale"])


INT8 = Int8Format("int8", int8_linear, rounds_inputs=True)
INT8_WEIGHT_ONLY = Int8Format("int8_weight_only", int8_weight_linear, rounds_inputs=False)
