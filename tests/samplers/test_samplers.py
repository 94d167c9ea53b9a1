"""What every sampler promises: the right distribution, and rows that do not know of each other."""

import keras
import numpy as np
import pytest
from keras import ops

from nextword.samplers import GreedySampler, RandomSampler, Sampler, TopKSampler, TopPSampler
from nextword.samplers.selection import CANDIDATES
from samplers import oracles

SAMPLERS = [
    GreedySampler(),
    RandomSampler(temperature=1.3),
    TopKSampler(temperature=0.8),
    TopKSampler(k=200),
    TopPSampler(),
    TopPSampler(p=0.9, temperature=1.5),
    TopPSampler(p=0.7, k=20),
    TopPSampler(p=0.7, k=200, temperature=2),
]
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)


BATCH, VOCABULARY_SIZE = 12, 700  # the same in many tests, so that they compile once


def limits_of(sampler):
    return {"k": getattr(sampler, "k", None) or 0, "p": getattr(sampler, "p", 1.0)}


def random_logits(batch=BATCH, vocabulary_size=VOCABULARY_SIZE, seed=0):
    """Rows from flat to peaked, so that some need the whole vocabulary and some a few tokens."""
    rng = np.random.default_rng(seed)
    spread = np.geomspace(0.1, 10, batch)[:, None]
    return (rng.normal(size=(batch, vocabulary_size)) * spread).astype("float32")


@pytest.mark.parametrize(
    ("sampler", "choices"),
    [
        (RandomSampler(), 12),
        (RandomSampler(temperature=0.5), 12),
        (RandomSampler(temperature=3), 12),
        (TopKSampler(), 5),
        (TopKSampler(k=3, temperature=2), 3),
        (TopPSampler(p=0.8), 6),
        (TopPSampler(p=0.8, temperature=0.5), 3),
        (TopPSampler(p=0.5, k=4), 2),
        (Sampler(), 12),
    ],
    ids=repr,
)
@pytest.mark.parametrize("along", ["steps", "seeds"])
def test_tokens_follow_the_exact_distribution(sampler, choices, along):
    draws = 10_000
    logits = np.linspace(1, -2, 12)[[5, 0, 7, 2, 11, 9, 1, 3, 10, 4, 6, 8]]
    probabilities = oracles.kept_probabilities(
        logits, temperature=sampler.temperature, **limits_of(sampler)
    )
    assert (probabilities > 0).sum() == choices
    counting, still = range(draws), [99] * draws
    seeds, steps = (counting, still) if along == "seeds" else (still, counting)
    tokens = oracles.choose(sampler, np.tile(logits, (draws, 1)), seeds, steps)
    assert oracles.chi_square_excess(tokens, probabilities) < 4


@pytest.mark.parametrize("sampler", [TopKSampler(k=40), TopPSampler(p=0.6)], ids=repr)
def test_tokens_follow_the_exact_distribution_in_a_large_vocabulary(sampler):
    draws = 5_000
    logits = -np.log(np.arange(1, 3 * CANDIDATES)[::-1])
    probabilities = oracles.kept_probabilities(logits, **limits_of(sampler))
    assert (probabilities > 0).sum() < CANDIDATES
    tokens = oracles.choose(sampler, np.tile(logits, (draws, 1)), range(draws), [0] * draws)
    assert oracles.chi_square_excess(tokens, probabilities) < 4


@every_sampler
@pytest.mark.parametrize("vocabulary_size", [CANDIDATES + 1, VOCABULARY_SIZE])
def test_tokens_equal_those_of_a_float64_implementation_with_a_full_sort(sampler, vocabulary_size):
    logits = random_logits(vocabulary_size=vocabulary_size)
    seeds, steps = range(1000, 1000 + BATCH), np.arange(BATCH)[::-1]
    greedy = isinstance(sampler, GreedySampler)
    noise = 0 if greedy else oracles.gumbel_noise(seeds, steps, vocabulary_size)
    with np.errstate(divide="ignore"):
        scores = noise + np.log(
            [
                oracles.kept_probabilities(row, sampler.temperature, **limits_of(sampler))
                for row in logits
            ]
        )
    tokens = oracles.choose(sampler, logits, seeds, steps)
    np.testing.assert_array_equal(tokens, scores.argmax(axis=1))


