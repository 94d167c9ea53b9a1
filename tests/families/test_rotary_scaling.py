"""Scalings of the rotary embedding whose frequencies depend on how long a text is."""

from typing import Any

import keras
import numpy as np
import pytest
import torch

import nextword
from families.cases import OUTGROWN, Case
from nextword.layers import RotaryConfig, rotary_scaling
from nextword.layers.rotary_embedding import RotaryEmbedding

CONTEXT, WIDTH, NEW_TOKENS = 32, 64, 14
# Below the context of pre-training for good, growing beyond it, and above it from the start.
LENGTHS = (5, 25, 40)


@pytest.fixture(scope="module", params=OUTGROWN, ids=lambda case: case.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same checkpoint, loaded by transformers and by nextword."""
    case: Case = request.param
    directory = tmp_path_factory.mktemp(case.name)
    reference = case.make(directory)
    ours = nextword.models.CausalLM.from_preset(directory, preprocessor=None)
    ours.compile(sampler="greedy")
    return reference, ours


def texts(lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 131, length).tolist() for length in lengths]


def reference_logits(reference: Any, text: list[int]) -> np.ndarray:
    with torch.no_grad():
        reference(torch.tensor([[0]]))  # it remembers the longest text, until it sees a short one
        return reference(torch.tensor([text])).logits[0].numpy()


def our_logits(model: Any, rows: list[list[int]]) -> list[np.ndarray]:
    token_ids = np.array([row + [7] * (WIDTH - len(row)) for row in rows])
    mask = np.array([np.arange(WIDTH) < len(row) for row in rows]).astype("int32")
    logits = keras.ops.convert_to_numpy(model({"token_ids": token_ids, "padding_mask": mask}))
    return [row_logits[: len(row)] for row_logits, row in zip(logits, rows, strict=True)]


def generate(model: Any, rows: list[list[int]]) -> list[list[int]]:
    width = max(map(len, rows))
    outputs = model.generate(
        {
            "token_ids": np.array([row + [0] * (width - len(row)) for row in rows]),
            "padding_mask": np.array([np.arange(width) < len(row) for row in rows]),
        },
        stop_token_ids=None,
        max_new_tokens=NEW_TOKENS,
    )
    kept = zip(outputs["token_ids"], outputs["padding_mask"], strict=True)
    return [ids[mask].tolist() for ids, mask in kept]


def test_each_row_of_a_batch_has_the_frequencies_of_its_own_length(pair: Any) -> None:
    reference, ours = pair
    rows = texts((CONTEXT - 1, CONTEXT, CONTEXT + 1, 60))
    for row, logits in zip(rows, our_logits(ours, rows), strict=True):
        np.testing.assert_allclose(logits, reference_logits(reference, row), rtol=0, atol=1e-4)


def test_generation_on_both_sides_of_the_change_and_across_it(pair: Any) -> None:
    reference, ours = pair
    expected = []
    for text in texts():
        reference_logits(reference, text)
        reference(torch.tensor([[0]]))
        generated = reference.generate(
            torch.tensor([text]), max_new_tokens=NEW_TOKENS, do_sample=False
        )
        expected.append(generated[0].tolist())
    together = generate(ours, texts())
    assert together == expected
    assert [generate(ours, [text])[0] for text in texts()] == together
    is_recomputed = ours.backbone.config.recomputed_beyond is not None
    for row, length in zip(together, LENGTHS, strict=True):
        if is_recomputed or len(row) <= CONTEXT:  # then nothing that is cached is out of date
            continuations = [row[:end] for end in range(length, len(row))]
            greedy = [int(logits[-1].argmax()) for logits in our_logits(ours, continuations)]
            assert greedy == row[length:]


def test_settings_that_are_none() -> None:
    with pytest.raises(ValueError, match="'kind'.*'linear'.*Received: 'ntk'"):
        rotary_scaling({"kind": "ntk", "factor": 2.0})
    with pytest.raises(ValueError, match="'linear' has the attributes factor. Received: scale"):
        rotary_scaling({"kind": "linear", "scale": 2.0})
    with pytest.raises(ValueError, match="`factor` .* must be positive"):
        rotary_scaling({"kind": "dynamic", "factor": -2.0, "original_context_length": 8})
    with pytest.raises(ValueError, match="`factors` .* must have 4 entries.*Received: 3"):
        RotaryConfig(scaling=rotary_scaling({"kind": "pairs", "factors": [1.0] * 3})).check(8)


def test_a_factor_for_each_pair_divides_its_frequency() -> None:
    scaling = rotary_scaling({"kind": "pairs", "factors": [1.0, 4.0]})
    plain = RotaryEmbedding(RotaryConfig(), 4).frequencies()
    scaled = RotaryEmbedding(RotaryConfig(scaling=scaling), 4).frequencies()
    assert scaled.tolist() == (plain / np.array([1, 4], "float32")).tolist()
