"""The native kernels give what float64 NumPy gives, on every instruction set that is there."""

import jax
import jax.numpy as jnp
import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import only_on_jax
from nextword.ops import int8_weight_linear, linear
from nextword.ops.native import kernels_in_use, kernels_used

tensor, to_numpy = keras.ops.convert_to_tensor, keras.ops.convert_to_numpy

# Those above 768 are more than the first cache holds for eight rows.
INPUTS = st.integers(1, 200) | st.integers(769, 840)

pytestmark = pytest.mark.skipif(kernels_in_use() is None, reason="built without native kernels")


@pytest.mark.parametrize("dtype", ["float32", ml_dtypes.bfloat16])
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.integers(1, 16), inputs=INPUTS, outputs=st.integers(1, 70), data=st.data())
def test_linear(
    instruction_set: str, dtype: object, rows: int, inputs: int, outputs: int, data: st.DataObject
) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    x = random.normal(size=(rows, inputs)).astype(dtype)
    kernel = random.normal(size=(outputs, inputs)).astype(dtype)
    expected = x.astype("float64") @ kernel.astype("float64").T
    found = to_numpy(linear(tensor(x), tensor(kernel)))
    assert found.dtype == dtype
    rounding = 1e-6 if dtype == "float32" else 2.0**-8
    magnitude = np.abs(x.astype("float64")) @ np.abs(kernel.astype("float64")).T
    assert (np.abs(found.astype("float64") - expected) <= rounding * magnitude).all()


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.integers(1, 16), inputs=INPUTS, outputs=st.integers(1, 70), data=st.data())
def test_int8(
    instruction_set: str, rows: int, inputs: int, outputs: int, data: st.DataObject
) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    x = random.normal(size=(rows, inputs)).astype("float32")
    codes = random.integers(-127, 128, size=(outputs, inputs)).astype("int8")
    scales = random.uniform(1, 100, size=outputs).astype("float32")
    expected = x.astype("float64") @ codes.T.astype("float64") / scales
    found = to_numpy(int8_weight_linear(*map(tensor, (x, codes, scales))))
    magnitude = np.abs(x) @ np.abs(codes.T.astype("float64")) / scales
    assert (np.abs(found - expected) <= 1e-6 * magnitude).all()


@only_on_jax
def test_the_gradient_of_int8(instruction_set: str) -> None:
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, 3, 40)), "float32")
    codes = jnp.asarray(random.integers(-127, 128, size=(30, 40)), "int8")
    scales = jnp.asarray(random.uniform(1, 100, size=30), "float32")

    def loss(x):
        return (int8_weight_linear(x, codes, scales) ** 2).sum()

    gradient = jax.jit(jax.grad(loss))(x)
    weights = np.asarray(codes, "float64") / np.asarray(scales)[:, None]
    expected = 2 * (np.asarray(x, "float64") @ weights.T) @ weights
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_is_the_same_alone_and_in_a_batch(instruction_set: str, dtype: str) -> None:
    random = np.random.default_rng(0)
    x = tensor(random.normal(size=(11, 300)), dtype)
    kernel = tensor(random.normal(size=(50, 300)), dtype)
    together = to_numpy(linear(x, kernel))
    for row in range(len(x)):
        alone = to_numpy(linear(x[row : row + 1], kernel))
        np.testing.assert_array_equal(alone[0], together[row])


@only_on_jax
def test_inside_a_compiled_program_and_with_a_gradient(instruction_set: str) -> None:
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, 3, 40)), "float32")
    kernel = jnp.asarray(random.normal(size=(30, 40)), "float32")

    def loss(x, kernel):
        return (linear(x, kernel) ** 2).sum()

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, kernel)
    with kernels_used(None):
        expected, expected_gradients = jax.value_and_grad(loss, argnums=(0, 1))(x, kernel)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for gradient, one in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, one, rtol=1e-4, atol=1e-3)


def program(rows: int) -> str:
    # A new function each time: JAX keeps what it has traced.
    return (
        jax.jit(lambda *args: linear(*args)).lower(jnp.ones((rows, 8)), jnp.ones((4, 8))).as_text()
    )


@only_on_jax
def test_the_program_calls_the_kernel() -> None:
    assert "nextword_float_linear" in program(rows=16)
    assert "nextword" not in program(rows=17)  # which the backend does as well
    with kernels_used(None):
        assert kernels_in_use() is None
        assert "nextword" not in program(rows=16)


def test_unknown_kernels() -> None:
    with pytest.raises(ValueError, match="Received: name='sse9'"), kernels_used("sse9"):
        pass
