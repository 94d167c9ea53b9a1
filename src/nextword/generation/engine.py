"""The generation engine: requests in, tokens out. Token ids only; it never sees text."""

import time
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from keras import ops

from nextword.generation.backend import get_backend
from nextword.generation.buckets import (
    LARGEST_CHUNK,
    Chunks,
    cache_capacity,
    cut_prompt,
    prefill_groups,
)
from nextword.generation.cache import Buffers, allocate_buffers
from nextword.generation.request import FinishReason, GeneratedToken, Request, Statistics
from nextword.generation.steps import Decoder, SamplingInputs, Steps
from nextword.samplers import Sampler
from nextword.samplers.randomness import seed_words


class Engine:
    """Runs requests on one decoder.

    Args:
        decoder: the model.
        max_slots: the most requests that are decoded together; more are taken in turn.

    Example:
    ```python
    engine = Engine(lm.backbone)
    request = Request(token_ids=[504, 3575, 282], max_new_tokens=8)
    with engine.generate([request], nextword.samplers.GreedySampler()) as generation:
        token_ids = [token.token_id for token in generation]
    ```
    """

    def __init__(self, decoder: Decoder, *, max_slots: int = 64) -> None:
        self._decoder = decoder
        self._max_slots = max_slots
        self._steps: dict[Any, Steps] = {}
        self._variables: list[Any] = []  # which the programs read

    def generate(self, requests: Sequence[Request], sampler: Sampler) -> "Generation":
        """Start to run requests.

        Args:
            requests: at least one.
            sampler: chooses the tokens.

        Returns:
            An iterator of `GeneratedToken`. Tokens of one request come in order; those of
            different requests are interleaved.
        """
        return Generation(self, requests, sampler)

    def clock(self) -> float:
        """Return a time in seconds that stands still while programs are compiled."""
        return time.perf_counter() - get_backend().compile_seconds

    def _run(self, generation: "Generation", sampler: Sampler) -> Generator[GeneratedToken]:
        for first in range(0, len(generation.requests), self._max_slots):
            wave = range(first, min(first + self._max_slots, len(generation.requests)))
            yield from self._run_wave(generation, sampler, wave)

    def _run_wave(
        self, generation: "Generation", sampler: Sampler, wave: range
    ) -> Generator[GeneratedToken]:
        """Run the requests with indices `wave` together, the request `wave[i]` in row `i`."""
        requests = [generation.requests[index] for index in wave]
        lengths = [len(request.token_ids) for request in requests]
        totals = [
            length + request.max_new_tokens
            for length, request in zip(lengths, requests, strict=True)
        ]
        steps = self._compiled_steps(sampler)
        sampling = _sampling_inputs(requests, sampler)
        buffers = self._allocate(len(requests), cache_capacity(lengths, totals))
        groups = prefill_groups(lengths)
        first_tokens = []
        for chunks, rows in groups:
            prompts, chosen = self._prefill(
                steps, [requests[row].token_ids for row in rows], chunks, _select(sampling, rows)
            )
            buffers = _insert(steps, buffers, prompts, rows)
            first_tokens.append(chosen)
        # The first tokens are read at once, so that nobody waits for the next step to compile.
        tokens: Any = np.zeros(len(requests), "int32")
        for (_, rows), chosen in zip(groups, first_tokens, strict=True):
            tokens[rows] = ops.convert_to_numpy(chosen)
        yield from generation.record(wave, tokens)
        positions: Any = np.array(lengths, "int32")
        counts: Any = np.ones(len(requests), "int32")
        pending = None
        limit = self._decoder.config.recomputed_beyond
        history = [tokens]
        for step in range(1, max(request.max_new_tokens for request in requests)):
            if not generation.is_active(wave):
                return
            # Dispatched before the last tokens are read, so that the device never waits for
            # Python. The price is one step in vain where a stop token ends the last request.
            buffers, tokens, positions, counts = steps.decode(
                buffers=buffers,
                tokens=tokens,
                positions=positions,
                steps=counts,
                sampling=sampling,
            )
            if limit is not None:
                for row in [
                    row for row, length in enumerate(lengths) if length + step == limit + 1
                ]:
                    text = [*requests[row].token_ids, *(int(column[row]) for column in history)]
                    buffers, chosen = self._recompute(steps, buffers, text, row, step, sampling)
                    tokens = np.array(tokens)
                    tokens[row] = chosen
                history.append(tokens)
            if pending is not None:
                yield from generation.record(wave, pending)
            pending = tokens
        if pending is not None:
            yield from generation.record(wave, pending)

    def _prefill(
        self,
        steps: Steps,
        prompts: Sequence[Sequence[int]],
        chunks: Chunks,
        sampling: SamplingInputs,
        step: int = 0,
    ) -> tuple[Buffers, Any]:
        """Compute prompts that are cut alike, chunk by chunk.

        Returns:
            The prompts' KV cache and their next tokens, which are the first where `step` is 0.
        """
        buffers: Any = self._allocate(len(prompts), chunks.capacity) if chunks.full else None
        for number in range(chunks.full + 1):
            is_last = number == chunks.full
            start = number * LARGEST_CHUNK
            token_ids = np.zeros((len(prompts), chunks.last if is_last else LARGEST_CHUNK), "int32")
            for row, prompt in zip(token_ids, prompts, strict=True):
                chunk = prompt[start : start + LARGEST_CHUNK]
                row[: len(chunk)] = chunk
            buffers, first_tokens = steps.prefill(
                buffers=buffers,
                token_ids=token_ids,
                start=np.int32(start) if chunks.full else None,
                lengths=np.array([len(prompt) for prompt in prompts], "int32"),
                steps=np.full(len(prompts), step, "int32"),
                sampling=sampling if is_last else None,
            )
        return buffers, first_tokens

    def _recompute(
        self,
        steps: Steps,
        buffers: Buffers,
        text: Sequence[int],
        row: int,
        step: int,
        sampling: SamplingInputs,
    ) -> tuple[Buffers, Any]:
        """Compute a row anew, whose `text` is too long for what the cache holds of it.

        Returns:
            The KV cache and the row's next token.
        """
        prompt, chosen = self._prefill(
            steps, [text], cut_prompt(len(text)), _select(sampling, [row]), step
        )
        return _insert(steps, buffers, prompt, [row]), ops.convert_to_numpy(chosen)[0]

    def _allocate(self, rows: int, capacity: int) -> Buffers:
        decoder = self._decoder
        return allocate_buffers(decoder.config, rows, capacity, decoder.compute_dtype)

    def _compiled_steps(self, sampler: Sampler) -> Steps:
        variables = self._decoder.variables
        if list(map(id, variables)) != list(map(id, self._variables)):
            # LoRA gives the model other variables than the programs read.
            self._steps.clear()
            self._variables = variables
        key = sampler.program
        if key not in self._steps:
            self._steps[key] = Steps(self._decoder, sampler, get_backend())
        return self._steps[key]


