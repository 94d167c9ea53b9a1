"""The generation engine: requests in, tokens out. Token ids only; it never sees text."""

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from nextword.generation.backend import get_backend
from nextword.generation.beam_search import BeamSearch
from nextword.generation.buckets import LARGEST_CHUNK, TOKENS_AT_ONCE, Chunks, prefill_groups
from nextword.generation.cache import Buffers, allocate_buffers
from nextword.generation.contrastive_search import ContrastiveSearch
from nextword.generation.generation import Generation
from nextword.generation.loop import Loop
from nextword.generation.request import GeneratedToken, Request
from nextword.generation.sampling import Sampling
from nextword.generation.speculative_decoding import SpeculativeDecoding
from nextword.generation.steps import Decoder, PromptSteps
from nextword.ops.native import uses_kernels
from nextword.samplers import Sampler

Programs = TypeVar("Programs")

_LOOPS: dict[str, type[Loop]] = {
    "sampling": Sampling,
    "beam": BeamSearch,
    "contrastive": ContrastiveSearch,
    "speculative": SpeculativeDecoding,
}
"""By the `strategy` of samplers."""


class Prefilled(NamedTuple):
    """Prompts that were computed together.

    Attributes:
        prompts: their indices.
        buffers: their KV cache.
        hidden_states: for each chunk the final hidden states `[prompts, chunk_length, hidden_dim]`;
            in the last chunk those of padding come last.
        last_hidden_states: those of each prompt's last token, `[prompts, hidden_dim]`.
    """

    prompts: list[int]
    buffers: Buffers
    hidden_states: list[Any]
    last_hidden_states: Any