@every_sampler
@pytest.mark.parametrize("vocabulary_size", [CANDIDATES, VOCABULARY_SIZE])
@pytest.mark.parametrize("temperature", [None, 0])
def test_log_probabilities_are_those_of_the_choice(sampler, vocabulary_size, temperature):
    if temperature is not None:
        sampler = type(sampler).from_config({**sampler.get_config(), "temperature": temperature})
    logits = random_logits(vocabulary_size=vocabulary_size)
    is_greedy = isinstance(sampler, GreedySampler) or temperature == 0
    expected = (
        np.eye(vocabulary_size)[logits.argmax(axis=1)]
        if is_greedy
        else [
            oracles.kept_probabilities(row, sampler.temperature, **limits_of(sampler))
            for row in logits
        ]
    )
    found = sampler.log_probabilities(
        ops.convert_to_tensor(logits), oracles.parameters_of(*[sampler] * BATCH)
    )
    np.testing.assert_allclose(np.exp(oracles.to_numpy(found)), expected, rtol=0, atol=1e-5)


@every_sampler
def test_a_row_is_the_same_alone_in_a_batch_and_in_another_order(sampler):
    logits = random_logits(seed=1)
    seeds, steps = np.arange(BATCH) * 2**40, np.arange(BATCH) % 5
    together = oracles.choose(sampler, logits, seeds.tolist(), steps)
    order = np.random.default_rng(0).permutation(BATCH)
    permuted = oracles.choose(sampler, logits[order], seeds[order].tolist(), steps[order])
    np.testing.assert_array_equal(permuted, together[order])
    alone = [
        oracles.choose(sampler, logits[row, None], [int(seeds[row])], [steps[row]])[0]
        for row in range(BATCH)
    ]
    np.testing.assert_array_equal(alone, together)


@every_sampler
@pytest.mark.parametrize("temperature", [0, 0.0, 1e-320, 1e-40])
def test_temperature_zero_takes_the_most_probable_token(sampler, temperature):
    sampler = type(sampler).from_config({**sampler.get_config(), "temperature": temperature})
    logits = random_logits()
    logits[0] = 1.0
    logits[1, [50, 60]] = 99.0
    expected = logits.argmax(axis=1)
    for seed in range(3):
        tokens = oracles.choose(sampler, logits, [seed] * BATCH, [seed] * BATCH)
        np.testing.assert_array_equal(tokens, expected)


def test_rows_of_one_batch_have_their_own_temperature_k_and_p():
    logits = np.tile(random_logits()[:1], (5, 1))
    rows = [
        TopPSampler(p=1.0, temperature=0),
        TopPSampler(p=1.0, temperature=50),
        TopPSampler(p=1.0, k=1),
        TopPSampler(p=0.5, k=2),
        TopPSampler(p=1e-9, temperature=50),
    ]
    parameters = oracles.parameters_of(*rows)
    tokens = [
        oracles.choose(rows[0], logits, [seed] * 5, [0] * 5, parameters) for seed in range(20)
    ]
    distinct = [len(set(column)) for column in np.transpose(tokens).tolist()]
    assert distinct[0] == distinct[2] == distinct[4] == 1
    assert distinct[1] > 15
    for row, sampler in enumerate(rows):
        alone = [oracles.choose(sampler, logits[:1], [seed], [0]).item() for seed in range(20)]
        assert alone == np.transpose(tokens)[row].tolist()


@pytest.mark.parametrize("temperature", [2.0**-126, 1e-30, 1e-6, 1e30, 3.4e38])
def test_extreme_temperatures_choose_only_tokens_that_may_be_chosen(temperature):
    logits = np.array([[1e4, -np.inf, 3.0, -np.inf, -1e4]] * 50)
    sampler = RandomSampler(temperature=temperature)
    tokens = set(oracles.choose(sampler, logits, range(50), [0] * 50).tolist())
    assert tokens == ({0} if temperature < 1 else {0, 2, 4})