class Generation:
    """Requests being run: an iterator of `GeneratedToken`, and a context manager that ends it.

    Attributes:
        requests: the requests.
        statistics: counts and times so far.
    """

    def __init__(self, engine: Engine, requests: Sequence[Request], sampler: Sampler) -> None:
        self.requests = list(requests)
        self.statistics = Statistics(prompt_tokens=sum(len(r.token_ids) for r in self.requests))
        self._remaining = {index: r.max_new_tokens for index, r in enumerate(self.requests)}
        self._tokens = engine._run(self, sampler)
        self._clock = engine.clock
        self._started = self._clock()
        self._first_token_at: float | None = None

    def is_active(self, requests: range) -> bool:
        """Return whether any of the requests with these indices is to get more tokens."""
        return any(index in self._remaining for index in requests)

    def cancel(self, request: int) -> None:
        """Give the request with this index no more tokens; the others go on."""
        self._remaining.pop(request, None)

    def record(self, requests: range, tokens: Any) -> Generator[GeneratedToken]:
        """Count new tokens of requests, end the requests that they end, and yield them.

        Args:
            requests: indices of the requests; those that have ended are passed over.
            tokens: int32 tensor with the new token of each.
        """
        token_ids = ops.convert_to_numpy(tokens).tolist()
        statistics, now = self.statistics, self._clock()
        if self._first_token_at is None:
            self._first_token_at = now
            statistics.prompt_seconds = now - self._started
        statistics.generation_seconds = now - self._first_token_at
        for index, token_id in zip(requests, token_ids, strict=True):
            if index not in self._remaining:
                continue
            request = self.requests[index]
            statistics.generated_tokens += 1
            statistics.decoded_tokens += self._remaining[index] < request.max_new_tokens
            self._remaining[index] -= 1
            finish_reason: FinishReason | None = None
            if token_id in request.stop_token_ids:
                finish_reason = "stop"
            elif self._remaining[index] == 0:
                finish_reason = "length"
            if finish_reason is not None:
                self.cancel(index)
            yield GeneratedToken(index, token_id, finish_reason)

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


def _sampling_inputs(requests: Sequence[Request], sampler: Sampler) -> SamplingInputs:
    parameters = {
        name: np.full(len(requests), value, "int32" if isinstance(value, int) else "float32")
        for name, value in sampler.parameters().items()
    }
    seeds = np.array([seed_words(request.seed) for request in requests], "int32")
    return SamplingInputs(parameters, seeds)


def _insert(steps: Steps, buffers: Buffers, prompts: Buffers, rows: Sequence[int]) -> Buffers:
    """Return the cache with each of the prompts in its row."""
    for prompt_row, row in enumerate(rows):
        buffers = [
            steps.insert(
                buffers=layer, prompt=prompt, prompt_row=np.int32(prompt_row), row=np.int32(row)
            )
            for layer, prompt in zip(buffers, prompts, strict=True)
        ]
    return buffers


def _select(sampling: SamplingInputs, rows: Sequence[int]) -> SamplingInputs:
    selected = {name: values[list(rows)] for name, values in sampling.parameters.items()}
    return SamplingInputs(selected, sampling.seeds[list(rows)])
