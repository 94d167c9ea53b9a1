"""The contract of loops: how requests become tokens on an engine, for one kind of sampler."""

import abc
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from keras import ops

from nextword.generation.buckets import cache_capacity
from nextword.generation.generation import Generation
from nextword.generation.request import GeneratedToken, Request
from nextword.samplers import Sampler

if TYPE_CHECKING:
    from nextword.generation.engine import Engine


class Loop(abc.ABC):
    """Runs requests on an engine, as a sampler describes it.

    Args:
        engine: computes the prompts, and keeps the compiled programs.
        sampler: the description.
        draft: the engine of a draft model, where `takes_draft`.

    Attributes:
        rows_per_request: number of rows that the steps compute for one request.
        takes_draft: whether the loop needs a draft model.

    Raises:
        ValueError: there is a draft and the loop does not take one, or the other way round.
    """

    rows_per_request: int = 1
    takes_draft: bool = False

    def __init__(self, engine: "Engine", sampler: Sampler, draft: "Engine | None" = None) -> None:
        if self.takes_draft != (draft is not None):
            raise ValueError(
                f"{type(sampler).__name__} {'needs a' if self.takes_draft else 'takes no'} `draft`."
            )
        self.engine = engine
        self.sampler = sampler

    @abc.abstractmethod
    def run(self, generation: Generation, wave: range) -> Generator[GeneratedToken]:
        """Run some of a generation's requests together, until all of them have ended.

        Args:
            generation: records the tokens.
            wave: indices of the requests; `wave[i]` takes the `i`th row, or rows.
        """


def capacity_for(requests: Sequence[Request], extra: int = 0) -> int:
    """Return the number of cache positions that holds each request.

    Args:
        requests: the requests.
        extra: number of positions that are written behind a request's last token.
    """
    lengths = [len(request.token_ids) for request in requests]
    totals = [
        length + request.max_new_tokens + extra
        for length, request in zip(lengths, requests, strict=True)
    ]
    return cache_capacity(lengths, totals)


def read_behind(
    generation: Generation, wave: range, steps: Iterator[Any]
) -> Generator[GeneratedToken]:
    """Yield the tokens of steps, each read only after the next step was dispatched.

    So the device never waits for Python. The price is one step in vain where a stop token ends the
    last request.

    Args:
        generation: records the tokens.
        wave: indices of the requests.
        steps: dispatches a step when asked for its tokens, an int32 tensor with one per request.
    """
    unread: list[Any] = []
    while generation.is_active(wave):
        tokens = next(steps, None)
        if tokens is not None:
            unread.append(tokens)
        elif not unread:
            return
        if len(unread) > 1 or tokens is None:
            yield from generation.record(wave, column(unread.pop(0)))


def column(tokens: Any) -> list[list[int]]:
    """Return a tensor of one token per row as rows of one token."""
    return ops.convert_to_numpy(tokens)[:, None].tolist()
