"""The parity tests pass on torch too, in a process whose Keras backend it is."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent


def test_parity_on_torch() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["families/test_transformers_parity.py", "-k", "llama-llama3-scaling or gpt2-inner"]
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    result = subprocess.run(command, cwd=TESTS, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:]
    assert "8 passed" in result.stdout
