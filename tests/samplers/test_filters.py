import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from nextword.samplers.filters import filter_top_k, filter_top_p
from samplers import oracles

VOCABULARY_SIZE = 24
top_k = oracles.compiled(filter_top_k)
top_p = oracles.compiled(filter_top_p)


def kept_by(compiled_filter, rows, limits, dtype):
    rows = np.asarray(rows, dtype="float32")
    filtered = oracles.to_numpy(
        compiled_filter(
            ops.convert_to_tensor(rows), ops.convert_to_tensor(np.asarray(limits, dtype=dtype))
        )
    )
    kept = filtered != -np.inf
    np.testing.assert_array_equal(filtered[kept], rows[kept])
    return kept


def kept_by_top_k(rows, k):
    return kept_by(top_k, rows, k, "int32")


def kept_by_top_p(rows, p):
    return kept_by(top_p, rows, p, "float32")


floats = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.5, np.inf * -1, 1e-45, -1e-45, 3.4e38, -3.4e38]),
    st.floats(-50, 50, width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
)
rows_of_logits = st.lists(floats, min_size=VOCABULARY_SIZE, max_size=VOCABULARY_SIZE)


@settings(max_examples=300, deadline=None)
@given(rows_of_logits, st.integers(-1, VOCABULARY_SIZE + 3))
def test_top_k_keeps_what_a_sort_keeps(row, k):
    row = np.array(row, dtype="float32")
    expected = oracles.keep_top_k(row, k) & (row > -np.inf)
    np.testing.assert_array_equal(kept_by_top_k([row], [k])[0], expected)


@settings(max_examples=300, deadline=None)
@given(rows_of_logits, st.floats(2.0**-20, 1, width=32))
def test_top_p_keeps_the_fewest_tokens_that_reach_p(row, p):
    row = np.array(row, dtype="float32")
    kept = kept_by_top_p([row], [p])[0]
    if row.max() == -np.inf or p == 1:
        np.testing.assert_array_equal(kept, row > -np.inf)
        return
    assert row[kept].min() > row[~kept].max(initial=-np.inf)
    probabilities = oracles.softmax(row)
    rounding = 1e-6
    assert probabilities[kept].sum() >= p - rounding
    without_last = kept & (row > row[kept].min())
    assert probabilities[without_last].sum() < p + rounding


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(2.0**-7, 1, width=32), st.floats(0.1, 20))
def test_top_p_keeps_what_a_sort_keeps(seed, p, spread):
    row = (np.random.default_rng(seed).normal(size=VOCABULARY_SIZE) * spread).astype("float32")
    sums = np.cumsum(-np.sort(-oracles.softmax(row)))
    if np.abs(sums - p).min() > 1e-6 or p == 1:
        np.testing.assert_array_equal(kept_by_top_p([row], [p])[0], oracles.keep_top_p(row, p))


@pytest.mark.parametrize("width", [100, 1000, 50_257])
def test_filters_are_exact_on_a_whole_vocabulary(width):
    rng = np.random.default_rng(width)
    rows = (rng.normal(size=(6, width)) * [[0.01], [1], [2], [4], [8], [100]]).astype("float32")
    k = [1, 5, width // 2, width - 1, width, 3]
    expected = [oracles.keep_top_k(row, limit) for row, limit in zip(rows, k, strict=True)]
    np.testing.assert_array_equal(kept_by_top_k(rows, k), expected)
    p = np.array([0.1, 0.5, 0.9, 0.99, 0.5, 1], dtype="float32")
    expected = [oracles.keep_top_p(row, limit) for row, limit in zip(rows, p, strict=True)]
    kept = kept_by_top_p(rows, p)
    # float32 rounds sums of many thousand probabilities near the seventh digit.
    assert np.abs(kept.sum(axis=1) - np.sum(expected, axis=1)).max() <= width * 2e-6
    np.testing.assert_array_equal(kept[-2:], expected[-2:])


def test_p_that_equals_a_sum_of_probabilities_exactly_needs_no_further_token():
    rows, limits, expected = [], [], []
    for count in range(2, 33):
        # Different logits whose probabilities round to the same 1 / count.
        row = np.full(33, -np.inf)
        row[:count] = np.arange(count, 0, -1) * 2.0**-40
        for share in range(1, count):
            rows.append(row)
            limits.append(share / count)
            expected.append(share)
    kept = kept_by_top_p(rows, limits)
    np.testing.assert_array_equal(kept.sum(axis=1), expected)


def test_ties_with_the_last_token_are_kept():
    row = [3.0, 1.0, 2.0, 2.0, 2.0, 0.0]
    assert kept_by_top_k([row], [2])[0].tolist() == [True, False, True, True, True, False]
    assert kept_by_top_p([row], [0.6])[0].tolist() == [True, False, True, True, True, False]


def test_plus_and_minus_zero_tie():
    assert kept_by_top_k([[0.0, -0.0, -1.0]], [1])[0].tolist() == [True, True, False]


def test_removed_tokens_stay_removed():
    row = [-np.inf, 1.0, -np.inf, 0.0]
    assert kept_by_top_k([row] * 3, [1, 3, 4]).sum(axis=1).tolist() == [1, 2, 2]
    assert kept_by_top_p([row] * 3, [0.5, 0.9, 1.0]).sum(axis=1).tolist() == [1, 2, 2]
    assert not kept_by_top_k([[-np.inf] * 4], [2]).any()
    assert not kept_by_top_p([[-np.inf] * 4], [0.5]).any()


@pytest.mark.parametrize("k", [0, -1, 4, 5, 2**31 - 1])
def test_k_beyond_the_vocabulary_or_below_one_keeps_all(k):
    assert kept_by_top_k([[1.0, 2.0, 3.0, 4.0]], [k]).all()


@pytest.mark.parametrize("p", [1e-45, 1e-30, 0.01, 0.6])
def test_top_p_keeps_at_least_the_most_probable_token(p):
    assert kept_by_top_p([[1.0, 2.0, 6.0, 4.0]], [p])[0].tolist() == [False, False, True, False]


def test_every_row_has_its_own_limit():
    rows = [[1.0, 2.0, 3.0, 4.0]] * 4
    assert kept_by_top_k(rows, [1, 2, 3, 0]).sum(axis=1).tolist() == [1, 2, 3, 4]
    assert kept_by_top_p(rows, [0.5, 0.8, 0.9, 1.0]).sum(axis=1).tolist() == [1, 2, 3, 4]
