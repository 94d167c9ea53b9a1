"""The samplers once more, in plain numpy, and what the tests need to call the real ones."""

from collections.abc import Callable, Hashable
from typing import Any

import keras
import numpy as np
from keras import ops

from nextword.samplers import Sampler
from nextword.samplers.randomness import seed_words


def compiled(function: Callable) -> Callable:
    """Compile where the backend runs compiled code only, as the engine does."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def parameters_of(*samplers: Sampler) -> dict:
    """The parameters of one row for each sampler, as the engine makes them."""
    rows = [sampler.parameters() for sampler in samplers]
    return {
        name: ops.convert_to_tensor(
            [row[name] for row in rows], dtype="int32" if isinstance(value, int) else "float32"
        )
        for name, value in rows[0].items()
    }


def words_of(seeds: list[int]) -> np.ndarray:
    return np.array([seed_words(seed) for seed in seeds], dtype="int32").reshape(-1, 2)


def to_numpy(tensor: Any) -> np.ndarray:
    if keras.backend.backend() == "torch":
        return tensor.cpu().numpy()  # `ops.convert_to_numpy` warns with torch and numpy 2.4
    return ops.convert_to_numpy(tensor)


_compiled_steps: dict[Hashable, Callable] = {}


def choose(sampler: Sampler, logits, seeds: list[int], steps, parameters=None) -> np.ndarray:
    """Call `sampler.next_tokens` as the engine does, and return numpy token ids."""
    logits = np.asarray(logits, dtype="float32")
    parameters = parameters or parameters_of(*[sampler] * len(logits))
    if sampler.program not in _compiled_steps:
        _compiled_steps[sampler.program] = compiled(sampler.next_tokens)
    tokens = _compiled_steps[sampler.program](
        ops.convert_to_tensor(logits),
        parameters,
        ops.convert_to_tensor(words_of(seeds)),
        ops.convert_to_tensor(np.asarray(steps, dtype="int32")),
    )
    assert keras.backend.standardize_dtype(tokens.dtype) == "int32"
    assert tuple(tokens.shape) == (len(logits),)
    return to_numpy(tokens)


def lowbias32(x: np.ndarray) -> np.ndarray:
    x = x.astype("uint32")
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x7FEB352D)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def gumbel_noise(seeds: list[int], steps, vocabulary_size: int) -> np.ndarray:
    low = np.array([seed & 0xFFFFFFFF for seed in seeds], dtype="uint32")
    high = np.array([seed >> 32 for seed in seeds], dtype="uint32")
    steps = np.asarray(steps).astype("uint32")
    first = np.uint32(0x9E3779B9)
    for word in (low, high, steps):
        first = lowbias32(first ^ word)
    second = np.uint32(0xBB67AE85)
    for word in (high, low, steps):
        second = lowbias32(second ^ word)
    tokens = np.arange(vocabulary_size, dtype="uint32")
    bits = lowbias32(lowbias32(tokens[None] ^ first[:, None]) ^ second[:, None])
    v = ((bits >> np.uint32(1)).astype("float32") + np.float32(0.5)) / np.float32(2**31)
    return -np.log(-np.log1p(-np.minimum(v, 1 - 2.0**-24).astype("float64")))


def softmax(logits: np.ndarray) -> np.ndarray:
    logits = np.asarray(logits, dtype="float64")
    with np.errstate(over="ignore"):
        mass = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return mass / mass.sum(axis=-1, keepdims=True)


def keep_top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """Which logits of one row top-k keeps, found with a full sort."""
    if k <= 0 or k >= len(logits):
        return np.ones(len(logits), dtype=bool)
    return logits >= np.sort(logits)[-k]


def keep_top_p(logits: np.ndarray, p: float) -> np.ndarray:
    """Which logits of one row top-p keeps, found with a full sort."""
    if p >= 1:
        return np.ones(len(logits), dtype=bool)
    order = np.argsort(-logits, kind="stable")
    sums = np.cumsum(softmax(logits)[order])
    last = min(np.searchsorted(sums, p), len(logits) - 1)
    return logits >= logits[order[last]]


def kept_probabilities(logits: np.ndarray, temperature=1.0, k=0, p=1.0) -> np.ndarray:
    """The exact distribution of one row after temperature, top-k and top-p."""
    scaled = np.asarray(logits, dtype="float64") / temperature
    scaled = np.where(keep_top_k(scaled, k), scaled, -np.inf)
    scaled = np.where(keep_top_p(scaled, p), scaled, -np.inf)
    return softmax(scaled)


def chi_square_excess(tokens: np.ndarray, probabilities: np.ndarray) -> float:
    """How many standard deviations the chi-square statistic of `tokens` lies above its mean."""
    possible = probabilities > 0
    counts = np.bincount(tokens, minlength=len(probabilities))
    assert not counts[~possible].any(), "a token was chosen that has no probability"
    expected = probabilities[possible] * len(tokens)
    assert expected.min() > 5, "too few draws for a chi-square test"
    statistic = ((counts[possible] - expected) ** 2 / expected).sum()
    freedom = possible.sum() - 1
    return (statistic - freedom) / np.sqrt(2 * freedom)
