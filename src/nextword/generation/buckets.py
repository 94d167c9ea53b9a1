"""Shapes come from a few buckets, so that few programs are compiled."""

from collections.abc import Sequence
from typing import NamedTuple

SMALLEST_CHUNK = 16
LARGEST_CHUNK = 512
SMALLEST_CAPACITY = 64
PROMPTS_AT_ONCE = 8
TOKENS_AT_ONCE = 1024
"""The most tokens of several prompts on a CPU, whose own caches hold little more."""


def next_power_of_two(number: int) -> int:
    """Return the smallest power of two that is at least `number`.

    Example:
    >>> next_power_of_two(40)
    64
    """
    return 1 << (number - 1).bit_length()


class Chunks(NamedTuple):
    """How a prompt is cut for prefill: full chunks first, then one bucket for what remains.

    Attributes:
        full: number of chunks of `LARGEST_CHUNK` tokens.
        last: padded length of the last chunk.
    """

    full: int
    last: int

    @property
    def capacity(self) -> int:
        """Number of positions of a cache that holds the chunks."""
        if self.full == 0:
            return self.last
        return next_power_of_two(self.full * LARGEST_CHUNK + self.last)


def cut_prompt(length: int) -> Chunks:
    """Return how a prompt of `length` tokens is cut.

    Example:
    >>> cut_prompt(40), cut_prompt(1000)
    (Chunks(full=0, last=64), Chunks(full=1, last=512))
    """
    full = (length - 1) // LARGEST_CHUNK
    return Chunks(full, max(SMALLEST_CHUNK, next_power_of_two(length - full * LARGEST_CHUNK)))


def cache_capacity(prompt_lengths: Sequence[int], total_lengths: Sequence[int]) -> int:
    """Return the number of positions that holds every row, prefill's padding included.

    Args:
        prompt_lengths: number of prompt tokens of each row.
        total_lengths: the most tokens each row may grow to, prompt included.
    """
    prompts = (cut_prompt(length).capacity for length in prompt_lengths)
    return max(SMALLEST_CAPACITY, next_power_of_two(max(*prompts, *total_lengths)))


def prefill_groups(
    prompt_lengths: Sequence[int], most_tokens: int | None = None
) -> list[tuple[Chunks, list[int]]]:
    """Group the prompts that are prefilled together: cut alike, and `PROMPTS_AT_ONCE` or one.

    Args:
        prompt_lengths: number of tokens of each prompt.
        most_tokens: the most tokens of a chunk of several prompts; None for any number.

    Returns:
        For each group how its prompts are cut, and their indices.

    Example:
    >>> [(chunks.last, prompts) for chunks, prompts in prefill_groups([5, 40, 9])]
    [(16, [0]), (16, [2]), (64, [1])]
    """
    prompts_by_chunks: dict[Chunks, list[int]] = {}
    for prompt, length in enumerate(prompt_lengths):
        prompts_by_chunks.setdefault(cut_prompt(length), []).append(prompt)
    groups = []
    for chunks, prompts in sorted(prompts_by_chunks.items()):
        tokens = PROMPTS_AT_ONCE * (LARGEST_CHUNK if chunks.full else chunks.last)
        at_once = PROMPTS_AT_ONCE if most_tokens is None or tokens <= most_tokens else 1
        while prompts:
            size = at_once if len(prompts) >= at_once else 1
            groups.append((chunks, prompts[:size]))
            prompts = prompts[size:]
    return groups
