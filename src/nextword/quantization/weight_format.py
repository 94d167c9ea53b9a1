"""How the matrix of a layer is held: as floats, or packed."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from keras import ops

from nextword.ops import linear
from nextword.ops.native.step_program import NativeMatrix


class Part(NamedTuple):
    """One of the arrays that hold a matrix.

    Attributes:
        shape: its shape.
        dtype: name of its dtype; None for that of the layer.
    """

    shape: tuple[int, ...]
    dtype: str | None


class WeightFormat(Protocol):
    """How a matrix `[out, in]` is held in arrays, which are called its parts.

    A format may fill up the matrix with rows at its end, which whoever asked for it cuts off.
    """

    @property
    def mode(self) -> str:
        """What `quantize` calls the format."""
        ...

    def fits(self, shape: tuple[int, int]) -> bool:
        """Return whether the format can hold a matrix of a shape."""
        ...

    def parts(self, shape: tuple[int, int]) -> dict[str, Part]:
        """Return the parts of a matrix by name. One of them is "values"."""
        ...

    def quantize(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        """Return the parts that hold a float32 matrix, rounded to what they can hold."""
        ...

    def dequantize(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the float32 matrix that parts hold."""
        ...

    def apply(self, inputs: Any, parts: Mapping[str, Any]) -> Any:
        """Return `inputs @ matrix.T`.

        Args:
            inputs: float tensor of shape `[..., in]`.
            parts: tensors by name.

        Returns:
            Tensor of shape `[..., out]` in the dtype of `inputs`.
        """
        ...

    def rows(self, indices: Any, parts: Mapping[str, Any]) -> Any:
        """Return the rows of the matrix with some indices, a float tensor `[..., in]`."""
        ...

    def floats(self, parts: Mapping[str, Any]) -> Any:
        """Return the matrix as a float tensor `[out, in]`."""
        ...

    def native(self, shape: tuple[int, int], parts: Mapping[str, Any]) -> NativeMatrix:
        """Return a matrix of a shape as the native kernels read it.

        Raises:
            NotCoveredError: they do not.
        """
        ...


class FloatFormat:
    """A matrix as it is, in the dtype of the layer."""

    mode = "float"

    def fits(self, shape: tuple[int, int]) -> bool:
        return True

    def parts(self, shape: tuple[int, ...]) -> dict[str, Part]:
        return {"values": Part(shape, None)}

    def quantize(self, matrix: np.ndarray) -> dict[str, np.ndarray]:
        return {"values": matrix}

    def dequantize(self, parts: Mapping[str, np.ndarray]) -> np.ndarray:
        return parts["values"].astype("float32")

    def apply(self, inputs: Any, parts: Mapping[str, Any]) -> Any:
        return linear(inputs, parts["values"])

    def rows(self, indices: Any, parts: Mapping[str, Any]) -> Any:
        return ops.take(parts["values"], indices, axis=0)

    def floats(self, parts: Mapping[str, Any]) -> Any:
        return ops.convert_to_tensor(parts["values"])

    def native(self, shape: tuple[int, int], parts: Mapping[str, Any]) -> NativeMatrix:
        return NativeMatrix(*shape, parts["values"])


FLOAT = FloatFormat()
