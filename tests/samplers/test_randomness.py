import numpy as np
import pytest
from keras import ops

from nextword.samplers.randomness import (
    gumbel_noise,
    seed_words,
    substream,
    uniform_at,
)
from samplers import oracles

SEEDS = [0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 123456789012345678, 2**63 - 1]


def noise_of(seeds, steps, vocabulary_size):
    words = ops.convert_to_tensor(oracles.words_of(seeds))
    steps = ops.convert_to_tensor(np.asarray(steps, dtype="int32"))
    return oracles.to_numpy(
        gumbel_noise(words, steps, ops.arange(vocabulary_size, dtype="int32")[None])
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_seed_words_are_int32_and_hold_the_whole_seed(seed):
    low, high = seed_words(seed)
    assert np.array([low, high], dtype="int32").view("uint32").astype(object) @ [1, 2**32] == seed


def test_noise_equals_an_unsigned_numpy_implementation():
    steps = [0, 1, 2, 3, 1000, 2**20, 2**31 - 1, 7, 8]
    noise = noise_of(SEEDS, steps, 1000)
    assert noise.dtype == np.float32
    np.testing.assert_allclose(noise, oracles.gumbel_noise(SEEDS, steps, 1000), rtol=0, atol=3e-6)


def test_a_seed_never_changes_its_noise_between_releases():
    # Whoever wrote down a seed expects the same text next year.
    expected = [0.110888429, 1.77782762, -0.337130904, 0.6887815]
    np.testing.assert_allclose(noise_of([42], [7], 4)[0], expected, atol=3e-6)


def test_noise_of_chosen_tokens_is_that_of_the_whole_vocabulary():
    seeds, steps, tokens = [5, 6], [3, 4], np.array([[9, 0, 255], [1, 1, 77]], dtype="int32")
    chosen = gumbel_noise(
        ops.convert_to_tensor(oracles.words_of(seeds)),
        ops.convert_to_tensor(np.array(steps, dtype="int32")),
        ops.convert_to_tensor(tokens),
    )
    expected = np.take_along_axis(noise_of(seeds, steps, 256), tokens, axis=1)
    np.testing.assert_allclose(oracles.to_numpy(chosen), expected, atol=3e-6)


def test_noise_is_finite_and_reaches_far_into_the_tail():
    noise = noise_of(range(40), [0] * 40, 50_000)
    assert np.isfinite(noise).all()
    # Of two million draws the largest is log(2 * 10**6) = 14.5, give or take a few.
    assert 12 < noise.max() < 22.3
    assert -2.9 < noise.min() < -2.6
    # The numbers that can win are all different: no id wins because it is the lowest.
    largest = np.sort(noise, axis=1)[:, -10:]
    assert (np.diff(largest, axis=1) > 0).all()


@pytest.mark.parametrize(
    ("seeds", "steps", "vocabulary_size"),
    [
        ([7] * 10_000, range(10_000), 4),
        (range(10_000), [0] * 10_000, 4),
        ([seed << 32 for seed in range(10_000)], [0] * 10_000, 4),
        ([11], [0], 40_000),
    ],
    ids=["along steps", "along low seed words", "along high seed words", "along tokens"],
)
def test_noise_is_uniform_and_uncorrelated_along_every_coordinate(seeds, steps, vocabulary_size):
    uniform = np.exp(-np.exp(-noise_of(seeds, steps, vocabulary_size).astype("float64")))
    bins = (uniform.ravel() * 64).astype(int)
    assert abs(oracles.chi_square_excess(bins, np.full(64, 1 / 64))) < 4

    series = uniform.T if len(steps) > 1 else uniform
    for values in series:
        for lag in (1, 2, 3, 16, 256):
            correlation = np.corrcoef(values[lag:], values[:-lag])[0, 1]
            assert abs(correlation) < 4.5 / np.sqrt(len(values))


def test_steps_and_seeds_do_not_stand_in_for_each_other():
    noise = noise_of([3, 4, 3, 4, 3 << 32], [4, 3, 3, 4, 4], 1000)
    correlations = np.corrcoef(noise) - np.eye(5)
    assert np.abs(correlations).max() < 0.15


def test_substreams_are_independent_of_the_seed_and_of_each_other():
    words = ops.convert_to_tensor(oracles.words_of(range(20_000)))
    steps, token_ids = ops.zeros((20_000,), "int32"), ops.zeros((1, 1), "int32")
    streams = [words, *(substream(words, number) for number in (1, 2, 3))]
    draws = [oracles.to_numpy(uniform_at(some, steps, token_ids))[:, 0] for some in streams]
    for values in draws:
        assert 0 < values.min() < 0.001 < 0.999 < values.max() < 1
        bins = (values * 64).astype(int)
        assert abs(oracles.chi_square_excess(bins, np.full(64, 1 / 64))) < 4
    correlations = np.corrcoef(draws)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 4.5 / np.sqrt(20_000)
