"""Beam search against transformers, and against a search through everything in float64."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import nextword
from families.cases import CASES, Case
from generation.oracles import beam_search
from generation.tiny import make_request, run, run_beams, tiny_backbone
from nextword.generation import Engine, Request
from nextword.samplers import BeamSampler, GreedySampler

STOPS = list(range(3, 131, 9))
PROMPTS = [np.random.default_rng(n).integers(0, 131, n).tolist() for n in (7, 3, 20)]


def load(case: Case, directory: Path) -> tuple[Any, Engine]:
    """Return a model of transformers and an engine on the same weights."""
    reference = case.make(directory)
    lm = nextword.models.CausalLM.from_preset(directory, preprocessor=None)
    return reference, Engine(lm.backbone)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    case = next(case for case in CASES if case.name == request.param)
    return load(case, tmp_path_factory.mktemp(case.name))


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.0, -1.0])
def test_hypotheses_are_those_of_transformers(pair: Any, length_penalty: float) -> None:
    reference, engine = pair
    sampler = BeamSampler(4, return_all_beams=True, length_penalty=length_penalty)
    limits = {"max_new_tokens": 12, "stop_token_ids": frozenset(STOPS)}
    requests = [Request(token_ids=prompt, **limits) for prompt in PROMPTS]
    expected = [beam_search(reference, prompt, sampler, 12, STOPS) for prompt in PROMPTS]
    assert run_beams(engine, requests, sampler) == expected
    assert any(row[-1] in STOPS for rows in expected for row in rows)


def exhaustive_search(
    reference: Any, prompt: list[int], sampler: BeamSampler, request: Request
) -> list[list[int]]:
    """Return every sequence that could be generated, best first."""
    size, length = reference.config.vocab_size, request.max_new_tokens
    everything = np.array(list(itertools.product(range(size), repeat=length)))
    rows = np.concatenate([np.tile(prompt, (len(everything), 1)), everything], axis=1)
    with torch.no_grad():
        logits = reference(torch.tensor(rows)).logits[:, len(prompt) - 1 : -1]
    log_probabilities = (logits / sampler.temperature).log_softmax(-1).numpy()
    scores: dict[tuple[int, ...], float] = {}
    for row, some in zip(everything.tolist(), log_probabilities, strict=True):
        ends = [place + 1 for place, token_id in enumerate(row) if token_id in STOPS]
        count = ends[0] if ends else length
        total = sum(some[place, row[place]] for place in range(count))
        scores[tuple(row[:count])] = total / count**sampler.length_penalty
    return [list(row) for row in sorted(scores, key=scores.__getitem__, reverse=True)]


@pytest.mark.parametrize(
    ("num_beams", "length", "arguments"),
    [
        (6, 2, {}),
        (6, 2, {"length_penalty": 0.0}),
        (36, 3, {}),
        (36, 3, {"temperature": 2.0, "length_penalty": 2.0}),
        (36, 3, {"temperature": 0.5, "length_penalty": -1.5}),
    ],
)
def test_enough_beams_find_the_best_of_all_sequences(
    tmp_path: Path, num_beams: int, length: int, arguments: dict[str, float]
) -> None:
    settings = dict(vars(CASES[0].config()))
    config = transformers.LlamaConfig(**settings | {"vocab_size": 6})
    reference, engine = load(Case("tiny", lambda: config), tmp_path)
    reference = reference.double()
    sampler = BeamSampler(num_beams, return_all_beams=True, **arguments)
    request = Request(token_ids=[5, 1, 2], max_new_tokens=length, stop_token_ids=frozenset(STOPS))
    expected = exhaustive_search(reference, [5, 1, 2], sampler, request)
    assert len(expected) > num_beams
    assert run_beams(engine, [request], sampler)[0] == expected[:num_beams]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_backbone())


def test_a_request_is_the_same_alone_and_in_any_batch(engine: Engine) -> None:
    sampler = BeamSampler(3, return_all_beams=True)
    stops = [frozenset([4, 9]), frozenset(), frozenset([20, 31]), frozenset([7, 11])]
    requests = [
        make_request(length, stop_token_ids=stop, max_new_tokens=new)
        for length, stop, new in zip((1, 7, 40, 33), stops, (12, 3, 9, 1), strict=True)
    ]
    alone = [run_beams(engine, [request], sampler)[0] for request in requests]
    assert run_beams(engine, requests, sampler) == alone
    assert run_beams(engine, requests[::-1], sampler) == alone[::-1]
    few_slots = Engine(engine.decoder, max_slots=7)  # two requests at a time
    assert run_beams(few_slots, requests, sampler) == alone


def test_the_best_sequence_is_the_first_of_all(engine: Engine) -> None:
    request = make_request(7)
    all_sequences = run_beams(engine, [request], BeamSampler(3, return_all_beams=True))[0]
    tokens = list(engine.generate([request], BeamSampler(3)))
    assert [token.token_id for token in tokens] == all_sequences[0]
    assert [token.finish_reason for token in tokens] == [None] * 11 + ["length"]


def test_one_beam_is_greedy(engine: Engine) -> None:
    greedy = run(engine, [make_request(600), make_request(7)], GreedySampler())
    stop = greedy[1][5]
    requests = [make_request(600), make_request(7, stop_token_ids=frozenset([stop]))]
    expected = [greedy[0], greedy[1][: greedy[1].index(stop) + 1]]
    assert run(engine, requests, BeamSampler(1)) == expected


def test_temperature_zero_leaves_the_greedy_sequence(engine: Engine) -> None:
    request = make_request(7)
    sampler = BeamSampler(3, return_all_beams=True, temperature=0)
    greedy = run(engine, [request], GreedySampler())[0]
    assert run_beams(engine, [request], sampler)[0] == [greedy, [], []]


def test_cancelling_ends_a_request(engine: Engine) -> None:
    requests = [make_request(7), make_request(40)]
    plain = run(engine, requests, BeamSampler(3))
    with engine.generate(requests, BeamSampler(3)) as generation:
        rows: list[list[int]] = [[], []]
        for token in generation:
            rows[token.request].append(token.token_id)
            if len(rows[0]) == 2:
                generation.cancel(0)
    assert rows == [plain[0][:2], plain[1]]


def test_only_new_shapes_compile(engine: Engine, compilations: list[str]) -> None:
    run_beams(engine, [make_request(17), make_request(5)], BeamSampler(3))
    warm = len(compilations)
    others = [
        make_request(30, stop_token_ids=frozenset([4])),
        make_request(9, max_new_tokens=20),
    ]
    changed = BeamSampler(3, return_all_beams=True, length_penalty=0.3, temperature=2)
    run_beams(engine, others, changed)
    assert len(compilations) == warm
    run_beams(engine, [*others, make_request(4)], changed)
    assert len(compilations) > warm
