"""Tests run on the backend of their process; some run again in a process of torch's."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

TESTS = Path(__file__).parent

only_on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="about JAX")
only_on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="about torch")


def without_gradients() -> contextlib.AbstractContextManager[object]:
    """Return a context in which the backend records nothing for gradients."""
    if keras.backend.backend() != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()


def python_on_torch(*arguments: str) -> str:
    """Run Python on torch, check that it ends well, and return what it prints."""
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout


def run_on_torch(*tests: str) -> str:
    """Run tests on torch, check that none fails, and return the summary."""
    return python_on_torch("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests)