class Engine:
    """Runs requests on one decoder.

    Args:
        decoder: the model.
        max_slots: the most cache rows that are decoded together. A request takes one, or as many as
            its sampler needs; where requests need more than there are, they are taken in turn.

    Example:
    ```python
    engine = Engine(lm.backbone)
    request = Request(token_ids=[504, 3575, 282], max_new_tokens=8)
    with engine.generate([request], nextword.samplers.GreedySampler()) as generation:
        token_ids = [token.token_id for token in generation]
    ```
    """

    def __init__(self, decoder: Decoder, *, max_slots: int = 64) -> None:
        self.decoder = decoder
        self._max_slots = max_slots
        self._programs: dict[Any, Any] = {}
        self._variables: list[Any] = []  # which the programs read

    def generate(
        self, requests: Sequence[Request], sampler: Sampler, draft: "Engine | None" = None
    ) -> Generation:
        """Start to run requests.

        Args:
            requests: at least one.
            sampler: chooses the tokens.
            draft: an engine on a smaller decoder with the same vocabulary, for a
                `SpeculativeSampler`; None for any other sampler.

        Returns:
            An iterator of `GeneratedToken`. Tokens of one sequence come in order; those of
            different requests are interleaved.

        Raises:
            ValueError: there is a draft and the sampler has no use for it, or the other way round.
        """
        loop = _LOOPS[sampler.strategy](self, sampler, draft)

        def run(generation: Generation) -> Generator[GeneratedToken]:
            total = len(generation.requests)
            size = max(1, self._max_slots // loop.rows_per_request)
            for first in range(0, total, size):
                yield from loop.run(generation, range(first, min(first + size, total)))

        return Generation(requests, run, self.clock)

    def clock(self) -> float:
        """Return a time in seconds that stands still while programs are compiled."""
        return time.perf_counter() - get_backend().compile_seconds

    def programs(self, kind: Callable[..., Programs], sampler: Sampler) -> Programs:
        """Return compiled programs of some kind, the same ones for all samplers they serve.

        Args:
            kind: a class that is made with a decoder, a sampler and a backend.
            sampler: what the programs are for.
        """
        return self._kept((kind, sampler.program), kind, self.decoder, sampler, get_backend())

    def _kept(self, key: Any, kind: Any, *arguments: Any) -> Any:
        variables = self.decoder.variables
        if list(map(id, variables)) != list(map(id, self._variables)):
            # LoRA and quantization give the model other variables than the programs read.
            self._programs.clear()
            self._variables = variables
        if key not in self._programs:
            self._programs[key] = kind(*arguments)
        return self._programs[key]

    def _prompt_steps(self) -> PromptSteps:
        return self._kept(PromptSteps, PromptSteps, self.decoder, get_backend())

    def allocate(self, rows: int, capacity: int) -> Buffers:
        """Return an empty KV cache.

        Args:
            rows: number of rows.
            capacity: number of positions in a row.
        """
        return allocate_buffers(self.decoder.config, rows, capacity, self.decoder.compute_dtype)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Generator[Prefilled]:
        """Compute prompts, those together that are cut alike.

        Args:
            prompts: token ids.
        """
        most_tokens = TOKENS_AT_ONCE if uses_kernels() else None
        for chunks, indices in prefill_groups([len(prompt) for prompt in prompts], most_tokens):
            yield self._prefill(prompts, chunks, indices)

    def _prefill(
        self, prompts: Sequence[Sequence[int]], chunks: Chunks, indices: list[int]
    ) -> Prefilled:
        """Compute the prompts with these indices, chunk by chunk."""
        buffers: Any = self.allocate(len(indices), chunks.capacity) if chunks.full else None
        hidden_states = []
        for number in range(chunks.full + 1):
            start = number * LARGEST_CHUNK
            size = chunks.last if number == chunks.full else LARGEST_CHUNK
            token_ids = np.zeros((len(indices), size), "int32")
            for row, index in zip(token_ids, indices, strict=True):
                chunk = prompts[index][start : start + size]
                row[: len(chunk)] = chunk
            buffers, chunk_hidden_states, last_hidden_states = self._prompt_steps().prefill(
                buffers=buffers,
                token_ids=token_ids,
                start=np.int32(start) if chunks.full else None,
                lengths=np.array([len(prompts[index]) for index in indices], "int32"),
            )
            hidden_states.append(chunk_hidden_states)
        return Prefilled(indices, buffers, hidden_states, last_hidden_states)

    def insert(
        self, buffers: Buffers, prefilled: Prefilled, rows: Sequence[Sequence[int]]
    ) -> Buffers:
        """Return the cache with prompts in their rows.

        Args:
            buffers: the cache.
            prefilled: some of the prompts.
            rows: for each of the prompts, the rows where it goes.
        """
        insert = self._prompt_steps().insert
        for prompt_row, prompt in enumerate(prefilled.prompts):
            for row in rows[prompt]:
                buffers = [
                    insert(
                        buffers=layer,
                        prompt=prompt_layer,
                        prompt_row=np.int32(prompt_row),
                        row=np.int32(row),
                    )
                    for layer, prompt_layer in zip(buffers, prefilled.buffers, strict=True)
                ]
        return buffers

    def fill(
        self,
        buffers: Buffers,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[Sequence[int]] | None = None,
    ) -> Buffers:
        """Compute prompts, and return the cache with them in their rows.

        Args:
            buffers: the cache.
            prompts: token ids.
            rows: for each of the prompts, the rows where it goes; by default, one for each.
        """
        if rows is None:
            rows = [[row] for row in range(len(prompts))]
        for prefilled in self.prefill(prompts):
            buffers = self.insert(buffers, prefilled, rows)
        return buffers

    def outgrows(self, before: int, after: int) -> bool:
        """Return whether what the cache holds of a text does not hold for a longer one.

        Args:
            before: number of tokens of the text that was computed.
            after: number of tokens of the longer text.
        """
        limit = self.decoder.config.recomputed_beyond
        return limit is not None and before <= limit < after

    def renew(self, buffers: Buffers, text: Sequence[int], before: int, row: int) -> Buffers:
        """Return the cache with a text computed anew, if it has outgrown what is held of it.

        Args:
            buffers: the cache.
            text: token ids.
            before: number of tokens of the text that was computed.
            row: of the text.
        """
        return self.fill(buffers, [text], [[row]]) if self.outgrows(before, len(text)) else buffers
