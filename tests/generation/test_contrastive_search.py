"""Contrastive search against a plain one without a cache, on transformers' hidden states."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nextword
from families.cases import CASES
from generation.oracles import contrastive_search
from generation.tiny import make_request, run, tiny_backbone
from nextword.generation import Engine, Request
from nextword.samplers import ContrastiveSampler, GreedySampler

PROMPTS = [np.random.default_rng(n).integers(0, 131, n).tolist() for n in (7, 1, 20)]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of transformers in float64, and an engine on the same weights in float32."""
    directory: Path = tmp_path_factory.mktemp(request.param)
    reference = next(case for case in CASES if case.name == request.param).make(directory)
    lm = nextword.models.CausalLM.from_preset(directory, preprocessor=None)
    return reference.double(), Engine(lm.backbone)


@pytest.mark.parametrize(
    "sampler",
    [
        ContrastiveSampler(),
        ContrastiveSampler(alpha=0.9, temperature=3),
        ContrastiveSampler(k=3, alpha=0.3, temperature=2),
    ],
    ids=repr,
)
def test_tokens_are_those_of_a_full_pass_for_every_candidate(
    pair: Any, sampler: ContrastiveSampler
) -> None:
    reference, engine = pair
    requests = [Request(token_ids=prompt, max_new_tokens=10) for prompt in PROMPTS]
    expected = [contrastive_search(reference, prompt, sampler, 10) for prompt in PROMPTS]
    assert run(engine, requests, sampler) == expected
    assert expected != run(engine, requests, GreedySampler())


@pytest.mark.parametrize("pair", ["llama"], indirect=True)
def test_all_chunks_of_a_long_prompt_are_remembered(pair: Any) -> None:
    reference, engine = pair
    sampler = ContrastiveSampler(alpha=0.9, temperature=3)
    prompt = np.random.default_rng(600).integers(0, 131, 600).tolist()
    tokens = run(engine, [Request(token_ids=prompt, max_new_tokens=4)], sampler)[0]
    assert tokens == contrastive_search(reference, prompt, sampler, 4)
    assert tokens != contrastive_search(reference, prompt[512:], sampler, 4)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(tiny_backbone(sharpness=8))


def test_a_request_is_the_same_alone_and_in_any_batch(engine: Engine) -> None:
    sampler = ContrastiveSampler(k=3)
    plain = run(engine, [make_request(7)], sampler)[0]
    stop = frozenset([plain[4]])
    requests = [make_request(1, max_new_tokens=3), make_request(7, stop_token_ids=stop)]
    requests += [make_request(40), make_request(33, max_new_tokens=1)]
    alone = [run(engine, [request], sampler)[0] for request in requests]
    assert alone[1] == plain[: plain.index(plain[4]) + 1]
    assert run(engine, requests, sampler) == alone
    assert run(engine, requests[::-1], sampler) == alone[::-1]
    few_slots = Engine(engine.decoder, max_slots=7)  # two requests at a time
    assert run(few_slots, requests, sampler) == alone


@pytest.mark.parametrize(
    "sampler", [ContrastiveSampler(k=1), ContrastiveSampler(alpha=0)], ids=repr
)
def test_one_candidate_or_no_penalty_is_greedy(engine: Engine, sampler: Any) -> None:
    requests = [make_request(7), make_request(40)]
    assert run(engine, requests, sampler) == run(engine, requests, GreedySampler())


def test_only_new_shapes_compile(engine: Engine, compilations: list[str]) -> None:
    run(engine, [make_request(17), make_request(5)], ContrastiveSampler(k=3))
    warm = len(compilations)
    others = [
        make_request(30, stop_token_ids=frozenset([4, 5])),
        make_request(9, max_new_tokens=20),
    ]
    run(engine, others, ContrastiveSampler(k=3, alpha=0.1, temperature=0.5))
    assert len(compilations) == warm
    run(engine, others, ContrastiveSampler(k=4))
    assert len(compilations) > warm
