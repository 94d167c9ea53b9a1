"""Random numbers that are a function of (seed, step, token id), and of nothing else.

A stateful generator hands out numbers in the order in which they are asked for, so that a row's
numbers depend on the rows beside it. Here each number is instead the hash of its coordinates, a
counter-based generator as in Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011):
a row samples the same tokens alone, in any batch, in any order, and on every backend.

Everything is int32 arithmetic that wraps around, which all backends agree on bit for bit.
"""

from typing import Any

from keras import ops

# Weyl constants (golden ratio, square root of 3) make two independent keys out of the same words.
_KEY_CONSTANTS = (0x9E3779B9, 0xBB67AE85)
_SUBSTREAM_CONSTANT = 0x3C6EF372  # square root of 5
_LARGEST_BELOW_ONE = 1 - 2.0**-24


def _signed(word: int) -> int:
    """The int32 with the bits of the unsigned 32-bit `word`."""
    return word - 2**32 if word >= 2**31 else word


def seed_words(seed: int) -> tuple[int, int]:
    """Split a seed into the two 32-bit words that the samplers take.

    Args:
        seed: an integer from 0 to 2**63 - 1.

    Returns:
        The low and the high word, each in the range of int32.

    Example:
    >>> seed_words(1)
    (1, 0)
    >>> seed_words(2**32 - 1)
    (-1, 0)
    """
    return _signed(seed & 0xFFFFFFFF), _signed(seed >> 32 & 0xFFFFFFFF)


def substream(seeds: Any, number: int) -> Any:
    """Return seeds for another random choice in the same step, independent of that of `seeds`.

    Args:
        seeds: int32 `[batch, 2]`, the words of each row's seed.
        number: which other choice, at least 1.

    Returns:
        int32 `[batch, 2]`.
    """
    return ops.bitwise_xor(seeds, _signed(number * _SUBSTREAM_CONSTANT & 0xFFFFFFFF))


def _shift_right(x: Any, bits: int) -> Any:
    """Shift right and fill with zeros; `ops.right_shift` fills with the sign."""
    return ops.bitwise_and(ops.right_shift(x, bits), (1 << 32 - bits) - 1)


def _mix(x: Any) -> Any:
    """Hash int32 words to int32 words, one to one, so that each input bit flips half of the bits.

    This is `lowbias32` of Chris Wellons' "Hash Function Prospector", tuned by exhaustive search to
    a lower bias than MurmurHash3's finaliser.
    """
    x = ops.bitwise_xor(x, _shift_right(x, 16))
    x = ops.multiply(x, _signed(0x7FEB352D))
    x = ops.bitwise_xor(x, _shift_right(x, 15))
    x = ops.multiply(x, _signed(0x846CA68B))
    return ops.bitwise_xor(x, _shift_right(x, 16))


def row_keys(seeds: Any, steps: Any) -> tuple[Any, Any]:
    """Hash each row's seed and step into two keys.

    Args:
        seeds: int32 `[batch, 2]`, the words of each row's seed.
        steps: int32 `[batch]`, the index of the token that each row is about to choose.

    Returns:
        Two int32 tensors `[batch]`. For one seed, no two steps share a key.
    """
    low, high = seeds[:, 0], seeds[:, 1]
    first, second = map(_signed, _KEY_CONSTANTS)
    for word in (low, high, steps):
        first = _mix(ops.bitwise_xor(word, first))
    for word in (high, low, steps):
        second = _mix(ops.bitwise_xor(word, second))
    return first, second


def uniform_at(seeds: Any, steps: Any, token_ids: Any) -> Any:
    """Return a uniform random number for each of some tokens.

    Args:
        seeds: int32 `[batch, 2]`, the words of each row's seed.
        steps: int32 `[batch]`, the index of the token that each row is about to choose.
        token_ids: int32 `[batch, tokens]`, or `[1, tokens]` for the same tokens in every row.

    Returns:
        float32 `[batch, tokens]`, greater than 0 and less than 1, a multiple of 2**-32 near 0.
    """
    first, second = row_keys(seeds, steps)
    bits = _mix(ops.bitwise_xor(token_ids, first[:, None]))
    bits = _mix(ops.bitwise_xor(bits, second[:, None]))
    v = (ops.cast(_shift_right(bits, 1), "float32") + 0.5) * 2.0**-31
    return ops.minimum(v, _LARGEST_BELOW_ONE)


def gumbel_noise(seeds: Any, steps: Any, token_ids: Any) -> Any:
    """Return the standard Gumbel noise of chosen tokens.

    The token with the largest sum of its logit and its noise is a sample of softmax(logits): the
    Gumbel-max trick (Gumbel 1954; Maddison et al., "A* sampling", 2014).

    Args:
        seeds: int32 `[batch, 2]`, the words of each row's seed.
        steps: int32 `[batch]`, the index of the token that each row is about to choose.
        token_ids: int32 `[batch, tokens]`, or `[1, tokens]` for the same tokens in every row.

    Returns:
        float32 `[batch, tokens]`, finite, between -2.9 and 22.2.
    """
    # With v uniform in (0, 1), -log(v) would have its steps where v is near 1. They are put where
    # v is near 0, and there 2**-31 wide: the largest noise of a row decides, and must not tie.
    return -ops.log(-ops.log1p(-uniform_at(seeds, steps, token_ids)))
