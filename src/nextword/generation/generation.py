"""`Generation`: requests being run, and what has come of them so far."""

from collections.abc import Callable, Generator, Iterable, Sequence
from types import TracebackType
from typing import Self

from nextword.generation.request import FinishReason, GeneratedToken, Request, Statistics


class Generation:
    """Requests being run: an iterator of `GeneratedToken`, and a context manager that ends it.

    Args:
        requests: the requests.
        run: given the generation, yields its tokens.
        clock: returns a time in seconds.

    Attributes:
        requests: the requests.
        statistics: counts and times so far.
    """

    def __init__(
        self,
        requests: Sequence[Request],
        run: Callable[["Generation"], Generator[GeneratedToken]],
        clock: Callable[[], float],
    ) -> None:
        self.requests = list(requests)
        self.statistics = Statistics(prompt_tokens=sum(len(r.token_ids) for r in self.requests))
        self._remaining = {index: r.max_new_tokens for index, r in enumerate(self.requests)}
        self._tokens = run(self)
        self._clock = clock
        self._started = clock()
        self._first_token_at: float | None = None

    def is_active(self, requests: Iterable[int]) -> bool:
        """Return whether any of the requests with these indices is to get more tokens."""
        return any(index in self._remaining for index in requests)

    def cancel(self, request: int) -> None:
        """Give the request with this index no more tokens; the others go on."""
        self._remaining.pop(request, None)

    def tick(self) -> None:
        """Take the time of new tokens; the first call ends the time of the prompts."""
        now = self._clock()
        if self._first_token_at is None:
            self._first_token_at = now
            self.statistics.prompt_seconds = now - self._started
        self.statistics.generation_seconds = now - self._first_token_at

    def record(
        self, requests: Iterable[int], token_ids: Iterable[Sequence[int]]
    ) -> Generator[GeneratedToken]:
        """Count new tokens of requests, end the requests that they end, and yield them.

        Args:
            requests: indices of the requests; those that have ended are passed over.
            token_ids: the new tokens of each. Those behind one that ends the request are dropped.
        """
        self.tick()
        for index, new in zip(requests, token_ids, strict=True):
            for token_id in new:
                if index not in self._remaining:
                    break
                request = self.requests[index]
                self._count(is_first=self._remaining[index] == request.max_new_tokens)
                self._remaining[index] -= 1
                finish_reason: FinishReason | None = None
                if token_id in request.stop_token_ids:
                    finish_reason = "stop"
                elif self._remaining[index] == 0:
                    finish_reason = "length"
                if finish_reason is not None:
                    self.cancel(index)
                yield GeneratedToken(index, token_id, finish_reason)

    def deliver(
        self, request: int, sequences: Iterable[Sequence[int]]
    ) -> Generator[GeneratedToken]:
        """Count the finished sequences of a request, yield their tokens, and end the request.

        Args:
            request: index of the request.
            sequences: the token ids of each.
        """
        self.tick()
        stop_token_ids = self.requests[request].stop_token_ids
        for sequence, token_ids in enumerate(sequences):
            for position, token_id in enumerate(token_ids):
                if request not in self._remaining:
                    return
                self._count(is_first=position == 0)
                finish_reason: FinishReason | None = None
                if position == len(token_ids) - 1:
                    finish_reason = "stop" if token_id in stop_token_ids else "length"
                yield GeneratedToken(request, token_id, finish_reason, sequence)
        self.cancel(request)

    def _count(self, *, is_first: bool) -> None:
        self.statistics.generated_tokens += 1
        self.statistics.decoded_tokens += not is_first

    def close(self) -> None:
        """End the generation and free its cache."""
        self._remaining.clear()
        self._tokens.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> GeneratedToken:
        return next(self._tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
