"""Contrastive search: of the most probable tokens, the one least like what was said before.

Su et al. 2022, arXiv:2202.06417. Each request has `k` rows of the cache, which are alike between
steps. In a step each row tries one candidate, and then all take over the keys and values of the
one that was chosen. The final hidden states of all tokens are kept beside the cache, in a buffer of
the shape `[requests, 1, capacity, hidden_dim]`.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from nextword.generation.backend import Backend
from nextword.generation.buckets import LARGEST_CHUNK
from nextword.generation.cache import Buffers, CandidateCache
from nextword.generation.generation import Generation
from nextword.generation.loop import Loop, capacity_for, read_behind
from nextword.generation.request import GeneratedToken, Request
from nextword.generation.sampling_inputs import SamplingInputs
from nextword.generation.steps import Decoder
from nextword.samplers import ContrastiveSampler

if TYPE_CHECKING:
    from nextword.generation.engine import Engine

_SMALLEST_NORM = 1e-30


class ContrastiveSteps:
    """The compiled programs of contrastive search.

    Args:
        decoder: the model.
        sampler: any contrastive sampler; its numbers are inputs of the programs.
        backend: compiles them.

    Attributes:
        remember: see `_remember`.
        choose: see `_choose`.
    """

    def __init__(self, decoder: Decoder, sampler: ContrastiveSampler, backend: Backend) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._backend = backend
        self.remember = backend.compile(self._remember, [], donated=["memory"])
        donated = ["buffers", "memory"]
        self.choose = backend.compile(self._choose, decoder.variables, donated=donated)

    def _remember(
        self, *, memory: Any, hidden_states: Any, prompt_row: Any, row: Any, start: Any
    ) -> Any:
        """Put a chunk of a prompt's hidden states into the row of its request.

        Args:
            memory: the buffer of hidden states.
            hidden_states: float tensor of shape `[prompts, chunk_length, hidden_dim]`.
            prompt_row: int32 scalar, which of the prompts.
            row: int32 scalar, where it goes.
            start: int32 scalar, position of the chunk's first token.
        """
        block = ops.take(hidden_states, [prompt_row], axis=0)[:, None]
        return self._backend.write_block(memory, block, row, start)

    def _choose(
        self,
        *,
        buffers: Buffers,
        memory: Any,
        newest: Any,
        positions: Any,
        sampling: SamplingInputs,
    ) -> tuple[Buffers, Any, Any, Any, Any]:
        """Choose the next token of every request.

        Args:
            buffers: the KV cache; rows `i * k` to `i * k + k - 1` belong to request `i`.
            memory: the buffer of hidden states.
            newest: float tensor of shape `[requests, hidden_dim]`, that of each newest token.
            positions: int32 tensor of shape `[requests]`, the position of the token to choose.
            sampling: for the requests.

        Returns:
            The cache, the hidden states, the tokens, and `newest` and `positions` for the next.
        """
        requests, _, capacity, _ = memory.shape
        k = buffers[0][0].shape[0] // requests
        # A request that has ended goes on until the others have; it must stay inside.
        positions = ops.minimum(positions, capacity - 1)
        newest = ops.cast(newest, self._decoder.compute_dtype)
        logits = ops.cast(self._decoder.logits(newest), "float32")
        log_probabilities = self._sampler.log_probabilities(logits, sampling.parameters)
        log_probabilities, tokens = self._backend.top_k(log_probabilities, k)

        tried_at = ops.repeat(positions, k, axis=0)
        caches = [CandidateCache(layer, tried_at, self._backend) for layer in buffers]
        hidden_states = self._decoder.hidden_states(
            ops.reshape(tokens, (-1, 1)), ops.expand_dims(tried_at, 1), caches
        )
        hidden_states = ops.reshape(hidden_states, (requests, k, -1))
        alpha = sampling.parameters["alpha"][:, None]
        similarity = _largest_similarity(hidden_states, memory[:, 0], positions)
        scores = (1 - alpha) * ops.exp(log_probabilities) - alpha * similarity
        best = self._backend.top_k(scores, 1)[1][:, 0]

        chosen = ops.take_along_axis(hidden_states, best[:, None, None], axis=1)
        memory = self._backend.write_tokens(memory, chosen[:, None], positions)
        rows = ops.repeat(ops.arange(requests, dtype="int32") * k + best, k, axis=0)
        buffers = [cache.keep(rows) for cache in caches]
        tokens = ops.take_along_axis(tokens, best[:, None], axis=1)[:, 0]
        return buffers, memory, tokens, chosen[:, 0], positions + 1


def _largest_similarity(candidates: Any, earlier: Any, lengths: Any) -> Any:
    """Return the largest cosine similarity of each candidate with the tokens before it.

    Args:
        candidates: float tensor of shape `[requests, k, hidden_dim]`.
        earlier: float tensor of shape `[requests, capacity, hidden_dim]`.
        lengths: int32 tensor of shape `[requests]`, number of earlier tokens.

    Returns:
        float32 tensor of shape `[requests, k]`.
    """
    candidates, earlier = ops.cast(candidates, "float32"), ops.cast(earlier, "float32")
    products = ops.matmul(candidates, ops.swapaxes(earlier, 1, 2))
    norms = ops.norm(candidates, axis=-1)[:, :, None] * ops.norm(earlier, axis=-1)[:, None]
    is_earlier = ops.arange(earlier.shape[1], dtype="int32") < lengths[:, None]
    similarities = products / ops.maximum(norms, _SMALLEST_NORM)
    return ops.max(ops.where(is_earlier[:, None], similarities, -1.0), axis=-1)


class ContrastiveSearch(Loop):
    """The loop of `ContrastiveSampler`."""

    def __init__(
        self, engine: "Engine", sampler: ContrastiveSampler, draft: "Engine | None" = None
    ) -> None:
        super().__init__(engine, sampler, draft)
        self.rows_per_request = min(sampler.k, engine.decoder.config.vocabulary_size)

    def run(self, generation: Generation, wave: range) -> Generator[GeneratedToken]:
        requests = [generation.requests[index] for index in wave]
        yield from read_behind(generation, wave, self._choose(requests))

    def _choose(self, requests: Sequence[Request]) -> Iterator[Any]:
        """Dispatch steps, and yield their tokens."""
        steps = self.engine.programs(ContrastiveSteps, self.sampler)
        prompts = [request.token_ids for request in requests]
        buffers, memory = self._allocate(len(requests), capacity_for(requests))
        buffers, memory, newest = self._read(buffers, memory, prompts, range(len(requests)))
        positions: Any = np.array([len(prompt) for prompt in prompts], "int32")
        sampling = SamplingInputs.of(requests, self.sampler)
        history: list[Any] = []
        for step in range(max(request.max_new_tokens for request in requests)):
            for row, request in enumerate(requests):
                length = len(request.token_ids) + step
                if step < request.max_new_tokens and self.engine.outgrows(length, length + 1):
                    # As part of a text with one more token, whichever it is.
                    text = [*request.token_ids, *(int(tokens[row]) for tokens in history), 0]
                    buffers, memory, _ = self._read(buffers, memory, [text], [row])
            buffers, memory, tokens, newest, positions = steps.choose(
                buffers=buffers,
                memory=memory,
                newest=newest,
                positions=positions,
                sampling=sampling,
            )
            history.append(tokens)
            yield tokens

    def _allocate(self, requests: int, capacity: int) -> tuple[Buffers, Any]:
        """Return an empty KV cache, and a buffer for hidden states."""
        decoder = self.engine.decoder
        shape = (requests, 1, capacity, decoder.config.hidden_dim)
        buffers = self.engine.allocate(requests * self.rows_per_request, capacity)
        return buffers, ops.zeros(shape, decoder.compute_dtype)

    def _read(
        self, buffers: Buffers, memory: Any, texts: Sequence[Sequence[int]], requests: Sequence[int]
    ) -> tuple[Buffers, Any, np.ndarray]:
        """Compute the texts of some requests.

        Args:
            buffers: the KV cache.
            memory: the buffer of hidden states.
            texts: token ids.
            requests: the request that each text belongs to.

        Returns:
            The cache and the hidden states with those of the texts, and the hidden state of each
            text's last token, `[texts, hidden_dim]`.
        """
        k = self.rows_per_request
        rows = [range(request * k, request * k + k) for request in requests]
        remember = self.engine.programs(ContrastiveSteps, self.sampler).remember
        last: dict[int, np.ndarray] = {}
        for prefilled in self.engine.prefill(texts):
            buffers = self.engine.insert(buffers, prefilled, rows)
            for prompt_row, text in enumerate(prefilled.prompts):
                for number, hidden_states in enumerate(prefilled.hidden_states):
                    memory = remember(
                        memory=memory,
                        hidden_states=hidden_states,
                        prompt_row=np.int32(prompt_row),
                        row=np.int32(requests[text]),
                        start=np.int32(number * LARGEST_CHUNK),
                    )
            hidden_states = ops.convert_to_numpy(prefilled.last_hidden_states)
            last.update(zip(prefilled.prompts, hidden_states, strict=True))
        return buffers, memory, np.stack([last[text] for text in range(len(texts))])
