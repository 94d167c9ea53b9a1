"""Beam search: the most probable sequences, several at once.

Each request has `num_beams` rows of the cache. A step first puts the rows' keys and values into the
order of the beams that they belong to, then extends every beam by every token, and sets aside what
has ended. All of that happens on the device: the host reads which requests are done, and in the
end their sequences.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from keras import ops

from nextword.generation.backend import Backend
from nextword.generation.buckets import next_power_of_two
from nextword.generation.cache import Buffers, DecodeCache, reorder_rows
from nextword.generation.generation import Generation
from nextword.generation.loop import Loop, capacity_for
from nextword.generation.request import GeneratedToken, Request
from nextword.generation.sampling_inputs import SamplingInputs
from nextword.generation.steps import Decoder
from nextword.samplers import BeamSampler
from nextword.samplers.selection import pad_vocabulary

if TYPE_CHECKING:
    from nextword.generation.engine import Engine

_NO_TOKEN = -1


class Limits(NamedTuple):
    """What ends the sequences of each request.

    Attributes:
        prompt_lengths: int32 array of shape `[requests]`.
        max_new_tokens: int32 array of shape `[requests]`.
        stop_token_ids: int32 array of shape `[requests, ids]`, with -1 where there are fewer.
    """

    prompt_lengths: Any
    max_new_tokens: Any
    stop_token_ids: Any

    @classmethod
    def of(cls, requests: Sequence[Request]) -> "Limits":
        """Return the limits of requests."""
        most = max(len(request.stop_token_ids) for request in requests)
        stop_token_ids = np.full((len(requests), next_power_of_two(max(most, 1))), _NO_TOKEN)
        for row, request in zip(stop_token_ids, requests, strict=True):
            row[: len(request.stop_token_ids)] = sorted(request.stop_token_ids)
        return cls(
            np.array([len(request.token_ids) for request in requests], "int32"),
            np.array([request.max_new_tokens for request in requests], "int32"),
            stop_token_ids.astype("int32"),
        )


class Beams(NamedTuple):
    """The state of the search; scores are minus infinity where there is no sequence.

    Attributes:
        steps: int32 tensor of shape `[requests]`, how many new tokens each live beam has.
        tokens: int32 tensor of shape `[requests, beams]`, the newest token of each live beam.
        parents: int32 tensor of that shape, the beam whose row of the cache each continues.
        scores: float32 tensor of that shape, their log probabilities, best first.
        sequences: int32 tensor of shape `[requests, beams, capacity]`, their new tokens.
        ended_sequences: the same for the best sequences that have ended.
        ended_lengths: int32 tensor of shape `[requests, beams]`, their numbers of new tokens.
        ended_scores: float32 tensor of that shape, their scores, best first.
        done: bool tensor of shape `[requests]`, whether no live beam is to go on.
    """

    steps: Any
    tokens: Any
    parents: Any
    scores: Any
    sequences: Any
    ended_sequences: Any
    ended_lengths: Any
    ended_scores: Any
    done: Any

    @classmethod
    def before(cls, requests: Sequence[Request], num_beams: int, capacity: int) -> "Beams":
        """Return the state in which one beam is about to read the last token of its prompt."""
        shape = len(requests), num_beams
        last = [[request.token_ids[-1]] * num_beams for request in requests]
        scores = np.full(shape, -np.inf, "float32")
        scores[:, 0] = 0
        return cls(
            steps=np.zeros(len(requests), "int32"),
            tokens=np.array(last, "int32"),
            parents=np.zeros(shape, "int32"),
            scores=scores,
            sequences=np.zeros((*shape, capacity), "int32"),
            ended_sequences=np.zeros((*shape, capacity), "int32"),
            ended_lengths=np.zeros(shape, "int32"),
            ended_scores=np.full(shape, -np.inf, "float32"),
            done=np.zeros(len(requests), "bool"),
        )


class BeamSteps:
    """The compiled program of beam search.

    Args:
        decoder: the model.
        sampler: any beam sampler; its numbers are inputs of the program.
        backend: compiles it.

    Attributes:
        extend: see `_extend`.
    """

    def __init__(self, decoder: Decoder, sampler: BeamSampler, backend: Backend) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._backend = backend
        self.extend = backend.compile(self._extend, decoder.variables, donated=["buffers"])

    def _extend(
        self, *, buffers: Buffers, beams: Beams, limits: Limits, sampling: SamplingInputs
    ) -> tuple[Buffers, Beams]:
        """Extend every live beam by one token.

        Args:
            buffers: the KV cache; row `i * num_beams + j` belongs to beam `j` of request `i`.
            beams: the state of the search.
            limits: of the requests.
            sampling: for the requests.

        Returns:
            The cache and the new state.
        """
        num_beams = beams.scores.shape[1]
        buffers, log_probabilities = self._decode(buffers, beams, limits, sampling)
        totals = beams.scores[:, :, None] + log_probabilities
        vocabulary_size = totals.shape[2]
        totals = ops.reshape(totals, (-1, num_beams * vocabulary_size))
        # As many as leave `num_beams` even if each beam's best continuations are its stop tokens.
        candidates = num_beams * (1 + limits.stop_token_ids.shape[1])
        scores, indices = self._backend.top_k(totals, min(candidates, totals.shape[1]))
        parents = indices // vocabulary_size
        # Where there is no sequence, the token may be one of the padding.
        tokens = ops.where(ops.isfinite(scores), indices % vocabulary_size, 0)
        is_stop = ops.any(tokens[:, :, None] == limits.stop_token_ids[:, None, :], axis=-1)
        live = self._live(beams, tokens, parents, ops.where(is_stop, -float("inf"), scores))
        # What ends counts only if it is among the best, as in a search without a stop token.
        best = slice(None), slice(num_beams)
        lengths = beams.steps + 1
        is_last = lengths >= limits.max_new_tokens
        ends = ops.logical_and(
            ops.logical_or(is_stop[best], is_last[:, None]), ops.logical_not(beams.done)[:, None]
        )
        penalty = sampling.parameters["length_penalty"]
        divisor = ops.power(ops.cast(lengths, "float32"), penalty)
        ended_scores = ops.where(ends, scores[best] / divisor[:, None], -float("inf"))
        live = self._set_aside(live, beams, tokens[best], parents[best], ended_scores)
        cannot_win = live.scores[:, 0] / divisor <= live.ended_scores[:, -1]
        done = ops.logical_or(beams.done, ops.logical_or(is_last, cannot_win))
        return buffers, live._replace(done=done)

    def _decode(
        self, buffers: Buffers, beams: Beams, limits: Limits, sampling: SamplingInputs
    ) -> tuple[Buffers, Any]:
        """Compute the log probabilities `[requests, beams, vocabulary]` of the next tokens."""
        requests, num_beams = beams.tokens.shape
        first_rows = ops.arange(requests, dtype="int32")[:, None] * num_beams
        buffers = reorder_rows(buffers, ops.reshape(first_rows + beams.parents, (-1,)))
        positions = limits.prompt_lengths - 1 + beams.steps
        # A request that is done goes on until the others are; it must stay inside.
        positions = ops.minimum(positions, buffers[0][0].shape[2] - 1)
        positions = ops.repeat(positions, num_beams, axis=0)
        caches = [DecodeCache(layer, positions, self._backend) for layer in buffers]
        hidden_states = self._decoder.hidden_states(
            ops.reshape(beams.tokens, (-1, 1)), ops.expand_dims(positions, 1), caches
        )
        logits = ops.cast(self._decoder.logits(hidden_states[:, 0]), "float32")
        log_probabilities = self._sampler.log_probabilities(
            pad_vocabulary(logits), sampling.repeat(num_beams).parameters
        )
        shape = requests, num_beams, log_probabilities.shape[-1]
        return [cache.buffers for cache in caches], ops.reshape(log_probabilities, shape)

    def _live(self, beams: Beams, tokens: Any, parents: Any, scores: Any) -> Beams:
        """Return the state with the best of the candidates as live beams."""
        scores, order = self._backend.top_k(scores, beams.scores.shape[1])
        tokens = ops.take_along_axis(tokens, order, axis=1)
        parents = ops.take_along_axis(parents, order, axis=1)
        return beams._replace(
            steps=beams.steps + 1,
            tokens=tokens,
            parents=parents,
            scores=scores,
            sequences=_extended(beams, tokens, parents),
        )

    def _set_aside(
        self, live: Beams, beams: Beams, tokens: Any, parents: Any, scores: Any
    ) -> Beams:
        """Keep the best of the sequences that had ended and of those that end now.

        Args:
            live: the state to change.
            beams: the state before the step.
            tokens: int32 tensor of shape `[requests, beams]`, the last tokens of sequences.
            parents: int32 tensor of that shape, the beams that they extend.
            scores: float32 tensor of that shape, minus infinity for sequences that do not end.
        """
        all_scores = ops.concatenate([beams.ended_scores, scores], axis=1)
        ended_scores, order = self._backend.top_k(all_scores, scores.shape[1])
        new_lengths = ops.broadcast_to(beams.steps[:, None] + 1, scores.shape)
        lengths = ops.concatenate([beams.ended_lengths, new_lengths], axis=1)
        sequences = ops.concatenate(
            [beams.ended_sequences, _extended(beams, tokens, parents)], axis=1
        )
        return live._replace(
            ended_sequences=ops.take_along_axis(sequences, order[:, :, None], axis=1),
            ended_lengths=ops.take_along_axis(lengths, order, axis=1),
            ended_scores=ended_scores,
        )


def _extended(beams: Beams, tokens: Any, parents: Any) -> Any:
    """Return the sequences of some parents, each with one more token."""
    sequences = ops.take_along_axis(beams.sequences, parents[:, :, None], axis=1)
    is_next = ops.arange(sequences.shape[2], dtype="int32") == beams.steps[:, None, None]
    return ops.where(is_next, tokens[:, :, None], sequences)


class BeamSearch(Loop):
    """The loop of `BeamSampler`."""

    sampler: BeamSampler

    def __init__(
        self, engine: "Engine", sampler: BeamSampler, draft: "Engine | None" = None
    ) -> None:
        super().__init__(engine, sampler, draft)
        self.rows_per_request = sampler.num_beams

    def run(self, generation: Generation, wave: range) -> Generator[GeneratedToken]:
        requests = [generation.requests[index] for index in wave]
        previous: Beams | None = None
        for beams in self._search(requests):
            # Read only after the next step was dispatched, so that the device never waits.
            if previous is not None:
                if ops.convert_to_numpy(previous.done).all():
                    break
                generation.tick()
            previous = beams
        for request, sequences in zip(wave, self._ended(beams), strict=True):
            yield from generation.deliver(request, sequences)

    def _search(self, requests: Sequence[Request]) -> Iterator[Beams]:
        """Dispatch steps, and yield the state after each."""
        num_beams = self.sampler.num_beams
        capacity = capacity_for(requests)
        buffers = self.engine.allocate(len(requests) * num_beams, capacity)
        prompts = [request.token_ids for request in requests]
        # One row of each is enough: the first step puts it into the others.
        first_rows = [[row * num_beams] for row in range(len(requests))]
        buffers = self.engine.fill(buffers, prompts, first_rows)
        extend = self.engine.programs(BeamSteps, self.sampler).extend
        beams = Beams.before(requests, num_beams, capacity)
        limits = Limits.of(requests)
        sampling = SamplingInputs.of(requests, self.sampler)
        for step in range(max(request.max_new_tokens for request in requests)):
            for row, request in enumerate(requests):
                length = len(request.token_ids) + step
                if step < request.max_new_tokens and self.engine.outgrows(length - 1, length):
                    buffers, beams = self._renew(buffers, beams, row, request.token_ids)
            buffers, beams = extend(buffers=buffers, beams=beams, limits=limits, sampling=sampling)
            yield beams

    def _renew(
        self, buffers: Buffers, beams: Beams, row: int, prompt: Sequence[int]
    ) -> tuple[Buffers, Beams]:
        """Compute what the cache holds of a request's live beams anew."""
        num_beams, count = self.sampler.num_beams, int(beams.steps[row])
        sequences = ops.convert_to_numpy(beams.sequences)[row, :, :count].tolist()
        parents = np.array(ops.convert_to_numpy(beams.parents))
        parents[row] = range(num_beams)
        texts = [[*prompt, *sequence] for sequence in sequences]
        rows = [[row * num_beams + beam] for beam in range(num_beams)]
        return self.engine.fill(buffers, texts, rows), beams._replace(parents=parents)

    def _ended(self, beams: Beams) -> Iterator[list[list[int]]]:
        """Yield the sequences that each request returns."""
        num_sequences = self.sampler.num_sequences or 1
        scores, lengths, sequences = (
            ops.convert_to_numpy(some)[:, :num_sequences]
            for some in (beams.ended_scores, beams.ended_lengths, beams.ended_sequences)
        )
        lengths = np.where(np.isfinite(scores), lengths, 0)
        for rows, counts in zip(sequences, lengths, strict=True):
            yield [row[:count].tolist() for row, count in zip(rows, counts, strict=True)]
