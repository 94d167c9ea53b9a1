"""Texts that grow beyond what the cache holds of them, because their rotation changes."""

from typing import Any

import numpy as np
import pytest

import nextword
from families.cases import OUTGROWN
from generation.oracles import beam_search, contrastive_search
from generation.tiny import run, run_beams
from nextword.generation import Engine, Request
from nextword.samplers import (
    BeamSampler,
    ContrastiveSampler,
    GreedySampler,
    SpeculativeSampler,
)

CONTEXT, NEW_TOKENS = 32, 10
# Growing beyond the context of pre-training sooner or later, and above it from the start.
LENGTHS = (25, 32, 40)
PROMPTS = [np.random.default_rng(n).integers(0, 131, n).tolist() for n in LENGTHS]
REQUESTS = [Request(token_ids=prompt, max_new_tokens=NEW_TOKENS) for prompt in PROMPTS]


@pytest.fixture(scope="module", params=OUTGROWN, ids=lambda case: case.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model of transformers, and an engine on the same weights."""
    directory = tmp_path_factory.mktemp(request.param.name)
    reference = request.param.make(directory)
    lm = nextword.models.CausalLM.from_preset(directory, preprocessor=None)
    assert lm.backbone.config.changes_beyond == CONTEXT
    return reference, Engine(lm.backbone)


# Only what was cached of these is computed anew.
in_full = pytest.mark.parametrize(
    "pair",
    [case for case in OUTGROWN if "longrope" in case.name],
    indirect=True,
    ids=lambda case: case.name,
)


@in_full
def test_beam_search(pair: Any) -> None:
    reference, engine = pair
    sampler = BeamSampler(3, return_all_beams=True)
    expected = [
        beam_search(reference, prompt, sampler, NEW_TOKENS, use_cache=False) for prompt in PROMPTS
    ]
    assert run_beams(engine, REQUESTS, sampler) == expected


@in_full
def test_contrastive_search(pair: Any) -> None:
    reference, engine = pair
    sampler = ContrastiveSampler(alpha=0.9, temperature=3)
    expected = [contrastive_search(reference, prompt, sampler, NEW_TOKENS) for prompt in PROMPTS]
    assert run(engine, REQUESTS, sampler) == expected


def test_speculative_decoding(pair: Any) -> None:
    _, engine = pair
    plain = run(engine, REQUESTS, GreedySampler())
    assert run(engine, REQUESTS, SpeculativeSampler(3), engine) == plain
