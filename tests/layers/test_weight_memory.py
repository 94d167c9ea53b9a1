"""Weights that are loaded lie in huge pages, each in its own place, and are let go of."""

import gc
import mmap
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nextword
from nextword.layers.weight_memory import WeightMemory

_MAPS = Path("/proc/self/smaps")
_RANGE = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ")

needs_huge_pages = pytest.mark.skipif(
    not hasattr(mmap, "MADV_HUGEPAGE") or not _MAPS.exists(), reason="Linux alone has them."
)


def _is_advised(address: int) -> bool:
    """Return whether the system was asked for huge pages at an address."""
    is_here = False
    for line in _MAPS.read_text().splitlines():
        if match := _RANGE.match(line):
            is_here = int(match[1], 16) <= address < int(match[2], 16)
        elif is_here and line.startswith("VmFlags:"):
            return "hg" in line.split()
    raise LookupError(hex(address))


@needs_huge_pages
def test_a_loaded_model_computes_with_weights_in_huge_pages(tmp_path):
    if keras.backend.backend() != "jax":
        pytest.skip("PyTorch reads weights in the file's own memory.")
    sizes = {"num_layers": 2, "num_query_heads": 4, "num_key_value_heads": 2, "hidden_dim": 64}
    backbone = nextword.models.LlamaBackbone(
        vocabulary_size=128, intermediate_dim=128, **sizes, dtype="float32"
    )
    backbone.save_to_preset(tmp_path)
    loaded = nextword.models.Backbone.from_preset(str(tmp_path))
    large = [v for v in loaded.variables if v.value.nbytes >= 1 << 14]
    assert len(large) > 4
    for variable, original in zip(loaded.variables, backbone.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(variable.value), np.asarray(original.value))
    assert all(_is_advised(v.value.unsafe_buffer_pointer()) for v in large)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 3 << 20), min_size=1, max_size=30))
def test_copies_do_not_overlap(sizes):
    memory = WeightMemory()
    copies = [memory.copy(np.full(size, i, "uint8")) for i, size in enumerate(sizes)]
    for i, (size, copy) in enumerate(zip(sizes, copies, strict=True)):
        assert copy.shape == (size,)
        assert copy.min() == copy.max() == i


@needs_huge_pages
def test_an_array_of_any_order_keeps_its_numbers():
    array = np.arange(1 << 16, dtype="float32").reshape(256, 256).T
    copy = WeightMemory().copy(array)
    np.testing.assert_array_equal(copy, array)
    assert copy.ctypes.data % 64 == 0


@needs_huge_pages
def test_memory_goes_with_the_last_array_in_it():
    memory = WeightMemory()
    arrays = [memory.copy(np.ones(1 << 20, "uint8")) for _ in range(3)]
    large = memory.copy(np.ones(64 << 20, "uint8"))
    addresses = [array.ctypes.data for array in (*arrays, large)]
    assert all(map(_is_advised, addresses))
    del arrays[1:], large
    gc.collect()
    assert _is_advised(addresses[0])
    assert _is_gone(addresses[3])
    del arrays
    gc.collect()
    assert _is_gone(addresses[0])
    assert memory.copy(np.ones(1 << 20, "uint8")).sum() == 1 << 20


def _is_gone(address: int) -> bool:
    try:
        return not _is_advised(address)
    except LookupError:
        return True
