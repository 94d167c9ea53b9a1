"""A tiny random decoder, and requests to it."""

from typing import Any

import keras
import numpy as np

import nextword
from nextword.generation import Engine, Request

VOCABULARY_SIZE = 61


def tiny_backbone(seed: int = 0, sharpness: float = 12, **changes: Any) -> Any:
    """Return a random decoder.

    Args:
        seed: of its weights.
        sharpness: what the weights are multiplied with; larger ones make surer predictions.
        **changes: arguments that differ.
    """
    keras.utils.set_random_seed(seed)
    arguments = {
        "vocabulary_size": VOCABULARY_SIZE,
        "num_layers": 2,
        "num_query_heads": 4,
        "hidden_dim": 32,
        "intermediate_dim": 48,
        "num_key_value_heads": 2,
    }
    backbone = nextword.models.LlamaBackbone(**arguments | changes)
    for weight in backbone.weights:
        if weight.path.endswith("kernel") or "embed" in weight.path:
            weight.assign(weight * sharpness)
    return backbone


def make_request(length: int, seed: int = 0, **changes: Any) -> Request:
    """Return a request with a random prompt that depends on its length alone."""
    prompt = np.random.default_rng(length).integers(0, VOCABULARY_SIZE, length).tolist()
    return Request(**{"token_ids": prompt, "max_new_tokens": 12, "seed": seed} | changes)


def run(
    engine: Engine, requests: list[Request], sampler: Any, draft: Engine | None = None
) -> list[list[int]]:
    """Return the tokens of each request, one sequence each."""
    tokens: list[list[int]] = [[] for _ in requests]
    for token in engine.generate(requests, sampler, draft):
        assert token.sequence == 0
        tokens[token.request].append(token.token_id)
    return tokens


def run_beams(engine: Engine, requests: list[Request], sampler: Any) -> list[list[list[int]]]:
    """Return the tokens of all sequences of each request."""
    rows: list[list[list[int]]] = [[[] for _ in range(sampler.num_beams)] for _ in requests]
    for token in engine.generate(requests, sampler):
        rows[token.request][token.sequence].append(token.token_id)
    return rows


def full_pass_logits(backbone: Any, rows: Any) -> np.ndarray:
    """Return the logits of every position of rows of one length, computed without a cache."""
    token_ids = np.array(rows)
    outputs = backbone({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    return keras.ops.convert_to_numpy(backbone.logits(outputs))
