"""Speculative decoding: a draft model proposes tokens, and one step of the model checks several.

Leviathan et al. 2023, arXiv:2211.17192. Where the draft's probability of its token is `q` and the
model's is `p`, the token is kept with probability `min(1, p / q)`. In the place of the first that
is not kept comes one drawn from what `p` has more than `q`; if all are kept, one more is drawn from
`p`. So every token follows the model's distribution, whatever the draft.

Each row keeps as many tokens as it does, and goes on from there: the keys and values of the others
lie behind its position, where nobody looks before they are overwritten. Random numbers are
functions of a row's seed and the index of the token, one for each kind of choice.
"""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from keras import ops

from nextword.generation.backend import Backend
from nextword.generation.cache import Buffers, DecodeCache
from nextword.generation.generation import Generation
from nextword.generation.loop import Loop, capacity_for, column
from nextword.generation.request import GeneratedToken, Request
from nextword.generation.sampling import first_tokens
from nextword.generation.sampling_inputs import SamplingInputs
from nextword.generation.steps import Decoder
from nextword.samplers import Sampler, SpeculativeSampler
from nextword.samplers.randomness import gumbel_noise, substream, uniform_at
from nextword.samplers.selection import pad_vocabulary, sample

if TYPE_CHECKING:
    from nextword.generation.engine import Engine

# The random choices in one step, see `nextword.samplers.randomness.substream`.
_DRAFT, _ACCEPT, _REPLACE = 1, 2, 3


class Progress(NamedTuple):
    """Where each row stands.

    Attributes:
        tokens: int32 tensor of shape `[rows, 2]`, each row's newest two tokens.
        positions: int32 tensor of shape `[rows]`, the position of the newest.
        steps: int32 tensor of shape `[rows]`, how many tokens each row has generated.
    """

    tokens: Any
    positions: Any
    steps: Any


class Proposal(NamedTuple):
    """What the draft proposes as the next token of each row.

    Attributes:
        tokens: int32 tensor of shape `[rows]`.
        log_probabilities: float32 tensor of shape `[rows, vocabulary]`, what it was drawn from.
    """

    tokens: Any
    log_probabilities: Any


class DraftSteps:
    """The compiled program of the draft model.

    Args:
        decoder: the draft model.
        sampler: chooses tokens.
        backend: compiles it.

    Attributes:
        propose: see `_propose`.
    """

    def __init__(self, decoder: Decoder, sampler: Sampler, backend: Backend) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._backend = backend
        self.propose = backend.compile(self._propose, decoder.variables, donated=["buffers"])

    def _propose(
        self, *, buffers: Buffers, progress: Progress, sampling: SamplingInputs
    ) -> tuple[Buffers, Proposal, Progress]:
        """Propose the next token of every row.

        Args:
            buffers: the draft's KV cache.
            progress: of the rows, the draft's earlier proposals included. `tokens` may have any
                length: they are the newest ones, which the cache need not hold.
            sampling: for the rows.

        Returns:
            The cache, the proposal, and the progress with it, whose `tokens` are only the proposed.
        """
        length = progress.tokens.shape[1]
        first = progress.positions - (length - 1)
        positions = first[:, None] + ops.arange(length, dtype="int32")
        caches = [DecodeCache(layer, first, self._backend) for layer in buffers]
        hidden_states = self._decoder.hidden_states(progress.tokens, positions, caches)
        logits = pad_vocabulary(ops.cast(self._decoder.logits(hidden_states[:, -1]), "float32"))
        tokens = self._sampler.next_tokens(
            logits, sampling.parameters, substream(sampling.seeds, _DRAFT), progress.steps
        )
        log_probabilities = self._sampler.log_probabilities(logits, sampling.parameters)
        after = Progress(tokens[:, None], progress.positions + 1, progress.steps + 1)
        return [cache.buffers for cache in caches], Proposal(tokens, log_probabilities), after


