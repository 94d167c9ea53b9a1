"""One contender loads a checkpoint, in a process of its own, and tells what memory that took.

A library may leave weights in mapped files until they are asked for, so that the same is told again
once a token has been computed, for which every weight is read.

Counted is resident memory, all of it: what the process has allocated, and the pages of files that
are mapped into it while they are in memory, those of the checkpoint included. Not counted is what
was resident before: the interpreter, and what importing the library has brought. What it makes or
imports later, such as a backend of its own, counts. Linux alone tells these numbers.
"""

import importlib
import json
import sys
import time

from benchmarks.protocol import PROCESS, SHORT_PROMPT, Contender, Task, resident_bytes

_RESET_PEAK = "5"  # see proc(5), clear_refs


def measure_load(contender: Contender, task: Task) -> dict[str, float]:
    """Return the seconds that loading takes, and the resident bytes that are added.

    Args:
        contender: whose library has been imported.
        task: says what is loaded.

    Returns:
        `load_seconds` and `load_peak_bytes`, the most at any time; `token_seconds` and
        `token_peak_bytes`, the same until a token is there, compiling included.
    """
    before = resident_bytes("VmRSS")
    (PROCESS / "clear_refs").write_text(_RESET_PEAK)
    started = time.perf_counter()
    model = contender.load(task)
    figures: dict[str, float] = {
        "load_seconds": time.perf_counter() - started,
        "load_peak_bytes": resident_bytes("VmHWM") - before,
    }
    contender.generate(model, [list(range(SHORT_PROMPT))], 1)
    return figures | {
        "token_seconds": time.perf_counter() - started,
        "token_peak_bytes": resident_bytes("VmHWM") - before,
    }


if __name__ == "__main__":
    module = importlib.import_module(f"benchmarks.contenders.{sys.argv[1]}")
    print(
        json.dumps(measure_load(Contender(module.load, module.generate), Task.parsed(sys.argv[2])))
    )
