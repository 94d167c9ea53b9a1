"""Which decoders take a step by the native kernels, all layers at once."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import nextword
from families.cases import CASES, Case
from nextword.generation.backend import get_backend
from nextword.generation.cache import DecodeCache, allocate_buffers
from nextword.ops.native import MOST_ROWS, kernels_in_use, kernels_used

pytestmark = pytest.mark.skipif(kernels_in_use() is None, reason="built without native kernels")


def is_native(backbone: Any, rows: int, length: int, dtype: str = "float32") -> bool:
    """Return whether a step calls the kernels for all layers at once, without running it."""

    def step(token_ids: Any, positions: Any) -> Any:
        buffers = allocate_buffers(backbone.config, rows, 32, dtype)
        caches = [DecodeCache(layer, positions[:, 0], get_backend()) for layer in buffers]
        return backbone.hidden_states(token_ids, positions, caches)

    token_ids = jnp.zeros((rows, length), "int32")
    # Experts by themselves are such a call, too, but change no cache.
    changed = re.findall(
        r"input_output_aliases=\(\(", str(jax.make_jaxpr(step)(token_ids, token_ids))
    )
    return len(changed) == 1


def expected(backbone: Any) -> bool:
    config = backbone.config
    rounds_biases = config.position_embedding == "alibi" and config.alibi_dtype != "float32"
    return config.latent is None and not rounds_biases


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_families(case: Case, tmp_path: Any) -> None:
    case.make(tmp_path)
    backbone = nextword.models.Backbone.from_preset(tmp_path)
    assert is_native(backbone, rows=2, length=1) == expected(backbone)


@pytest.fixture
def backbone() -> Any:
    return nextword.models.LlamaBackbone(20, 1, 2, 32, 32, 1)


def test_few_tokens_only(backbone: Any) -> None:
    assert is_native(backbone, rows=MOST_ROWS // 4, length=4)
    assert not is_native(backbone, rows=MOST_ROWS // 4 + 1, length=4)


@pytest.mark.parametrize("mode", ["int8_weight_only", "q8_0", "q4_1", "q4_0"])
def test_packed_weights(backbone: Any, mode: str) -> None:
    backbone.quantize(mode)
    assert is_native(backbone, rows=1, length=1)


def test_what_the_kernels_do_not_read(backbone: Any) -> None:
    backbone.enable_lora(2)
    assert not is_native(backbone, rows=1, length=1)
    half = nextword.models.LlamaBackbone(20, 1, 2, 32, 32, 1, dtype="float16")
    assert not is_native(half, rows=1, length=1, dtype="float16")


def test_without_kernels(backbone: Any) -> None:
    with kernels_used(None):
        assert not is_native(backbone, rows=1, length=1)
