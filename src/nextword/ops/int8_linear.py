"""The matrix product with weights of 8 bits, and with inputs of 8 bits or floats."""

from typing import Any

from keras import ops

from nextword.ops.native import has_few_rows, kernel_calls, on_rows

# Keeps the scale of zeros finite. The value is Keras', and part of what a rounded model computes.
EPSILON = 1e-7
LARGEST = 127


def int8_linear(inputs: Any, codes: Any, scales: Any) -> Any:
    """Return `inputs @ weights.T`, where a weight is `code / scale`, on inputs of 8 bits as well.

    The vector of each token is rounded to integers from -127 to 127 before the product, by a scale
    that makes its largest magnitude 127. The gradient is that of the product without the rounding.

    Args:
        inputs: float tensor of shape `[..., in]`.
        codes: int8 tensor of shape `[out, in]`.
        scales: float32 tensor of shape `[out]`.

    Returns:
        Tensor of shape `[..., out]` in the dtype of `inputs`.

    Example:
    >>> import numpy as np
    >>> codes, scales = np.array([[127, 0]], "int8"), np.array([127], "float32")
    >>> np.asarray(int8_linear(np.array([[2.0, 1.0]], "float32"), codes, scales)).round(4).tolist()
    [[2.0]]
    """
    dtype = ops.convert_to_tensor(inputs).dtype
    outputs = _product(ops.cast(inputs, "float32"), *map(ops.convert_to_tensor, (codes, scales)))
    return ops.cast(outputs, dtype)


def int8_weight_linear(inputs: Any, codes: Any, scales: Any) -> Any:
    """Return `inputs @ weights.T`, where a weight is `code / scale`.

    Args:
        inputs: float tensor of shape `[..., in]`.
        codes: int8 tensor of shape `[out, in]`.
        scales: float32 tensor of shape `[out]`.

    Returns:
        Tensor of shape `[..., out]` in the dtype of `inputs`.

    Example:
    >>> import numpy as np
    >>> codes, scales = np.array([[127, 64]], "int8"), np.array([128], "float32")
    >>> inputs = np.array([[2.0, 1.0]], "float32")
    >>> np.asarray(int8_weight_linear(inputs, codes, scales)).tolist()
    [[2.484375]]
    """
    if has_few_rows(inputs):
        return on_rows(kernel_calls().int8_linear, inputs, codes, scales)
    dtype = ops.convert_to_tensor(inputs).dtype
    # Not `linear`, whose kernels would have the cast matrix written to memory first.
    sums = ops.einsum("...i,oi->...o", ops.cast(inputs, "float32"), ops.cast(codes, "float32"))
    return ops.cast(sums / scales, dtype)


@ops.custom_gradient
def _product(inputs: Any, codes: Any, scales: Any) -> Any:
    largest = ops.max(ops.abs(inputs), axis=-1, keepdims=True)
    input_scales = LARGEST / (largest + EPSILON)
    rounded = ops.clip(ops.round(inputs * input_scales), -LARGEST, LARGEST)
    # Integers up to 2**24 are exact in float32, and a cast inside a product of floats costs less
    # than a product of integers.
    sums = ops.einsum("...i,oi->...o", rounded, ops.cast(codes, "float32"))

    def gradient(*args: Any, upstream: Any = None) -> tuple[Any, None, None]:
        upstream = args[0] if upstream is None else upstream
        upstream = ops.einsum("...o,oi->...i", upstream / scales, ops.cast(codes, "float32"))
        return upstream, None, None

    return sums / (input_scales * scales), gradient
