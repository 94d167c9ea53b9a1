"""The line about an answer's cost."""

import subprocess
import sys

import pytest

from nextword.cli.report import describe
from nextword.generation import Statistics

HOLD = """
import sys
held = bytearray(int(sys.argv[1]))
held[::4096] = b"x" * len(held[::4096])
from nextword.cli import report
print(report.peak_memory(), report._maximum_resident_set())
"""


@pytest.mark.parametrize(
    ("counts", "start"),
    [
        ((1, 0, 0, 0.5, 0.0), "prompt: 1 token, 2.0 tokens/s · generated: 0 tokens · "),
        (
            (1200, 4, 3, 0.1, 2),
            "prompt: 1,200 tokens, 12,000.0 tokens/s · generated: 4 tokens, 1.5 tokens/s · ",
        ),
        ((7, 1, 0, 0.0, 0.0), "prompt: 7 tokens · generated: 1 token · "),
    ],
)
def test_counts_and_speeds(counts, start):
    statistics = Statistics(*counts)
    assert describe(statistics, "stop", 256).startswith(start)


@pytest.mark.parametrize(
    ("reason", "generated", "end"),
    [
        ("length", 8, "ended by --max-new-tokens 8"),
        ("length", 5, "ended by the model's context length"),
        ("cancelled", 5, "ended by Ctrl-C"),
        ("stop", 8, "MB"),
    ],
)
def test_an_early_end_is_explained(reason, generated, end):
    statistics = Statistics(prompt_tokens=1, generated_tokens=generated)
    assert describe(statistics, reason, 8).endswith(end)


def test_peak_memory_counts_this_process_and_only_this_one():
    megabytes = 150
    held = bytearray(400_000_000)  # what a child must not inherit from its parent
    held[::4096] = b"x" * len(held[::4096])
    output = subprocess.run(
        [sys.executable, "-c", HOLD, str(megabytes * 1_000_000)],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    peak, _ = (int(number) for number in output.split())
    assert megabytes * 1e6 < peak < (megabytes + 150) * 1e6
