"""Keep each row's most probable tokens, and set the logits of all others to minus infinity.

The smallest logit to keep is found without sorting the vocabulary: float32 numbers order like the
integers that hold their sign and magnitude, so 32 halvings of the integers, each one comparison and
one sum over the row, find it exactly. Limits are tensors, one for each row, so that other
limits need no other program.

Tokens whose logits equal the smallest one kept are kept too: which of them came first in a sort
would be an accident of the order of the vocabulary.
"""

from collections.abc import Callable
from typing import Any

from keras import ops

_INT32_MIN = -(2**31)
_SMALLEST_NORMAL = 2.0**-126
_ROUNDING = 2.0**-22  # of a sum of float32 probabilities, relative


def _ordered_integers(x: Any) -> Any:
    """Map float32 to int32 so that the order is kept, and 0.0 and -0.0 are one."""
    bits = ops.view(x, "int32")
    return ops.where(bits < 0, _INT32_MIN - bits, bits)


def _largest_integers(holds: Callable[[Any], Any], rows: Any) -> Any:
    """Find the largest int32 of each row for which `holds`, which is true up to some integer.

    Args:
        holds: maps int32 `[batch]` to bool `[batch]`. It is not asked about the smallest int32,
            which is the answer where it holds for nothing else.
        rows: any tensor `[batch]`.

    Returns:
        int32 `[batch]`.
    """

    def set_bit(i: Any, found: Any) -> Any:
        # The first "bit" is the sign: flipping it leads from the smallest int32 to zero.
        candidate = ops.bitwise_xor(found, ops.left_shift(ops.ones_like(found), 31 - i))
        return ops.where(holds(candidate), candidate, found)

    start = ops.full_like(rows, _INT32_MIN, dtype="int32")
    return ops.fori_loop(0, 32, set_bit, start)


def _keep_mass(logits: Any, mass: Any, target: Any) -> Any:
    """Keep the fewest most probable tokens whose `mass` sums to `target`; all if it never does."""

    def search() -> Any:
        ordered = _ordered_integers(logits)

        def reaches_target(threshold: Any) -> Any:
            kept = ops.where(ordered >= threshold[:, None], mass, 0.0)
            return ops.sum(kept, axis=-1) >= target

        threshold = _largest_integers(reaches_target, target)
        return ops.where(ordered >= threshold[:, None], logits, -float("inf"))

    return ops.cond(ops.any(ops.isfinite(target)), search, lambda: logits)


def probability_mass(logits: Any) -> Any:
    """Return exp(logit), scaled so that the most probable token of each row has 1.

    Args:
        logits: float32 `[batch, tokens]`.

    Returns:
        float32 `[batch, tokens]`; all zeros for a row whose logits are all minus infinity.
    """
    peak = ops.max(logits, axis=-1, keepdims=True)
    return ops.exp(logits - ops.where(ops.isfinite(peak), peak, 0.0))


def filter_top_k(logits: Any, k: Any) -> Any:
    """Keep the `k` most probable tokens of each row (Fan et al. 2018, arXiv:1805.04833).

    Args:
        logits: float32 `[batch, tokens]`; minus infinity is a token already removed.
        k: int32 `[batch]`. Rows with `k <= 0`, or `k` not below the number of tokens, keep all.

    Returns:
        `logits`, with minus infinity in place of all but the `k` largest of each row and whatever
        ties with them.
    """
    count = ops.cast(k, "float32")  # exact for every k below the size of a vocabulary
    target = ops.where(count > 0, count, float("inf"))
    return _keep_mass(logits, ops.ones_like(logits), target)


def filter_top_p(logits: Any, p: Any, total: Any = None) -> Any:
    """Keep the fewest most probable tokens whose probabilities sum to `p` or more.

    This is nucleus sampling (Holtzman et al. 2020, arXiv:1904.09751). At least one token is kept.

    Args:
        logits: float32 `[batch, tokens]`; minus infinity is a token already removed.
        p: float32 `[batch]`. Rows with `p >= 1` keep all tokens.
        total: float32 `[batch]`, the sum of `probability_mass` over the tokens that `p` is a share
            of. Defaults to the sum over `logits`.

    Returns:
        `logits`, with minus infinity in place of the tokens outside of the nucleus.
    """
    mass = probability_mass(logits)
    if total is None:
        total = ops.sum(mass, axis=-1)
    # Where the sum of some tokens is p itself, rounding must not call for one token more. And a
    # target of zero would be reached without any.
    target = ops.maximum(p * total * (1 - _ROUNDING), _SMALLEST_NORMAL)
    return _keep_mass(logits, mass, ops.where(p < 1, target, float("inf")))
