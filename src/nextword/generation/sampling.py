"""Sampling: one token of every row at a time, as the sampler chooses it from the logits."""

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from nextword.generation.backend import Backend
from nextword.generation.cache import Buffers, DecodeCache
from nextword.generation.generation import Generation
from nextword.generation.loop import Loop, capacity_for, column, read_behind
from nextword.generation.request import GeneratedToken, Request
from nextword.generation.sampling_inputs import SamplingInputs
from nextword.generation.steps import Decoder
from nextword.samplers import Sampler

if TYPE_CHECKING:
    from nextword.generation.engine import Engine


class SamplingSteps:
    """The compiled programs of sampling.

    Args:
        decoder: the model.
        sampler: chooses tokens; its parameters' values are inputs of the programs, so any sampler
            of the same kind can use them.
        backend: compiles them.

    Attributes:
        choose: see `_choose`.
        decode: see `_decode`.
    """

    def __init__(self, decoder: Decoder, sampler: Sampler, backend: Backend) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._backend = backend
        self.choose = backend.compile(self._choose, decoder.variables)
        self.decode = backend.compile(self._decode, decoder.variables, donated=["buffers"])

    def _choose(self, *, hidden_states: Any, steps: Any, sampling: SamplingInputs) -> Any:
        """Choose the next token of every row.

        Args:
            hidden_states: float tensor of shape `[rows, hidden_dim]`, of each row's newest token.
            steps: int32 tensor of shape `[rows]`, how many tokens each row has generated.
            sampling: for the rows.

        Returns:
            int32 tensor of shape `[rows]`.
        """
        logits = ops.cast(self._decoder.logits(hidden_states), "float32")
        return self._sampler.next_tokens(logits, sampling.parameters, sampling.seeds, steps)

    def _decode(
        self, *, buffers: Buffers, tokens: Any, positions: Any, steps: Any, sampling: SamplingInputs
    ) -> tuple[Buffers, Any, Any, Any]:
        """Compute the next token of every row.

        Args:
            buffers: the KV cache.
            tokens: int32 tensor of shape `[rows]`, each row's newest token.
            positions: int32 tensor of shape `[rows]`, its position.
            steps: int32 tensor of shape `[rows]`, how many tokens each row has generated.
            sampling: for the rows.

        Returns:
            The cache, the next tokens, and `positions` and `steps` for them.
        """
        # A row whose request has ended goes on until the others have; it must stay inside.
        positions = ops.minimum(positions, buffers[0][0].shape[2] - 1)
        caches = [DecodeCache(layer, positions, self._backend) for layer in buffers]
        hidden_states = self._decoder.hidden_states(
            ops.expand_dims(tokens, 1), ops.expand_dims(positions, 1), caches
        )
        chosen = self._choose(hidden_states=hidden_states[:, 0], steps=steps, sampling=sampling)
        return [cache.buffers for cache in caches], chosen, positions + 1, steps + 1


class Sampling(Loop):
    """The loop of every sampler that chooses one token from one step's logits."""

    def run(self, generation: Generation, wave: range) -> Generator[GeneratedToken]:
        requests = [generation.requests[index] for index in wave]
        sampling = SamplingInputs.of(requests, self.sampler)
        capacity = capacity_for(requests)
        buffers, tokens = first_tokens(self.engine, self.sampler, requests, sampling, capacity)
        yield from generation.record(wave, column(tokens))
        steps = self._decode(requests, buffers, tokens, sampling)
        yield from read_behind(generation, wave, steps)

    def _decode(
        self, requests: Sequence[Request], buffers: Buffers, tokens: Any, sampling: SamplingInputs
    ) -> Iterator[Any]:
        """Dispatch steps, and yield their tokens."""
        decode = self.engine.programs(SamplingSteps, self.sampler).decode
        lengths = [len(request.token_ids) for request in requests]
        positions: Any = np.array(lengths, "int32")
        steps: Any = np.ones(len(requests), "int32")
        history = [tokens]
        for step in range(1, max(request.max_new_tokens for request in requests)):
            for row, request in enumerate(requests):
                length = lengths[row] + step
                if step < request.max_new_tokens and self.engine.outgrows(length - 1, length):
                    text = [*request.token_ids, *(int(tokens[row]) for tokens in history)]
                    buffers = self.engine.fill(buffers, [text], [[row]])
            buffers, tokens, positions, steps = decode(
                buffers=buffers, tokens=tokens, positions=positions, steps=steps, sampling=sampling
            )
            history.append(tokens)
            yield tokens


def first_tokens(
    engine: "Engine",
    sampler: Sampler,
    requests: Sequence[Request],
    sampling: SamplingInputs,
    capacity: int,
) -> tuple[Buffers, np.ndarray]:
    """Compute the prompts of requests, and the first token of each.

    Args:
        engine: computes them.
        sampler: chooses the tokens.
        requests: one for each row.
        sampling: for the rows.
        capacity: number of positions of the cache.

    Returns:
        The KV cache with the prompts, and the tokens, int32 `[rows]`.
    """
    choose = engine.programs(SamplingSteps, sampler).choose
    buffers = engine.allocate(len(requests), capacity)
    own_row = [[row] for row in range(len(requests))]
    chosen = []
    for prefilled in engine.prefill([request.token_ids for request in requests]):
        rows = prefilled.prompts
        steps = np.zeros(len(rows), "int32")
        hidden_states = prefilled.last_hidden_states
        tokens = choose(hidden_states=hidden_states, steps=steps, sampling=sampling.select(rows))
        buffers = engine.insert(buffers, prefilled, own_row)
        chosen.append((rows, tokens))
    # Read at once, so that nobody waits for the next step to compile.
    first = np.zeros(len(requests), "int32")
    for rows, tokens in chosen:
        first[rows] = ops.convert_to_numpy(tokens)
    return buffers, first
