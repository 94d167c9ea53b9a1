"""Packed weights: what the gguf package says they are, and what the kernels compute with them."""

from collections.abc import Iterator

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from nextword.ops import packed_linear, packed_rows, unpack
from nextword.ops.native import kernels_in_use, kernels_used
from nextword.quantization.grouped import (
    GGUF_FORMATS,
    GroupedFormat,
    GroupedMatrix,
    dequantize,
    from_gguf,
    quantize,
    to_gguf,
)

FORMATS = list(GGUF_FORMATS)


def blocks(name: str, out: int, groups: int, seed: int = 0) -> np.ndarray:
    weights = np.random.default_rng(seed).normal(size=(out, 32 * groups)).astype("float32")
    return gguf.quants.quantize(weights, GGMLQuantizationType[name])


def arguments(matrix: GroupedMatrix, form: GroupedFormat) -> tuple[tuple, dict]:
    minimums = None if form.zero_point is not None else jnp.asarray(matrix.minimums)
    parameters = jnp.asarray(matrix.codes), jnp.asarray(matrix.scales), minimums
    return parameters, {"bits": form.bits, "zero_point": form.zero_point or 0}


@pytest.fixture(params=["avx512-vnni", "avx2", "portable", None])
def kernels(request: pytest.FixtureRequest) -> Iterator[str | None]:
    try:
        with kernels_used(request.param):
            yield request.param
    except ValueError:
        pytest.skip("not on this machine, or built without native kernels")


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=20, deadline=None)
@given(out=st.integers(1, 50), groups=st.integers(1, 4), seed=st.integers(0, 1000))
def test_the_blocks_of_gguf_are_kept(name: str, out: int, groups: int, seed: int) -> None:
    form, stored = GGUF_FORMATS[name], blocks(name, out, groups, seed)
    matrix = from_gguf(stored, form)
    expected = gguf.quants.dequantize(stored, GGMLQuantizationType[name])
    np.testing.assert_array_equal(dequantize(matrix, form, out=out), expected)
    np.testing.assert_array_equal(to_gguf(matrix, form, out=out), stored)
    parameters, options = arguments(matrix, form)
    np.testing.assert_array_equal(unpack(*parameters, **options)[:out], expected)


@pytest.mark.parametrize("name", FORMATS)
def test_quantize_is_as_good_as_the_gguf_package(name: str) -> None:
    form = GGUF_FORMATS[name]
    weights = np.random.default_rng(0).normal(size=(64, 128)).astype("float32")
    weights[3, :32] = 0
    weights[4, :32] = 2.5

    def error(found: np.ndarray) -> float:
        return float(np.sqrt(np.mean((found - weights) ** 2)))

    theirs = gguf.quants.quantize(weights, GGMLQuantizationType[name])
    expected = error(gguf.quants.dequantize(theirs, GGMLQuantizationType[name]))
    assert error(dequantize(quantize(weights, form), form, out=64)) < 1.02 * expected


@pytest.mark.parametrize("rows", [1, 2, 5, 16, 40])
@pytest.mark.parametrize("name", FORMATS)
def test_the_product(kernels: str | None, name: str, rows: int) -> None:
    form, stored = GGUF_FORMATS[name], blocks(name, 48, 5)
    parameters, options = arguments(from_gguf(stored, form), form)
    x = np.random.default_rng(1).normal(size=(rows, 160)).astype("float32")
    x[0, :32] = 0
    weights = gguf.quants.dequantize(stored, GGMLQuantizationType[name]).astype("float64")
    found = packed_linear(jnp.asarray(x), *parameters, **options)
    magnitude = np.abs(x) @ np.abs(weights).T
    assert (np.abs(found - x @ weights.T) <= 1e-4 * magnitude).all()


def test_a_row_is_the_same_alone_and_in_a_batch(kernels: str | None) -> None:
    if kernels is None:
        pytest.skip("a promise of the kernels alone")
    form = GGUF_FORMATS["Q4_1"]
    parameters, options = arguments(from_gguf(blocks("Q4_1", 32, 9), form), form)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(15, 288)), "float32")
    together = packed_linear(x, *parameters, **options)
    for row in range(len(x)):
        alone = packed_linear(x[row : row + 1], *parameters, **options)
        np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.parametrize("name", FORMATS)
def test_rows(name: str) -> None:
    form, stored = GGUF_FORMATS[name], blocks(name, 40, 2)
    parameters, options = arguments(from_gguf(stored, form), form)
    indices = np.array([[0, 39, 17], [16, 15, 17]], "int32")
    expected = gguf.quants.dequantize(stored, GGMLQuantizationType[name])[indices]
    np.testing.assert_array_equal(packed_rows(indices, *parameters, **options), expected)


def test_activations_have_a_gradient_and_weights_have_none(kernels: str | None) -> None:
    form = GGUF_FORMATS["Q4_0"]
    parameters, options = arguments(from_gguf(blocks("Q4_0", 32, 1), form), form)
    x = jnp.asarray(np.random.default_rng(3).normal(size=(2, 3, 32)), "float32")

    @jax.jit
    def gradient(x):
        return jax.grad(lambda x: packed_linear(x, *parameters, **options)[..., 3:5].sum())(x)

    weights = np.asarray(unpack(*parameters, **options))
    expected = np.broadcast_to(weights[3:5].sum(0), x.shape)
    np.testing.assert_allclose(gradient(x), expected, rtol=1e-5, atol=1e-6)


def test_the_program_calls_the_kernel() -> None:
    if kernels_in_use() is None:
        pytest.skip("built without native kernels")
    form = GGUF_FORMATS["Q8_0"]
    parameters, options = arguments(from_gguf(blocks("Q8_0", 16, 1), form), form)
    program = jax.jit(lambda x: packed_linear(x, *parameters, **options))
    assert "nextword_packed_linear" in program.lower(jnp.ones((64, 32))).as_text()
