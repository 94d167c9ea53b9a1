"""Packed weights: what the gguf package says they are, and what the kernels compute with them."""

from collections.abc import Iterator
from typing import Any

import gguf
import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from backends import only_on_jax, without_gradients
from nextword.ops.native import kernels_in_use, kernels_used
from nextword.quantization.grouped import Q4_0, Q4_1, Q8_0, GroupedFormat

tensor, to_numpy = keras.ops.convert_to_tensor, keras.ops.convert_to_numpy

FORMATS = {"Q4_0": Q4_0, "Q4_1": Q4_1, "Q8_0": Q8_0}


def packed(
    name: str, outputs: int, groups: int, seed: int = 0
) -> tuple[GroupedFormat, dict[str, np.ndarray], np.ndarray]:
    """Return random weights in a format, as parts, and as the gguf package unpacks them."""
    weights = np.random.default_rng(seed).normal(size=(outputs, 32 * groups)).astype("float32")
    blocks = gguf.quants.quantize(weights, GGMLQuantizationType[name])
    form = FORMATS[name]
    parts = form.from_gguf(blocks)
    np.testing.assert_array_equal(form.to_gguf(parts)[:outputs], blocks)
    assert {name: (part.shape, part.dtype.name) for name, part in parts.items()} == {
        name: tuple(part) for name, part in form.parts(weights.shape).items()
    }
    return form, parts, gguf.quants.dequantize(blocks, GGMLQuantizationType[name])


def tensors(parts: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: tensor(part) for name, part in parts.items()}


@pytest.fixture(params=["avx512-vnni", "avx2", "portable", None])
def kernels(request: pytest.FixtureRequest) -> Iterator[str | None]:
    try:
        with without_gradients(), kernels_used(request.param):
            yield request.param
    except ValueError:
        pytest.skip("not on this machine, or built without native kernels")


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=20, deadline=None)
@given(outputs=st.integers(1, 50), groups=st.integers(1, 4), seed=st.integers(0, 1000))
def test_the_blocks_of_gguf_are_kept(name: str, outputs: int, groups: int, seed: int) -> None:
    form, parts, expected = packed(name, outputs, groups, seed)
    found = form.dequantize(parts)
    np.testing.assert_array_equal(found[:outputs], expected)
    assert not found[outputs:].any()


@pytest.mark.parametrize("name", FORMATS)
def test_quantize_is_as_good_as_the_gguf_package(name: str) -> None:
    weights = np.random.default_rng(0).normal(size=(64, 128)).astype("float32")
    weights[3, :32] = 0
    weights[4, :32] = 2.5

    def error(found: np.ndarray) -> float:
        return float(np.sqrt(np.mean((found - weights) ** 2)))

    theirs = gguf.quants.quantize(weights, GGMLQuantizationType[name])
    expected = error(gguf.quants.dequantize(theirs, GGMLQuantizationType[name]))
    form = FORMATS[name]
    assert error(form.dequantize(form.quantize(weights))) < 1.02 * expected


@pytest.mark.parametrize("rows", [1, 2, 5, 16, 40])
@pytest.mark.parametrize("name", FORMATS)
def test_the_product(kernels: str | None, name: str, rows: int) -> None:
    form, parts, weights = packed(name, 43, 5)
    x = np.random.default_rng(1).normal(size=(rows, 160)).astype("float32")
    x[0, :32] = 0
    found = to_numpy(form.apply(tensor(x), tensors(parts)))[:, :43]
    expected = x.astype("float64") @ weights.T.astype("float64")
    magnitude = np.abs(x) @ np.abs(weights).T
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= 1e-4 * magnitude).all()


def test_a_row_is_the_same_alone_and_in_a_batch(kernels: str | None) -> None:
    if kernels is None:
        pytest.skip("a promise of the kernels alone")
    form, parts, _ = packed("Q4_1", 32, 9)
    x = tensor(np.random.default_rng(2).normal(size=(15, 288)), "float32")
    together = to_numpy(form.apply(x, tensors(parts)))
    for row in range(len(x)):
        alone = to_numpy(form.apply(x[row : row + 1], tensors(parts)))
        np.testing.assert_array_equal(alone[0], together[row])


@pytest.mark.parametrize("name", FORMATS)
def test_rows(name: str) -> None:
    form, parts, weights = packed(name, 40, 2)
    indices = np.array([[0, 39, 17], [16, 15, 17]], "int32")
    found = to_numpy(form.rows(tensor(indices), tensors(parts)))
    np.testing.assert_array_equal(found, weights[indices])
    every = to_numpy(form.floats(tensors(parts)))
    np.testing.assert_array_equal(every[: len(weights)], weights)


@only_on_jax
def test_activations_have_a_gradient_and_weights_have_none(kernels: str | None) -> None:
    form, parts, weights = packed("Q4_0", 32, 1)
    x = jnp.asarray(np.random.default_rng(3).normal(size=(2, 3, 32)), "float32")

    @jax.jit
    def gradient(x):
        return jax.grad(lambda x: form.apply(x, tensors(parts))[..., 3:5].sum())(x)

    expected = np.broadcast_to(weights[3:5].sum(0), x.shape)
    np.testing.assert_allclose(gradient(x), expected, rtol=1e-5, atol=1e-6)


@only_on_jax
def test_the_program_calls_the_kernel() -> None:
    if kernels_in_use() is None:
        pytest.skip("built without native kernels")
    form, parts, _ = packed("Q8_0", 16, 1)
    program = jax.jit(lambda x: form.apply(x, tensors(parts)))
    assert "nextword_packed_linear" in program.lower(jnp.ones((64, 32))).as_text()