class VerifySteps:
    """The compiled program that checks proposals.

    Args:
        decoder: the model.
        sampler: chooses tokens.
        backend: compiles it.

    Attributes:
        verify: see `_verify`.
    """

    def __init__(self, decoder: Decoder, sampler: Sampler, backend: Backend) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._backend = backend
        self.verify = backend.compile(self._verify, decoder.variables, donated=["buffers"])

    def _verify(
        self,
        *,
        buffers: Buffers,
        progress: Progress,
        proposals: list[Proposal],
        sampling: SamplingInputs,
    ) -> tuple[Buffers, Any, Any, Progress]:
        """Keep the proposals that may be kept, and choose one more token of every row.

        Args:
            buffers: the KV cache.
            progress: of the rows, without the proposals.
            proposals: consecutive ones.
            sampling: for the rows.

        Returns:
            The cache; the new tokens, int32 `[rows, proposals + 1]`; how many proposals of each
            row were kept, int32 `[rows]`, after which comes the token that was chosen, and nothing
            of meaning; the progress with these.
        """
        count, last = len(proposals), buffers[0][0].shape[2] - 1
        proposed = ops.stack([proposal.tokens for proposal in proposals], axis=1)
        read = ops.concatenate([progress.tokens[:, -1:], proposed], axis=1)
        buffers, log_probabilities = self._read(buffers, progress.positions, read, sampling)
        tokens, kept = _check(
            proposed,
            ops.exp(ops.stack([proposal.log_probabilities for proposal in proposals], axis=1)),
            ops.exp(log_probabilities),
            self._room(progress.positions, count),
            sampling.seeds,
            progress.steps,
        )
        newest = [ops.take_along_axis(some, kept[:, None], axis=1) for some in (read, tokens)]
        after = Progress(
            tokens=ops.concatenate(newest, axis=1),
            # A row whose request has ended goes on until the others have; it must stay inside.
            positions=ops.minimum(progress.positions + kept + 1, last - count),
            steps=progress.steps + kept + 1,
        )
        return buffers, tokens, kept, after

    def _room(self, positions: Any, count: int) -> Any:
        """Return how many of `count` proposals one step can check in each row.

        It computes all tokens as parts of a text that ends with the first of them. Where the
        rotation of positions changes with the length of the text, that holds only so far.
        """
        config = self._decoder.config
        everything = ops.full_like(positions, count)
        if config.changes_beyond is None:
            return everything
        within = ops.clip(config.changes_beyond - 1 - positions, 0, count)
        beyond = everything if config.recomputed_beyond is not None else ops.zeros_like(positions)
        return ops.where(positions < config.changes_beyond, within, beyond)

    def _read(
        self, buffers: Buffers, positions: Any, tokens: Any, sampling: SamplingInputs
    ) -> tuple[Buffers, Any]:
        """Compute the log probabilities `[rows, length, vocabulary]` of what follows each token."""
        rows, length = tokens.shape
        caches = [DecodeCache(layer, positions, self._backend) for layer in buffers]
        token_positions = positions[:, None] + ops.arange(length, dtype="int32")
        hidden_states = self._decoder.hidden_states(tokens, token_positions, caches)
        logits = ops.cast(self._decoder.logits(hidden_states), "float32")
        log_probabilities = self._sampler.log_probabilities(
            pad_vocabulary(ops.reshape(logits, (rows * length, -1))),
            sampling.repeat(length).parameters,
        )
        return [cache.buffers for cache in caches], ops.reshape(
            log_probabilities, (rows, length, -1)
        )


def _check(
    proposed: Any, draft: Any, model: Any, room: Any, seeds: Any, steps: Any
) -> tuple[Any, Any]:
    """Decide which proposals are kept, and what comes after them.

    Args:
        proposed: int32 tensor of shape `[rows, proposals]`.
        draft: float32 tensor of shape `[rows, proposals, vocabulary]`, the probabilities that each
            was drawn with.
        model: float32 tensor of shape `[rows, proposals + 1, vocabulary]`, those that tokens are to
            have.
        room: int32 tensor of shape `[rows]`, the most proposals of each row that may be kept.
        seeds: int32 tensor of shape `[rows, 2]`.
        steps: int32 tensor of shape `[rows]`, index of the first proposed token.

    Returns:
        The new tokens, int32 `[rows, proposals + 1]`, and how many proposals are kept, int32
        `[rows]`. Behind the token after those there is nothing of meaning.
    """
    count = proposed.shape[1]
    q, p = (
        ops.take_along_axis(probabilities[:, :count], proposed[:, :, None], axis=2)[:, :, 0]
        for probabilities in (draft, model)
    )
    order = ops.arange(count, dtype="int32")[None]
    is_kept = uniform_at(substream(seeds, _ACCEPT), steps, order) * q < p
    kept = ops.cast(ops.sum(ops.cumprod(ops.cast(is_kept, "int32"), axis=1), axis=1), "int32")
    kept = ops.minimum(kept, room)

    wanted = ops.take_along_axis(model, kept[:, None, None], axis=1)[:, 0]
    next_proposal = ops.minimum(kept, count - 1)[:, None, None]
    drafted = ops.take_along_axis(draft, next_proposal, axis=1)[:, 0]
    drafted = ops.where((kept < room)[:, None], drafted, 0.0)
    excess = ops.maximum(wanted - drafted, 0.0)
    # Where two distributions are the same but for rounding, there may be no excess.
    excess = ops.where(ops.any(excess > 0, axis=-1, keepdims=True), excess, wanted)
    replacement_seeds = substream(seeds, _REPLACE)
    chosen = sample(ops.log(excess), lambda ids: gumbel_noise(replacement_seeds, steps + kept, ids))
    is_chosen = ops.arange(count + 1, dtype="int32") == kept[:, None]
    return ops.where(is_chosen, chosen[:, None], ops.pad(proposed, ((0, 0), (0, 1)))), kept


