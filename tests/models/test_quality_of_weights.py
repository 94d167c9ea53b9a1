"""What rounding weights and computing with kernels do to the real model: next to nothing."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from benchmarks.models import benchmark_text
from benchmarks.protocol import perplexity

import nextword
from nextword.ops.native import kernels_in_use, kernels_used


@pytest.fixture(scope="module")
def token_ids(smollm2: Any) -> list[int]:
    return list(smollm2.preprocessor.tokenizer.tokenize(benchmark_text()))


def logits(lm: Any, token_ids: list[int]) -> np.ndarray:
    batch = np.array([token_ids], "int32")
    outputs = lm({"token_ids": batch, "padding_mask": np.ones_like(batch)})
    return np.asarray(keras.ops.convert_to_numpy(outputs), "float32")[0]


@pytest.fixture(scope="module")
def logits_of_floats(smollm2_in_floats: Any, token_ids: list[int]) -> np.ndarray:
    return logits(smollm2_in_floats, token_ids)


def test_perplexity_in_blocks(
    smollm2: Any, token_ids: list[int], logits_of_floats: np.ndarray
) -> None:
    found = perplexity(logits(smollm2, token_ids), token_ids)
    assert found == pytest.approx(perplexity(logits_of_floats, token_ids), rel=0.005)


@pytest.mark.parametrize("mode", ["int8", "q8_0"])
def test_perplexity_of_rounded_weights(
    smollm2_path: Path, token_ids: list[int], logits_of_floats: np.ndarray, mode: str
) -> None:
    lm = nextword.models.CausalLM.from_preset(smollm2_path, quantization=mode)
    found = perplexity(logits(lm, token_ids), token_ids)
    assert found == pytest.approx(perplexity(logits_of_floats, token_ids), rel=0.005)


@pytest.mark.skipif(kernels_in_use() is None, reason="built without native kernels")
def test_tokens_in_blocks_are_those_of_the_portable_path(
    smollm2: Any, token_ids: list[int]
) -> None:
    chosen = logits(smollm2, token_ids).argmax(-1)
    with kernels_used(None):
        portable = logits(smollm2, token_ids).argmax(-1)
    assert (chosen == portable).mean() >= 0.99


@pytest.mark.skipif(kernels_in_use() is None, reason="built without native kernels")
def test_greedy_tokens_in_float32_are_those_of_the_portable_path(smollm2_path: Path) -> None:
    def text() -> str:
        lm = nextword.models.CausalLM.from_preset(smollm2_path, dtype="float32")
        lm.compile(sampler="greedy")
        return str(lm.generate("The town kept the long stone pier", max_new_tokens=64))

    native = text()
    with kernels_used(None):
        assert text() == native
