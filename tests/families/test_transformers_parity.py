"""Every family computes what transformers computes, cached or not, alone or in a batch."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
import transformers

import nextword
from families.cases import CASES, Case
from nextword.models.family import find_family
from nextword.models.formats.offered_settings import differences
from nextword.presets import resolve_preset
from nextword.presets.checkpoint import open_checkpoint

LENGTHS = (1, 7, 40)
# One shape for every full pass: each new one compiles every operation anew.
ROWS, WIDTH = 2, 100


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def pair(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same checkpoint, loaded by transformers and by nextword."""
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


def full_pass(model: Any, token_ids: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Return the logits of `[ROWS, WIDTH]` token ids."""
    assert token_ids.shape == (ROWS, WIDTH)
    mask = np.ones_like(token_ids) if mask is None else mask
    return keras.ops.convert_to_numpy(model({"token_ids": token_ids, "padding_mask": mask}))


def random_rows(reference: Any) -> np.ndarray:
    return np.random.default_rng(1).integers(0, reference.config.vocab_size, (ROWS, WIDTH))


def test_logits(pair: Any) -> None:
    reference, ours = pair
    token_ids = random_rows(reference)
    with torch.no_grad():
        expected = reference(torch.tensor(token_ids)).logits.numpy()
    assert np.abs(expected).max() > 1  # the comparison below says something
    np.testing.assert_allclose(full_pass(ours, token_ids), expected, rtol=0, atol=1e-4)


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
    prompt = prompts(reference.config.vocab_size, (7,))[0]
    row = generate(ours, [prompt], 64)[0]
    token_ids = np.array([row + [0] * (WIDTH - len(row))] * ROWS)
    greedy = full_pass(ours, token_ids).argmax(-1)[0]
    assert row[7:] == greedy[6 : len(row) - 1].tolist()


def test_padding_changes_nothing(pair: Any) -> None:
    reference, ours = pair
    token_ids, kept = random_rows(reference), 60
    padded = np.where(np.arange(WIDTH) < kept, token_ids, 3)
    mask = np.broadcast_to(np.arange(WIDTH) < kept, (ROWS, WIDTH)).astype("int32")
    np.testing.assert_allclose(
        full_pass(ours, padded, mask)[:, :kept],
        full_pass(ours, token_ids)[:, :kept],
        rtol=0,
        atol=1e-5,
    )


def test_exported_to_transformers_it_is_the_same_model(
    pair: Any, case: Case, tmp_path: Path
) -> None:
    reference, ours = pair
    ours.export_to_transformers(tmp_path / "exported")

    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "exported").eval()
    assert exported.config.architectures == [type(exported).__name__]
    if case.written_as is None:
        assert type(exported) is type(reference)
    else:
        assert exported.config.model_type == case.written_as
    token_ids = torch.tensor(random_rows(reference))
    with torch.no_grad():
        expected = reference(token_ids).logits.numpy()
        logits = exported(token_ids).logits.numpy()
    # Bit for bit, but where the activation goes by another name, with other last digits, or where
    # another class adds up in another order.
    names = ("hidden_act", "activation_function", "activation")
    respelled = any(
        getattr(exported.config, name, None) != getattr(reference.config, name, None)
        for name in names
    )
    assert np.abs(logits - expected).max() <= (1e-5 if respelled or case.written_as else 0)

    checkpoint = open_checkpoint(resolve_preset(tmp_path / "exported"))
    _, stored = find_family(checkpoint)
    again = type(ours.backbone).describe(**stored.arguments(checkpoint))
    assert differences(again, ours.backbone.config) == {}
    assert again.context_length == ours.backbone.config.context_length
