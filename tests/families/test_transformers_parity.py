"""Every family computes what transformers computes, cached or not, alone or in a batch."""

from typing import Any

import keras
import numpy as np
import pytest
import torch

import nextword
from families.cases import CASES, Case

LENGTHS = (1, 7, 40)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same checkpoint, loaded by transformers and by nextword."""
    case: Case = request.param
    directory = tmp_path_factory.mktemp(case.name)
    reference = case.make(directory)
    ours = nextword.models.CausalLM.from_preset(directory, preprocessor=None)
    ours.compile(sampler="greedy")
    return reference, ours


def prompts(vocabulary_size: int, lengths: tuple[int, ...] = LENGTHS) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, vocabulary_size, length) for length in lengths]


def generate(model: Any, batch: list[np.ndarray], new_tokens: int) -> list[list[int]]:
    width = max(map(len, batch))
    token_ids = np.array([np.pad(row, (0, width - len(row))) for row in batch])
    mask = np.array([np.arange(width) < len(row) for row in batch])
    outputs = model.generate(
        {"token_ids": token_ids, "padding_mask": mask},
        stop_token_ids=None,
        max_new_tokens=new_tokens,
    )
    return [
        ids[kept].tolist()
        for ids, kept in zip(outputs["token_ids"], outputs["padding_mask"], strict=True)
    ]


def test_logits(pair: Any) -> None:
    reference, ours = pair
    token_ids = np.random.default_rng(1).integers(0, reference.config.vocab_size, (2, 100))
    with torch.no_grad():
        expected = reference(torch.tensor(token_ids)).logits.numpy()
    logits = ours({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    assert np.abs(expected).max() > 1  # the comparison below says something
    np.testing.assert_allclose(keras.ops.convert_to_numpy(logits), expected, rtol=0, atol=1e-4)


def test_greedy_tokens_and_batch_invariance(pair: Any) -> None:
    reference, ours = pair
    batch = prompts(reference.config.vocab_size)
    with torch.no_grad():
        expected = [
            reference.generate(
                torch.tensor(row)[None],
                attention_mask=torch.ones(1, len(row)),
                max_new_tokens=64,
                do_sample=False,
            )[0].tolist()
            for row in batch
        ]
    together = generate(ours, batch, 64)
    assert together == expected
    assert [generate(ours, [row], 64)[0] for row in batch] == together


def test_cached_decode_equals_the_full_pass(pair: Any) -> None:
    reference, ours = pair
    prompt = prompts(reference.config.vocab_size, (5,))[0]
    row = np.array(generate(ours, [prompt], 40))
    logits = ours({"token_ids": row, "padding_mask": np.ones_like(row)})
    greedy = keras.ops.convert_to_numpy(keras.ops.argmax(logits, axis=-1))
    assert row[0, 5:].tolist() == greedy[0, 4:-1].tolist()


def test_padding_changes_nothing(pair: Any) -> None:
    reference, ours = pair
    row = prompts(reference.config.vocab_size, (12,))[0][None]
    padded = np.pad(row, ((0, 0), (0, 5)), constant_values=3)
    mask = np.arange(17)[None] < 12
    alone = ours({"token_ids": row, "padding_mask": np.ones_like(row)})
    with_padding = ours({"token_ids": padded, "padding_mask": mask})
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(with_padding)[:, :12],
        keras.ops.convert_to_numpy(alone),
        rtol=0,
        atol=1e-5,
    )
