"""The hot operations against numpy in float64."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextword.ops import attention, linear


def attention_in_float64(
    query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: np.ndarray, scale: float
) -> np.ndarray:
    query, key, value = (array.astype("float64") for array in (query, key, value))
    outputs = np.zeros_like(query)
    batch, query_heads, query_length, _ = query.shape
    group = query_heads // key.shape[1]
    for b in range(batch):
        for h in range(query_heads):
            for t in range(query_length):
                allowed = mask[b, t]
                scores = key[b, h // group][allowed] @ query[b, h, t] * scale
                weights = np.exp(scores - scores.max())
                outputs[b, h, t] = weights / weights.sum() @ value[b, h // group][allowed]
    return outputs


@settings(deadline=None, max_examples=20)
@given(
    batch=st.integers(1, 3),
    key_value_heads=st.integers(1, 3),
    group=st.integers(1, 4),
    query_length=st.integers(1, 5),
    key_length=st.integers(1, 9),
    seed=st.integers(0, 2**16),
)
def test_attention(
    batch: int, key_value_heads: int, group: int, query_length: int, key_length: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    query = random.normal(size=(batch, key_value_heads * group, query_length, 8))
    key, value = random.normal(size=(2, batch, key_value_heads, key_length, 8))
    mask = random.random((batch, query_length, key_length)) < 0.6
    mask[..., 0] = True
    inputs = [array.astype("float32") for array in (query, key, value)]
    outputs = attention(*inputs, mask, scale=0.3)
    expected = attention_in_float64(*inputs, mask, 0.3)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(outputs), expected, rtol=0, atol=1e-5)


def test_attention_of_a_row_without_keys_is_finite() -> None:
    ones = np.ones((1, 1, 2, 4), "float32")
    outputs = attention(ones, ones, ones, np.zeros((1, 2, 2), "bool"), scale=1.0)
    assert np.isfinite(keras.ops.convert_to_numpy(outputs)).all()


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5)])
@pytest.mark.parametrize("use_bias", [False, True])
def test_linear(shape: tuple[int, ...], use_bias: bool) -> None:
    random = np.random.default_rng(0)
    inputs, kernel = random.normal(size=shape), random.normal(size=(7, 5))
    bias = random.normal(size=7) if use_bias else None
    outputs = linear(
        inputs.astype("float32"),
        kernel.astype("float32"),
        None if bias is None else bias.astype("float32"),
    )
    expected = inputs @ kernel.T + (0 if bias is None else bias)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(outputs), expected, atol=1e-5)
