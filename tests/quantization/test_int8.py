"""8-bit weights and the product with them: what Keras rounds to, and what float64 computes."""

from typing import Any

import jax
import keras
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nextword.ops import int8_linear
from nextword.quantization import INT8

deterministic = settings(max_examples=60, deadline=None, derandomize=True)
finite = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
matrices = arrays(
    np.float32, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9), elements=finite
)


def packed(seed: int, out: int = 7, inputs: int = 33) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    matrix = np.random.default_rng(seed).normal(size=(out, inputs)).astype("float32")
    return matrix, INT8.quantize(matrix)


@deterministic
@given(matrices)
def test_weights_are_rounded_to_the_nearest_of_what_keras_has(matrix: np.ndarray) -> None:
    parts = INT8.quantize(matrix)
    values, scale = keras.quantizers.abs_max_quantize(matrix, axis=-1, to_numpy=True)
    np.testing.assert_array_equal(parts["values"], values)
    np.testing.assert_array_equal(parts["scale"], np.asarray(scale)[:, 0])
    assert {name: (part.shape, part.dtype) for name, part in INT8.parts(matrix.shape).items()} == {
        name: (value.shape, value.dtype.name) for name, value in parts.items()
    }
    step = 1 / parts["scale"].astype("float64")[:, None]
    exact = parts["values"].astype("float64") * step
    tolerance = 1e-6 * np.abs(exact) + 1e-12
    np.testing.assert_array_less(np.abs(matrix - exact), 0.5 * step + tolerance)
    np.testing.assert_array_less(np.abs(INT8.dequantize(parts) - exact), tolerance + 1e-30)


@deterministic
@given(matrices)
def test_what_has_been_rounded_rounds_to_itself(matrix: np.ndarray) -> None:
    parts = INT8.quantize(matrix)
    again = INT8.quantize(INT8.dequantize(parts))
    is_tiny = np.abs(matrix).max(-1) < 1e-3  # where the constant in the scale counts
    np.testing.assert_array_equal(again["values"][~is_tiny], parts["values"][~is_tiny])


@deterministic
@given(arrays(np.float32, (2, 3, 33), elements=finite))
def test_the_product_is_that_of_integers(inputs: np.ndarray) -> None:
    _, parts = packed(0)
    scales = np.float32(127) / (np.abs(inputs).max(-1, keepdims=True) + np.float32(1e-7))
    rounded = np.rint(inputs * scales).astype("int64")
    assert np.abs(rounded).max() <= 127
    sums = rounded @ parts["values"].T.astype("int64")
    expected = sums / (scales.astype("float64") * parts["scale"].astype("float64"))
    np.testing.assert_allclose(INT8.apply(inputs, parts), expected, rtol=1e-6, atol=1e-30)


def test_the_product_is_close_to_that_of_floats() -> None:
    matrix, parts = packed(1, inputs=256)
    inputs = np.random.default_rng(2).normal(size=(5, 256)).astype("float32")
    exact = inputs.astype("float64") @ matrix.T.astype("float64")
    error = np.asarray(INT8.apply(inputs, parts)) - exact
    assert np.sqrt((error**2).mean() / (exact**2).mean()) < 0.02


def test_rows() -> None:
    _, parts = packed(3)
    indices = np.array([[6, 0], [2, 6]])
    expected = parts["values"].astype("float64") / parts["scale"].astype("float64")[:, None]
    np.testing.assert_allclose(INT8.rows(indices, parts), expected[indices], rtol=1e-6)
    np.testing.assert_allclose(INT8.floats(parts), expected, rtol=1e-6)


def test_the_gradient_passes_by_the_rounding() -> None:
    _, parts = packed(4)
    inputs = np.random.default_rng(5).normal(size=(2, 33)).astype("float32")
    upstream = np.random.default_rng(6).normal(size=(2, 7)).astype("float32")

    def loss(inputs: Any) -> Any:
        return (int8_linear(inputs, parts["values"], parts["scale"]) * upstream).sum()

    weights = parts["values"].astype("float64") / parts["scale"].astype("float64")[:, None]
    expected = upstream.astype("float64") @ weights
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(inputs), expected, rtol=1e-5, atol=1e-6)


def test_the_dtype_is_that_of_the_inputs() -> None:
    _, parts = packed(7)
    inputs = keras.ops.ones((1, 33), "bfloat16")
    assert INT8.apply(inputs, parts).dtype == "bfloat16"
