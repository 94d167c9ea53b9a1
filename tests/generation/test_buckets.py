"""How prompts are cut and grouped for prefill."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.generation.buckets import (
    LARGEST_CHUNK,
    PROMPTS_AT_ONCE,
    TOKENS_AT_ONCE,
    prefill_groups,
)


@pytest.mark.parametrize(
    ("length", "most_tokens", "sizes"),
    [
        (128, TOKENS_AT_ONCE, [8, 1, 1]),
        (129, TOKENS_AT_ONCE, [1] * 10),
        (129, None, [8, 1, 1]),
        (LARGEST_CHUNK + 1, TOKENS_AT_ONCE, [1] * 10),
    ],
)
def test_how_many_are_computed_together(
    length: int, most_tokens: int | None, sizes: list[int]
) -> None:
    groups = prefill_groups([length] * 10, most_tokens)
    assert [len(prompts) for _, prompts in groups] == sizes


@given(
    lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=40),
    most_tokens=st.none() | st.integers(1, 5000),
)
def test_every_prompt_is_in_one_group_that_holds_it(
    lengths: list[int], most_tokens: int | None
) -> None:
    groups = prefill_groups(lengths, most_tokens)
    assert sorted(prompt for _, prompts in groups for prompt in prompts) == list(
        range(len(lengths))
    )
    for chunks, prompts in groups:
        for prompt in prompts:
            assert 0 < lengths[prompt] - chunks.full * LARGEST_CHUNK <= chunks.last
        assert len(prompts) in (1, PROMPTS_AT_ONCE)
        if most_tokens is not None and len(prompts) > 1:
            assert len(prompts) * chunks.last <= most_tokens
