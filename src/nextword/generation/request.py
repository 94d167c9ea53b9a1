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
        finish_reason: why the request ended with this token, or None while it goes on.
    """

    request: int
    token_id: int
    finish_reason: FinishReason | None


@dataclasses.dataclass
class Statistics:
    """Counts and times of one generation.

    Attributes:
        prompt_tokens: number of tokens in the prompts.
        generated_tokens: number of tokens generated.
        prompt_seconds: wall time until the first tokens were there; compilation included.
        generation_seconds: wall time from then to the end.
    """

    prompt_tokens: int = 0
    generated_tokens: int = 0
    prompt_seconds: float = 0.0
    generation_seconds: float = 0.0
