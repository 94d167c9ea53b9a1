"""The README's first command, in a process of its own."""

import subprocess
import sys
from pathlib import Path


def test_the_capital_of_france(smollm2_path: Path) -> None:
    command = [sys.executable, "-m", "nextword", "generate", "What is the capital of France?"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Paris" in result.stdout
    assert "tokens/s" in result.stderr
    assert "peak memory" in result.stderr
