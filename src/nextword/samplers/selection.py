"""Choose one token of each row, with as few passes over the vocabulary as can be.

What remains of a row after top-k or top-p is nearly always among its `CANDIDATES` best tokens. So
those are selected first, and the filter, the noise and the choice run on them alone; only if
some row keeps more does everything run on the whole vocabulary. Both ways choose the same tokens.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

from nextword.samplers.filters import probability_mass

CANDIDATES = 128
WIDTH_MULTIPLE = 128
_INT32_MAX = 2**31 - 1
# Below the smallest normal float32, and above its inverse, processors may compute with zero.
SMALLEST_TEMPERATURE = 2.0**-126
LARGEST_TEMPERATURE = 2.0**126


def is_greedy(temperature: Any) -> Any:
    """Return which rows take their most probable token, as bool `[batch]`."""
    return temperature < SMALLEST_TEMPERATURE


def scale_logits(logits: Any, temperature: Any) -> Any:
    """Divide logits by the temperature, after shifting each row so that its largest is 0.

    The shift changes no probability, and keeps the most probable token finite at any temperature.

    Args:
        logits: float32 `[batch, vocabulary]`.
        temperature: float32 `[batch]`; greedy rows are only shifted.

    Returns:
        float32 `[batch, vocabulary]`, at most 0.
    """
    peak = ops.max(logits, axis=-1, keepdims=True)
    shifted = logits - ops.where(ops.isfinite(peak), peak, 0.0)
    divisor = ops.where(is_greedy(temperature), 1.0, temperature)
    return shifted / ops.minimum(divisor, LARGEST_TEMPERATURE)[:, None]


def pad_vocabulary(logits: Any) -> Any:
    """Pad the vocabulary with tokens that cannot be chosen, to a width that vectorises.

    XLA compiles loops over an odd width, such as the 50257 tokens of GPT-2, to scalar code.

    Args:
        logits: float32 `[batch, vocabulary]`.

    Returns:
        float32 `[batch, width]`, minus infinity where there was no token.
    """
    missing = -logits.shape[-1] % WIDTH_MULTIPLE
    if not missing:
        return logits
    return ops.pad(logits, ((0, 0), (0, missing)), constant_values=-float("inf"))


def best_token(scores: Any, token_ids: Any) -> Any:
    """Return the token with the largest score of each row, the one with the lowest id if several.

    XLA vectorises two reductions, but not `argmax`, which is one reduction of pairs.

    Args:
        scores: float32 `[batch, tokens]`.
        token_ids: int32 `[batch, tokens]` or `[1, tokens]`.

    Returns:
        int32 `[batch]`; 0 where scores are NaN.
    """
    worse = ops.less(scores, ops.max(scores, axis=-1, keepdims=True))
    return ops.min(ops.where(worse, _INT32_MAX, token_ids), axis=-1)


def log_point_mass(logits: Any) -> Any:
    """Return the log probabilities of always choosing the most probable token of each row.

    Args:
        logits: float32 `[batch, vocabulary]`.

    Returns:
        float32 `[batch, vocabulary]`: 0 for that token, minus infinity for the others.
    """
    token_ids = ops.arange(logits.shape[-1], dtype="int32")[None]
    return ops.where(token_ids == best_token(logits, token_ids)[:, None], 0.0, -float("inf"))


def sample(logits: Any, noise: Callable[[Any], Any]) -> Any:
    """Choose one token of each row with the probabilities softmax(logits).

    Args:
        logits: float32 `[batch, vocabulary]`.
        noise: maps token ids, int32 `[batch, tokens]` or `[1, tokens]`, to their Gumbel noise.

    Returns:
        int32 `[batch]`.
    """
    token_ids = ops.arange(logits.shape[-1], dtype="int32")[None]
    return best_token(logits + noise(token_ids), token_ids)


def sample_filtered(
    logits: Any, keep: Callable[[Any, Any], Any], noise: Callable[[Any], Any]
) -> Any:
    """Choose one token of each row among those that a filter keeps.

    Args:
        logits: float32 `[batch, vocabulary]`.
        keep: the filter: `keep(logits, total)` returns the logits with minus infinity for the
            tokens to remove, which are less probable than all it keeps. Its argument `total` is
            None, or, if the logits are only the best tokens of each row, float32 `[batch]`,
            the sum of `probability_mass` over the whole vocabulary.
        noise: maps token ids, int32 `[batch, tokens]` or `[1, tokens]`, to their Gumbel noise.

    Returns:
        int32 `[batch]`.
    """
    if logits.shape[-1] <= CANDIDATES:
        return sample(keep(logits, None), noise)
    best, token_ids = ops.top_k(logits, CANDIDATES)
    token_ids = ops.cast(token_ids, "int32")
    kept = keep(best, ops.sum(probability_mass(logits), axis=-1))
    # If the last candidate goes, so does every token that is not a candidate.
    are_enough = ops.all(ops.equal(kept[:, -1], -float("inf")))
    return ops.cond(
        are_enough,
        lambda: best_token(kept + noise(token_ids), token_ids),
        lambda: sample(keep(logits, None), noise),
    )
