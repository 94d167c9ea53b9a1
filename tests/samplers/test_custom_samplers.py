"""Samplers that users write, as KerasHub documents them: `get_next_token(probabilities)`."""

import keras
import numpy as np
import pytest
from keras import ops

from nextword.samplers import RandomSampler, Sampler, TopKSampler
from samplers import oracles

LOGITS = np.log([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]])


class SecondBest(Sampler):
    def get_next_token(self, probabilities):
        return ops.top_k(probabilities, 2)[1][:, 1]


class Forbidding(Sampler):
    def __init__(self, forbidden_tokens, **kwargs):
        super().__init__(**kwargs)
        self.forbidden_tokens = forbidden_tokens

    def get_next_token(self, probabilities):
        batch_size = ops.shape(probabilities)[0]
        for token in self.forbidden_tokens:
            probabilities = ops.slice_update(probabilities, (0, token), ops.zeros((batch_size, 1)))
        return ops.argmax(probabilities, axis=-1)


class ForbiddingTopK(TopKSampler):
    def get_next_token(self, probabilities):
        allowed = ops.convert_to_tensor(np.array([0, 1, 1, 1], dtype="float32"))
        return super().get_next_token(probabilities * allowed)


class Stateful(Sampler):
    """Draws with a generator of its own, as KerasHub's samplers do."""

    def __init__(self, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def get_next_token(self, probabilities):
        logits = ops.log(probabilities)
        return keras.random.categorical(logits, 1, seed=self.generator, dtype="int32")[:, 0]


def test_an_override_gets_probabilities_and_its_choice_stands():
    tokens = oracles.choose(SecondBest(), LOGITS, [0, 0], [0, 0])
    assert tokens.tolist() == [1, 2]
    tokens = oracles.choose(Forbidding([0, 3]), LOGITS, [0, 0], [0, 0])
    assert tokens.tolist() == [1, 2]


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_probabilities_have_the_temperature_applied(temperature):
    class Sees(Sampler):
        def get_next_token(self, probabilities):
            self.seen = probabilities
            return ops.argmax(probabilities, axis=-1)

    sampler = Sees(temperature=temperature)
    sampler.next_tokens(
        ops.convert_to_tensor(LOGITS.astype("float32")),
        oracles.parameters_of(sampler, sampler),
        ops.convert_to_tensor(oracles.words_of([0, 0])),
        ops.zeros((2,), dtype="int32"),
    )
    expected = oracles.softmax(LOGITS / temperature)
    np.testing.assert_allclose(oracles.to_numpy(sampler.seen), expected, atol=1e-6)


def test_super_draws_from_the_edited_probabilities_with_the_seed_of_the_row():
    draws = 10_000
    sampler = ForbiddingTopK(k=2, temperature=2)
    tokens = oracles.choose(sampler, np.tile(LOGITS[:1], (draws, 1)), range(draws), [5] * draws)
    logits = LOGITS[0].copy()
    logits[0] = -np.inf
    probabilities = oracles.kept_probabilities(logits, temperature=2, k=2)
    assert oracles.chi_square_excess(tokens, probabilities) < 4


def test_super_is_greedy_at_temperature_zero_among_what_the_override_leaves():
    tokens = oracles.choose(ForbiddingTopK(temperature=0), LOGITS, [1, 2], [0, 0])
    assert tokens.tolist() == [1, 3]


def test_an_override_that_only_calls_super_changes_nothing():
    class Same(RandomSampler):
        def get_next_token(self, probabilities):
            return super().get_next_token(probabilities)

    logits = np.random.default_rng(0).normal(size=(32, 400))
    arguments = logits, range(32), [3] * 32
    same = oracles.choose(Same(temperature=0.7), *arguments)
    np.testing.assert_array_equal(same, oracles.choose(RandomSampler(temperature=0.7), *arguments))


def test_a_seed_generator_follows_the_seed_and_step_of_each_row():
    logits = np.zeros((6, 1000))
    seeds, steps = [1, 1, 2, 2, 1, 2**40], [0, 1, 0, 1, 0, 0]
    first = oracles.choose(Stateful(seed=11), logits, seeds, steps)
    again = oracles.choose(Stateful(seed=22), logits, seeds, steps)
    np.testing.assert_array_equal(first, again)
    assert first[0] == first[4]
    assert len(set(first.tolist())) == 5
    alone = oracles.choose(Stateful(), logits[:1], seeds[3:4], steps[3:4])
    assert alone[0] == first[3]


def test_a_seed_generator_draws_from_the_right_distribution_and_is_left_as_it_was():
    sampler = Stateful(seed=1)
    state = oracles.to_numpy(sampler.generator.state.value)
    step = oracles.compiled(sampler.next_tokens)
    parameters = oracles.parameters_of(*[sampler] * 8)
    logits = ops.convert_to_tensor(np.tile(LOGITS[:1], (8, 1)).astype("float32"))
    tokens = [
        step(
            logits,
            parameters,
            ops.convert_to_tensor(oracles.words_of(range(8))),
            ops.full((8,), number, dtype="int32"),
        )
        for number in range(200)
    ]
    tokens = np.concatenate([oracles.to_numpy(some) for some in tokens])
    assert oracles.chi_square_excess(tokens, oracles.softmax(LOGITS[0])) < 4
    np.testing.assert_array_equal(oracles.to_numpy(sampler.generator.state.value), state)


def test_get_next_token_says_that_it_cannot_draw_outside_of_a_step():
    with pytest.raises(RuntimeError, match="call `next_tokens`"):
        RandomSampler().get_next_token(ops.ones((1, 4)))


def test_a_failing_override_leaves_nothing_behind():
    class Fails(RandomSampler):
        def get_next_token(self, probabilities):
            raise KeyError("no")

    with pytest.raises(KeyError):
        oracles.choose(Fails(), LOGITS, [0, 0], [0, 0])
    with pytest.raises(RuntimeError, match="call `next_tokens`"):
        RandomSampler().get_next_token(ops.ones((1, 4)))