class SpeculativeDecoding(Loop):
    """The loop of `SpeculativeSampler`."""

    sampler: SpeculativeSampler
    takes_draft = True

    def __init__(
        self, engine: "Engine", sampler: SpeculativeSampler, draft: "Engine | None" = None
    ) -> None:
        super().__init__(engine, sampler, draft)
        self._draft: Any = draft
        self.rows_per_request = sampler.num_speculative_tokens + 1

    def run(self, generation: Generation, wave: range) -> Generator[GeneratedToken]:
        requests = [generation.requests[index] for index in wave]
        sampling = SamplingInputs.of(requests, self.sampler)
        capacity = capacity_for(requests, extra=self.sampler.num_speculative_tokens)
        buffers, first = first_tokens(
            self.engine, self.sampler.chooser, requests, sampling, capacity
        )
        yield from generation.record(wave, column(first))
        if not generation.is_active(wave):
            return
        texts = [[*request.token_ids] for request in requests]
        draft_buffers = self._draft.allocate(len(requests), capacity)
        draft_buffers = self._draft.fill(draft_buffers, texts)
        verify = self.engine.programs(VerifySteps, self.sampler.chooser).verify
        progress = _progress(requests, first)
        new = column(first)
        while generation.is_active(wave):
            for row, index in enumerate(wave):
                before = len(texts[row])
                texts[row] += new[row]
                if generation.is_active([index]):
                    buffers = self.engine.renew(buffers, texts[row], before, row)
                    draft_buffers = self._draft.renew(draft_buffers, texts[row], before, row)
            draft_buffers, proposals = self._propose(draft_buffers, progress, sampling)
            buffers, tokens, kept, progress = verify(
                buffers=buffers, progress=progress, proposals=proposals, sampling=sampling
            )
            tokens, kept = (ops.convert_to_numpy(some).tolist() for some in (tokens, kept))
            self._count(generation, wave, kept)
            new = [row[: count + 1] for row, count in zip(tokens, kept, strict=True)]
            yield from generation.record(wave, new)

    def _propose(
        self, buffers: Buffers, progress: Progress, sampling: SamplingInputs
    ) -> tuple[Buffers, list[Proposal]]:
        """Let the draft propose tokens, one after the other."""
        propose = self._draft.programs(DraftSteps, self.sampler.chooser).propose
        proposals = []
        for _ in range(self.sampler.num_speculative_tokens):
            buffers, proposal, progress = propose(
                buffers=buffers, progress=progress, sampling=sampling
            )
            proposals.append(proposal)
        return buffers, proposals

    def _count(self, generation: Generation, wave: range, kept: Sequence[int]) -> None:
        for index, count in zip(wave, kept, strict=True):
            if generation.is_active([index]):
                generation.statistics.drafted_tokens += self.sampler.num_speculative_tokens
                generation.statistics.accepted_tokens += count


def _progress(requests: Sequence[Request], first: np.ndarray) -> Progress:
    """Return where rows stand with their first token."""
    last = np.array([request.token_ids[-1] for request in requests], "int32")
    lengths = np.array([len(request.token_ids) for request in requests], "int32")
    return Progress(np.stack([last, first], axis=1), lengths, np.ones(len(requests), "int32"))