@every_sampler
@pytest.mark.parametrize("vocabulary_size", [CANDIDATES, VOCABULARY_SIZE])
def test_masked_tokens_are_never_chosen(sampler, vocabulary_size):
    logits = np.full((BATCH, vocabulary_size), -np.inf)
    allowed = [1, vocabulary_size - 1]
    logits[:, allowed] = [0.1, 0.0]
    tokens = oracles.choose(sampler, logits, range(BATCH), [0] * BATCH)
    assert set(tokens.tolist()) <= set(allowed)


@every_sampler
@pytest.mark.parametrize("logit", [-np.inf, np.nan])
def test_the_token_is_valid_even_where_no_logit_is(sampler, logit):
    logits = random_logits()
    expected = oracles.choose(sampler, logits, range(BATCH), [0] * BATCH)
    logits[3] = logit
    tokens = oracles.choose(sampler, logits, range(BATCH), [0] * BATCH)
    assert 0 <= tokens[3] < VOCABULARY_SIZE
    others = np.arange(BATCH) != 3
    np.testing.assert_array_equal(tokens[others], expected[others])


def test_logits_of_half_precision_are_sampled_in_float32():
    logits = ops.cast(ops.convert_to_tensor(random_logits(4, 50)), "bfloat16")
    rounded = oracles.to_numpy(ops.cast(logits, "float32"))
    sampler = RandomSampler()
    tokens = oracles.compiled(sampler.next_tokens)(
        logits,
        oracles.parameters_of(*[sampler] * 4),
        ops.convert_to_tensor(oracles.words_of([1, 2, 3, 4])),
        ops.zeros((4,), dtype="int32"),
    )
    expected = oracles.choose(sampler, rounded, [1, 2, 3, 4], [0] * 4)
    np.testing.assert_array_equal(oracles.to_numpy(tokens), expected)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="counts traces of jax.jit")
def test_no_value_causes_another_trace():
    import jax

    variants = {
        GreedySampler: [{}, {"temperature": 0.1}],
        RandomSampler: [{}, {"temperature": 0}, {"temperature": 2, "seed": 3}],
        TopKSampler: [{}, {"k": 1}, {"k": 10**12}, {"temperature": 0}],
        TopPSampler: [{}, {"p": 1}, {"p": 0.5, "k": 3}, {"k": 10**12}, {"temperature": 0.3}],
    }
    for cls, arguments in variants.items():
        traces = []

        @jax.jit
        def step(logits, parameters, seeds, steps, cls=cls, traces=traces):
            traces.append(cls)
            return cls().next_tokens(logits, parameters, seeds, steps)

        for index, some in enumerate(arguments):
            sampler = cls(**some)
            tokens = step(
                random_logits(2, seed=index),
                oracles.parameters_of(sampler, sampler),
                oracles.words_of([index, 2**63 - 1 - index]),
                np.array([index, 2**31 - 1 - index], dtype="int32"),
            )
            assert tokens.shape == (2,)
        assert len(traces) == 1


def test_samplers_that_differ_in_parameters_alone_share_a_program():
    assert TopKSampler(k=3, seed=1).program == TopKSampler(k=4, temperature=2).program
    assert len({sampler.program for sampler in SAMPLERS}) == 4

    class Mine(TopKSampler):
        pass

    mine = Mine()
    assert mine.program == mine.program
    assert mine.program != Mine().program


def test_parameters_are_floats_and_int32_for_every_argument():
    assert RandomSampler(temperature=2).parameters() == {"temperature": 2.0}
    assert TopKSampler(k=10**12).parameters() == {"temperature": 1.0, "k": 2**31 - 1}
    assert TopPSampler(p=1).parameters() == {"temperature": 1.0, "p": 1.0, "k": 0}
    assert TopPSampler(k=7).parameters() == {"temperature": 1.0, "p": 0.1, "k": 7}
    for sampler in SAMPLERS:
        kinds = {name: type(value) for name, value in sampler.parameters().items()}
        assert kinds == {name: int if name == "k" else float for name in kinds}


def test_a_seed_never_changes_its_tokens_between_releases():
    logits = np.tile(np.log(np.arange(1, 2001)), (8, 1))
    sampler = TopKSampler(k=1000)
    tokens = oracles.choose(sampler, logits, [2026] * 8, range(8))
    assert tokens.tolist() == [1226, 1107, 1954, 1875, 1029, 1653, 1802, 1297]
