"""What the engine is asked for, and what it answers: token ids only, never text."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

FinishReason = Literal["stop", "length", "cancelled"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One sequence to continue.

    Attributes:
        token_ids: the prompt, at least one token.
        max_new_tokens: the most tokens to generate, at least one.
        stop_token_ids: ids that end the sequence; the one that does is still reported.
        seed: 63-bit seed of the request's random choices. Token `t` depends on the seed and `t`
            alone, never on the other requests.
    """

    token_ids: Sequence[int]
    max_new_tokens: int
    stop_token_ids: frozenset[int] = frozenset()
    seed: int = 0


class GeneratedToken(NamedTuple):
    """One generated token of one request.

    Attributes:
        request: index of the request.
        token_id: the token.
        finish_reason: why the sequence ended with this token, or None while it goes on.
        sequence: which of the request's sequences it belongs to, where a sampler returns several;
            they come one after the other, best first.
    """

    request: int
    token_id: int
    finish_reason: FinishReason | None
    sequence: int = 0


@dataclasses.dataclass
class Statistics:
    """Counts and times of one generation.

    Attributes:
        prompt_tokens: number of tokens in the prompts.
        generated_tokens: number of tokens generated.
        decoded_tokens: those of them that are not the first of their sequence, which comes with
            the prompt.
        prompt_seconds: wall time until the first tokens were there, compilation left out, but not
            what the first execution of a program takes longer than later ones.
        generation_seconds: wall time from then to the last token so far, compilation left out.
        drafted_tokens: number of tokens that a draft model proposed.
        accepted_tokens: number of those that were kept.
    """

    prompt_tokens: int = 0
    generated_tokens: int = 0
    decoded_tokens: int = 0
    prompt_seconds: float = 0.0
    generation_seconds: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def prompt_tokens_per_second(self) -> float:
        """Speed of prefill; 0 before the first token."""
        return self.prompt_tokens / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def generated_tokens_per_second(self) -> float:
        """Speed of decoding; 0 before the second token."""
        return self.decoded_tokens / self.generation_seconds if self.generation_seconds else 0.0

    @property
    def acceptance_rate(self) -> float:
        """Share of the draft model's tokens that were kept; 0 without any."""
        return self.accepted_tokens / self.drafted_tokens if self.drafted_tokens else 0.0
