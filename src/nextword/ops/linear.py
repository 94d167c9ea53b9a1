"""The matrix product of a linear layer, with kernels stored `[out, in]`."""

from typing import Any

import keras
from keras import ops

from nextword.ops.native import has_few_rows, kernel_calls, on_rows

_NATIVE_DTYPES = ("float32", "bfloat16")


def linear(inputs: Any, kernel: Any, bias: Any | None = None) -> Any:
    """Return `inputs @ kernel.T + bias`.

    Args:
        inputs: float tensor of shape `[..., in]`.
        kernel: float tensor of shape `[out, in]`. Row-major `[out, in]` lets one token's
            matrix-vector product read each row once, front to back.
        bias: optional float tensor of shape `[out]`.

    Returns:
        Float tensor of shape `[..., out]`.

    Example:
    >>> import numpy as np
    >>> linear(np.ones((1, 2), "float32"), np.array([[1, 2], [3, 4], [5, 6]], "float32")).shape
    (1, 3)
    """
    if _is_native(inputs, kernel):
        outputs = on_rows(kernel_calls().float_linear, inputs, kernel)
    else:
        # Contracting the last axis of both operands keeps the transposition inside the product.
        outputs = ops.einsum("...i,oi->...o", inputs, kernel)
    return outputs if bias is None else ops.add(outputs, bias)


def _is_native(inputs: Any, kernel: Any) -> bool:
    """Return whether there is a native kernel for these rows, and it is the faster one."""
    dtype = keras.backend.standardize_dtype(kernel.dtype)
    return has_few_rows(inputs) and dtype in _NATIVE_DTYPES
