"""`quantize` to blocks of GGUF: what is computed is what the gguf package says of the weights."""

from pathlib import Path
from typing import Any

import gguf
import keras
import numpy as np
import pytest

import nextword
from nextword.generation import Engine, Request
from nextword.models.matrices import matrices
from nextword.ops.native import kernels_in_use, kernels_used
from nextword.samplers import GreedySampler

TOKEN_IDS = np.random.default_rng(0).integers(0, 70, (3, 9))
INPUTS = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
MODES = ["q8_0", "q4_1", "q4_0"]


def model(**kwargs: Any) -> Any:
    keras.utils.set_random_seed(2)
    backbone = nextword.models.LlamaBackbone(
        vocabulary_size=70,  # which is no multiple of 16
        num_layers=2,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=64,
        intermediate_dim=96,
        **kwargs,
    )
    for weight in backbone.weights:
        weight.assign(4 * np.asarray(weight))
    return nextword.models.LlamaCausalLM(backbone)


def unpacked(lm: Any) -> Any:
    """Return a quantized model again, in floats: what its blocks stand for."""
    other = model()
    for path, matrix in matrices(lm.backbone).items():
        kind = gguf.GGMLQuantizationType[matrix.form.mode.upper()]
        parts = {name: np.asarray(part) for name, part in matrix.variables.items()}
        blocks = matrix.form.to_gguf(parts)[: matrix.shape[0]]
        expected = matrices(other.backbone)[path]
        expected.variables["values"].assign(gguf.quants.dequantize(blocks, kind))
    return other


def assert_close(logits: Any, expected: Any) -> None:
    """Compare up to what the 15 bits of activations become in two layers."""
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def tokens(lm: Any, rows: int = 3) -> list[list[int]]:
    requests = [Request(token_ids=ids, max_new_tokens=16) for ids in TOKEN_IDS[:rows].tolist()]
    found: list[list[int]] = [[] for _ in requests]
    for token in Engine(lm.backbone).generate(requests, GreedySampler()):
        found[token.request].append(token.token_id)
    return found


@pytest.mark.parametrize("mode", MODES)
def test_logits(mode: str) -> None:
    lm = model()
    lm.quantize(mode)
    assert_close(np.asarray(lm(INPUTS)), np.asarray(unpacked(lm)(INPUTS)))


@pytest.mark.parametrize("mode", MODES)
def test_kernels_and_portable_operations_agree(mode: str) -> None:
    if kernels_in_use() is None:
        pytest.skip("built without native kernels")
    lm = model()
    lm.quantize(mode)
    assert lm.backbone.token_embedding.embeddings.variables["values"].dtype == "uint8"
    logits, chosen = np.asarray(lm(INPUTS)), tokens(lm)
    with kernels_used(None):
        portable = model()
        portable.quantize(mode)
        assert_close(logits, np.asarray(portable(INPUTS)))
        assert chosen == tokens(portable)
    assert chosen[:1] == tokens(lm, 1)  # alone and in a batch


def test_memory_is_what_the_bits_say() -> None:
    lm = model()
    elements = sum(w.value.size for w in lm.backbone.weights if len(w.shape) == 2)
    lm.quantize("q4_1")
    packed = [w for w in lm.backbone.weights if len(w.shape) == 3]
    # 4 bits, and two numbers of 16 bits for 32; the vocabulary is filled up to 80.
    filled = elements + 2 * 10 * 64
    assert sum(w.value.nbytes for w in packed) == filled * (16 + 4) // 32


def test_lora_trains_on_top() -> None:
    lm = model()
    lm.quantize("q4_1")
    before = np.asarray(lm(INPUTS))
    frozen = [np.asarray(w) for w in lm.backbone.weights]
    lm.backbone.enable_lora(2)
    lm.compile(optimizer=keras.optimizers.Adam(0.05), sampler="greedy")
    lm.fit(INPUTS, TOKEN_IDS, epochs=2, verbose=0)
    assert np.abs(np.asarray(lm(INPUTS)) - before).max() > 0.1
    kept = [np.asarray(w) for w in lm.backbone.weights if "lora" not in w.path]
    for weight, expected in zip(kept, frozen, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_keras_files(tmp_path: Path) -> None:
    lm = model()
    lm.quantize("q8_0")
    lm.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(again(INPUTS)), np.asarray(lm(INPUTS)))


def test_groups_must_be_whole() -> None:
    backbone = nextword.models.GPT2Backbone(
        vocabulary_size=20, num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32
    )
    before = [weight.dtype for weight in backbone.weights]
    with pytest.raises(ValueError, match=r"'q4_1' rounds .*groups of 32.* has 16 inputs"):
        backbone.quantize("q4_1")
    assert [weight.dtype for weight in backbone.weights] == before
    backbone.quantize("q4_1", filters="feed_forward_output")
