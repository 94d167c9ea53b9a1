"""The machine: what it is, and how fast its memory can be read."""

import os
import platform
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

THREADS = 2
_BYTES = 2**29  # of each thread; beyond any cache that a share of a server's processor has


def read_bandwidth(rounds: int = 5) -> float:
    """Return the bytes per second at which two threads read memory, the best of some rounds.

    As in STREAM (https://www.cs.virginia.edu/stream/) arrays are far larger than the caches; the
    operation is the maximum, which reads, and computes least of all that NumPy has.
    """
    arrays = [np.ones(_BYTES // 4, np.float32) for _ in range(THREADS)]
    best = 0.0
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(rounds):
            started = time.perf_counter()
            list(pool.map(np.max, arrays))  # which lets go of the interpreter's lock
            best = max(best, THREADS * _BYTES / (time.perf_counter() - started))
    return best


def import_seconds(module: str, rounds: int = 5) -> float:
    """Return how long a fresh process takes that imports a module, the median of some rounds."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        environment = os.environ | {"KERAS_BACKEND": "jax"}
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True, env=environment)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def describe() -> dict[str, Any]:
    """Return what to say of the machine beside its figures."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
        named = {key.strip(): value.strip() for key, _, value in lines}
        model = named.get("model name", model)
        wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")
        flags = [flag for flag in wanted if flag in named.get("flags", "").split()]
        model += f" ({', '.join(flags)})" if flags else ""
    return {"processor": model, "cores": os.cpu_count(), "python": platform.python_version()}
