"""Speculative decoding changes the speed and nothing else: same tokens, same distribution."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nextword
from families.cases import CASES
from generation.tiny import full_pass_logits, make_request, run, tiny_backbone
from nextword.generation import Engine, Request
from nextword.samplers import (
    BeamSampler,
    GreedySampler,
    RandomSampler,
    Sampler,
    SpeculativeSampler,
    TopKSampler,
    TopPSampler,
)
from samplers import oracles


@pytest.fixture(scope="module")
def target() -> Engine:
    return Engine(tiny_backbone())


@pytest.fixture(scope="module")
def draft(target: Engine) -> Engine:
    """A draft whose guesses are sometimes right: the model itself, disturbed."""
    backbone = tiny_backbone()
    random = np.random.default_rng(0)
    for weight in backbone.weights:
        value = np.asarray(weight)
        weight.assign(value + 0.03 * value.std() * random.normal(size=value.shape))
    return Engine(backbone)


def run_counted(
    target: Engine, draft: Engine, requests: list[Request], sampler: SpeculativeSampler
) -> tuple[list[list[int]], Any]:
    tokens: list[list[int]] = [[] for _ in requests]
    generation = target.generate(requests, sampler, draft)
    for token in generation:
        tokens[token.request].append(token.token_id)
    return tokens, generation.statistics


@pytest.mark.parametrize("count", [1, 4])
def test_greedy_tokens_are_the_same_with_a_draft(target: Engine, draft: Engine, count: int) -> None:
    requests = [make_request(length, max_new_tokens=40) for length in (1, 7, 40, 600)]
    plain = run(target, requests, GreedySampler())
    tokens, statistics = run_counted(target, draft, requests, SpeculativeSampler(count))
    assert tokens == plain
    assert 0.1 < statistics.acceptance_rate < 0.95  # some guesses were right and some wrong
    assert statistics.drafted_tokens % count == 0


def test_models_of_different_families(tmp_path: Path) -> None:
    engines = {}
    for name in ("llama", "gpt2"):
        next(case for case in CASES if case.name == name).make(tmp_path / name)
        lm = nextword.models.CausalLM.from_preset(tmp_path / name, preprocessor=None)
        engines[name] = Engine(lm.backbone)
    requests = [make_request(length, max_new_tokens=24) for length in (3, 30)]
    for name, other in itertools.permutations(engines):
        plain = run(engines[name], requests, GreedySampler())
        assert run(engines[name], requests, SpeculativeSampler(), engines[other]) == plain


@pytest.mark.parametrize("base_sampler", [None, TopKSampler(k=9)], ids=repr)
def test_a_model_accepts_all_that_it_proposes_to_itself(
    target: Engine, base_sampler: Sampler | None
) -> None:
    requests = [make_request(7, seed=1, max_new_tokens=32), make_request(40, max_new_tokens=32)]
    sampler = SpeculativeSampler(4, base_sampler)
    tokens, statistics = run_counted(target, target, requests, sampler)
    assert [len(row) for row in tokens] == [32, 32]
    assert statistics.generated_tokens == 64
    # The first token comes with the prompt, and seven rounds make 35 tokens of each row.
    assert statistics.drafted_tokens == statistics.accepted_tokens == 2 * 7 * 4


@pytest.mark.parametrize(
    "base_sampler",
    [RandomSampler(temperature=1.3), TopPSampler(p=0.8, k=9, temperature=0.7)],
    ids=repr,
)
def test_a_request_is_the_same_alone_and_in_any_batch(
    target: Engine, draft: Engine, base_sampler: Sampler
) -> None:
    sampler = SpeculativeSampler(3, base_sampler)
    requests = [make_request(n, seed=n, max_new_tokens=20 - n // 4) for n in (1, 7, 40)]
    alone = [run(target, [request], sampler, draft)[0] for request in requests]
    assert run(target, requests, sampler, draft) == alone
    assert run(target, requests[::-1], sampler, draft) == alone[::-1]
    few_slots = Engine(target.decoder, max_slots=4)  # one request at a time
    assert run(few_slots, requests, sampler, draft) == alone


def test_requests_end_inside_of_a_block(target: Engine) -> None:
    """At each place of a block, by a stop token and by the length; all proposals are accepted."""
    plain = run(target, [make_request(49)], GreedySampler())[0]
    assert len(set(plain)) == len(plain) == 12
    requests = [make_request(49, max_new_tokens=length) for length in range(1, 13)]
    requests += [make_request(49, stop_token_ids=frozenset([token_id])) for token_id in plain]
    expected = [(plain[:length], "length") for length in range(1, 13)]
    expected += [(plain[:length], "stop") for length in range(1, 13)]
    tokens = list(target.generate(requests, SpeculativeSampler(4), target))
    found = [
        (
            [token.token_id for token in tokens if token.request == index],
            [token.finish_reason for token in tokens if token.request == index][-1],
        )
        for index in range(len(requests))
    ]
    assert found == expected


SIZE, ROWS, LENGTH = 6, 4000, 4


@pytest.fixture(scope="module")
def small_pair() -> tuple[Engine, Engine]:
    """A model and a draft that disagree, over a vocabulary whose sequences can be counted."""
    changes = {
        "vocabulary_size": SIZE,
        "num_layers": 1,
        "num_query_heads": 1,
        "num_key_value_heads": 1,
        "hidden_dim": 8,
        "intermediate_dim": 8,
    }
    target, draft = (
        Engine(tiny_backbone(seed, sharpness=25, **changes), max_slots=4 * ROWS) for seed in (1, 2)
    )
    return target, draft


PROMPT = [3, 1, 4]


def next_token_probabilities(engine: Engine, sampler: Sampler) -> dict[tuple[int, ...], np.ndarray]:
    """Return the exact distribution of the token after every possible beginning."""
    limits = {"k": getattr(sampler, "k", 0) or 0, "p": getattr(sampler, "p", 1.0)}
    rows = list(itertools.product(range(SIZE), repeat=LENGTH - 1))
    logits = full_pass_logits(engine.decoder, [[*PROMPT, *row] for row in rows])
    return {
        row[:length]: oracles.kept_probabilities(some[length], sampler.temperature, **limits)
        for row, some in zip(rows, logits[:, len(PROMPT) - 1 :], strict=True)
        for length in range(LENGTH)
    }


@pytest.mark.parametrize(
    "base_sampler",
    [RandomSampler(temperature=2.0), TopKSampler(k=3, temperature=1.5), TopPSampler(p=0.8)],
    ids=repr,
)
def test_tokens_follow_the_exact_distribution(
    small_pair: tuple[Engine, Engine], base_sampler: Sampler
) -> None:
    target, draft = small_pair
    requests = [Request(token_ids=PROMPT, max_new_tokens=LENGTH, seed=seed) for seed in range(ROWS)]
    sampler = SpeculativeSampler(2, base_sampler)
    tokens, statistics = run_counted(target, draft, requests, sampler)
    assert 0.1 < statistics.acceptance_rate < 0.9  # both happen often
    probabilities = next_token_probabilities(target, base_sampler)
    joint = np.zeros((SIZE,) * LENGTH)
    for row in itertools.product(range(SIZE), repeat=LENGTH):
        joint[row] = np.prod([probabilities[row[:n]][row[n]] for n in range(LENGTH)])
    assert joint.sum() == pytest.approx(1)
    for first in range(LENGTH - 1):  # each token together with the one before it
        others = tuple(axis for axis in range(LENGTH) if axis not in (first, first + 1))
        pairs = [row[first] * SIZE + row[first + 1] for row in tokens]
        expected = joint.sum(axis=others).ravel()
        rare = (expected > 0) & (expected * ROWS < 8)
        # Rare pairs are counted together.
        merged = np.append(np.where(rare, 0, expected), expected[rare].sum())
        counted = np.where(rare[pairs], SIZE * SIZE, pairs)
        if not rare.any():
            merged = merged[:-1]
        assert (merged > 0).sum() > 3
        assert oracles.chi_square_excess(counted, merged) < 4


def test_as_many_proposals_are_accepted_as_can_be(small_pair: tuple[Engine, Engine]) -> None:
    """The chance that two distributions' draws agree is at most the sum of their minimum."""
    target, draft = small_pair
    base_sampler = RandomSampler(temperature=1.5)
    requests = [Request(token_ids=PROMPT, max_new_tokens=2, seed=seed) for seed in range(ROWS)]
    _, statistics = run_counted(target, draft, requests, SpeculativeSampler(1, base_sampler))
    p, q = (next_token_probabilities(engine, base_sampler) for engine in small_pair)
    expected = sum(p[()][n] * np.minimum(p[(n,)], q[(n,)]).sum() for n in range(SIZE))
    assert statistics.drafted_tokens == ROWS
    deviation = np.sqrt(expected * (1 - expected) / ROWS)
    assert abs(statistics.acceptance_rate - expected) < 4 * deviation


def test_only_new_shapes_compile(target: Engine, draft: Engine, compilations: list[str]) -> None:
    requests = [make_request(17, seed=3), make_request(5)]
    run(target, requests, SpeculativeSampler(3, TopKSampler(k=3)), draft)
    warm = len(compilations)
    others = [
        make_request(30, seed=2**60, stop_token_ids=frozenset([1, 2])),
        make_request(9, max_new_tokens=20),
    ]
    run(target, others, SpeculativeSampler(3, TopKSampler(k=50, temperature=0.3), seed=2), draft)
    assert len(compilations) == warm
    run(target, others, SpeculativeSampler(2, TopKSampler()), draft)
    assert len(compilations) > warm


def test_a_draft_is_for_speculative_sampling_alone(target: Engine) -> None:
    request = make_request(7)
    with pytest.raises(ValueError, match="SpeculativeSampler needs a `draft`"):
        target.generate([request], SpeculativeSampler())
    for sampler in (GreedySampler(), BeamSampler()):
        with pytest.raises(ValueError, match=f"{type(sampler).__name__} takes no `draft`"):
            target.generate([request], sampler, target)
