"""The matrix product of a linear layer, with kernels stored `[out, in]`."""

import math
from typing import Any

import keras
from keras import ops

from nextword.ops.native import MOST_ROWS, can_call_kernels

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
        outputs = _native_product(inputs, kernel)
    else:
        # Contracting the last axis of both operands keeps the transposition inside the product.
        outputs = ops.einsum("...i,oi->...o", inputs, kernel)
    return outputs if bias is None else ops.add(outputs, bias)


def _is_native(inputs: Any, kernel: Any) -> bool:
    """Return whether there is a native kernel for these rows, and it is the faster one."""
    return (
        can_call_kernels(inputs)
        and math.prod(inputs.shape[:-1]) <= MOST_ROWS
        and keras.backend.standardize_dtype(kernel.dtype) in _NATIVE_DTYPES
    )


def _native_product(inputs: Any, kernel: Any) -> Any:
    from nextword.ops.native.jax_calls import float_linear  # which needs JAX

    inputs, kernel = ops.convert_to_tensor(inputs), ops.convert_to_tensor(kernel)
    outputs = float_linear(inputs.reshape(-1, inputs.shape[-1]), kernel)
    return outputs.reshape(*inputs.shape[:-1], kernel.shape[0])
