"""What a contender is asked for and how it is measured, the same for each of them.

A contender runs in a process of its own, which makes loading, the first token and the peak memory
what a user meets. It is asked for nothing but greedy continuations of given token ids, and the
clock is outside of it: the time for one token of a long prompt is the prefill's, and the time for
many tokens less that for one is the decoding's.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

SHORT_PROMPT = 16
PROCESS = Path("/proc/self")


@dataclass(frozen=True)
class Task:
    """One measurement.

    Attributes:
        path: directory or file of the model, in a format that the contender reads.
        precision: "float32", "bfloat16", "int8", or a type of GGUF's blocks.
        rows: number of prompts that are continued together.
        prompt_tokens: length of the prompts of the prefill measurement.
        new_tokens: number of tokens that are decoded.
        repeats: how often prefill and decoding are measured in one process.
        vocabulary_size: prompts are random token ids below it.
        text: token ids whose perplexity is computed; none if it is not asked for.
        started: when the process was asked for, in seconds since the epoch.
    """

    path: str
    precision: str
    rows: int
    prompt_tokens: int
    new_tokens: int
    repeats: int
    vocabulary_size: int
    text: Sequence[int]
    started: float

    def prompts(self, length: int) -> list[list[int]]:
        """Return random prompts, the same for every contender."""
        random = np.random.default_rng(length)
        return random.integers(100, self.vocabulary_size, (self.rows, length)).tolist()

    def serialized(self) -> str:
        """Return the task for a contender's command line."""
        return json.dumps(asdict(self))

    @classmethod
    def parsed(cls, serialized: str) -> "Task":
        """Return the task that was serialized."""
        return cls(**json.loads(serialized))


@dataclass(frozen=True)
class Contender:
    """How to run one library.

    Attributes:
        load: makes the model of a task.
        generate: `generate(model, prompts, new_tokens)` continues every prompt greedily by exactly
            that many tokens.
        logits: `logits(model, token_ids)` returns those at every position, float32 of shape
            `[length, vocabulary_size]`; None where the library does not tell.
    """

    load: Callable[[Task], Any]
    generate: Callable[[Any, list[list[int]], int], object]
    logits: Callable[[Any, Sequence[int]], np.ndarray] | None = None


def measure(contender: Contender, task: Task) -> dict[str, Any]:
    """Return a contender's figures for a task, in seconds, tokens per second and bytes."""
    before = time.perf_counter()
    model = contender.load(task)
    figures = {
        "load_seconds": time.perf_counter() - before,
        "load_peak_bytes": resident_bytes("VmHWM"),
    }
    short, long = task.prompts(SHORT_PROMPT), task.prompts(task.prompt_tokens)
    contender.generate(model, short[:1], 1)
    figures["first_token_seconds"] = time.time() - task.started
    contender.generate(model, short, task.new_tokens)  # what is compiled, is compiled now
    contender.generate(model, long, 1)
    prefill, decode = [], []
    for _ in range(task.repeats):
        prefill.append(_seconds(contender, model, long, 1))
        first = _seconds(contender, model, short, 1)
        last = _seconds(contender, model, short, task.new_tokens)
        decode.append((last - first) / (task.new_tokens - 1))
    figures |= {
        "prefill_tokens_per_second": task.rows * task.prompt_tokens / statistics.median(prefill),
        "decode_tokens_per_second": task.rows / statistics.median(decode),
        "peak_bytes": resident_bytes("VmHWM"),
    }
    if task.text and contender.logits is not None:
        figures["perplexity"] = perplexity(contender.logits(model, task.text), task.text)
    return figures


def perplexity(logits: np.ndarray, token_ids: Sequence[int]) -> float:
    """Return the perplexity of a text, its first token apart.

    Args:
        logits: float32 array of shape `[length, vocabulary_size]`.
        token_ids: the text's tokens.
    """
    scores = logits[:-1].astype("float64")
    peaks = scores.max(axis=-1)
    totals = peaks + np.log(np.exp(scores - peaks[:, None]).sum(axis=-1))
    chosen = scores[np.arange(len(scores)), np.asarray(token_ids[1:])]
    return float(np.exp((totals - chosen).mean()))


def _seconds(contender: Contender, model: Any, prompts: list[list[int]], new_tokens: int) -> float:
    before = time.perf_counter()
    contender.generate(model, prompts, new_tokens)
    return time.perf_counter() - before


def resident_bytes(name: str) -> int:
    """Return a number of bytes that the kernel tells of this process, see proc(5), status.

    Linux alone tells it. The peak of `getrusage` would be that of the process that started it.

    Args:
        name: "VmRSS" for what is resident, "VmHWM" for the most that has been.
    """
    lines = (PROCESS / "status").read_text().splitlines()
    named = dict(line.split(":", 1) for line in lines)
    return int(named[name].split()[0]) * 1024


def main(contender: Contender) -> None:
    """Answer the task on the command line, on the last line of standard output."""
    print(json.dumps(measure(contender, Task.parsed(sys.argv[1]))))
