"""What an answer cost: tokens, seconds and memory, in one line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nextword.generation import Statistics


def describe(statistics: "Statistics", finish_reason: str | None, max_new_tokens: int) -> str:
    """Return one line of tokens, tokens per second, peak memory and why an answer ended early.

    Args:
        statistics: token counts and seconds of one answer, as `stream.statistics` holds them.
        finish_reason: "stop", "length" or "cancelled".
        max_new_tokens: the limit the answer had.
    """
    prompt_speed = statistics.prompt_tokens_per_second
    speed = statistics.generated_tokens_per_second
    parts = [
        f"prompt: {_count(statistics.prompt_tokens, prompt_speed)}",
        f"generated: {_count(statistics.generated_tokens, speed)}",
    ]
    memory = peak_memory()
    if memory is not None:
        parts.append(f"peak memory: {memory / 1e6:,.0f} MB")
    if finish_reason == "cancelled":
        parts.append("ended by Ctrl-C")
    elif finish_reason == "length" and statistics.generated_tokens >= max_new_tokens:
        parts.append(f"ended by --max-new-tokens {max_new_tokens}")
    elif finish_reason == "length":
        parts.append("ended by the model's context length")
    return " · ".join(parts)


def _count(tokens: int, tokens_per_second: float) -> str:
    count = f"{tokens:,} token" if tokens == 1 else f"{tokens:,} tokens"
    return f"{count}, {tokens_per_second:,.1f} tokens/s" if tokens_per_second else count


def peak_memory() -> int | None:
    """Return the most resident memory this process has had, in bytes; None if nobody counts it."""
    return _high_water_mark() or _maximum_resident_set()


def _high_water_mark() -> int | None:
    # Linux starts a process's ru_maxrss at the size of the process that spawned it, so that an
    # answer started from a large notebook would report the notebook's memory. VmHWM starts anew.
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.removesuffix("kB")) * 1024
    return None


def _maximum_resident_set() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum if sys.platform == "darwin" else maximum * 1024
