"""Write settings by asking their reader: what it asks for is written, and must mean the same to it.

So that no family holds the same knowledge twice, a format's writer knows no family. It offers every
setting by which the format could describe a decoder; the family's own reader takes those that it
knows; and what it makes of them must be the same decoder.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nextword.layers import (
    DecoderConfig,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    PairScaling,
    RotaryConfig,
    RotaryEmbedding,
    YarnScaling,
)

# What float32, in which GGUF keeps numbers, cannot tell apart in the end.
_MAGNITUDES_DIFFER_BY = 1e-5


class OfferedSettings(Mapping[str, Any]):
    """Settings of which those exist that somebody has asked for.

    Args:
        settings: keys and values. A value of None is there, and stands for null.

    Example:
    >>> offered = OfferedSettings({"hidden_size": 64, "n_embd": 64})
    >>> offered["hidden_size"], offered.get("head_dim"), dict(offered)
    (64, None, {'hidden_size': 64})
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._asked: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        value = self._settings[key]
        return self._asked.setdefault(key, value)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._asked))

    def __len__(self) -> int:
        return len(self._asked)

    def taken(self) -> dict[str, Any]:
        """Return the settings that were asked for, those in nested ones among them."""
        return {
            key: value.taken() if isinstance(value, OfferedSettings) else value
            for key, value in self._asked.items()
        }


def differences(read: DecoderConfig, meant: DecoderConfig) -> dict[str, Any]:
    """Return in which fields a decoder that was read computes something else than another.

    How many units are dropped in training is no part of it, nor is a limit of the context where
    the other declares none.

    Args:
        read: the description that was read.
        meant: the description that was meant.

    Returns:
        The fields of `meant` in question, and their values.

    Example:
    >>> config = DecoderConfig(
    ...     vocabulary_size=8, num_layers=1, hidden_dim=8, intermediate_dim=8, num_query_heads=1,
    ...     num_key_value_heads=1, head_dim=8, position_embedding="alibi",
    ... )
    >>> differences(dataclasses.replace(config, norm="layer", dropout=0.1), config)
    {'norm': 'rms', 'norm_bias': True}
    """
    if meant.context_length is None:
        read = dataclasses.replace(read, context_length=None)
    theirs, ours = _meaning(read), _meaning(meant)
    return {name: getattr(meant, name) for name in ours if not _is_close(theirs[name], ours[name])}


def _meaning(config: DecoderConfig) -> dict[str, Any]:
    """Return what a description says, so that different ways to say the same are equal."""
    meaning = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    layers, experts = range(config.num_layers), config.experts
    for name in ("dropout", "sliding_rotary", "rotary_layers", "sliding_layers"):
        del meaning[name]
    if config.position_embedding != "alibi":
        meaning["alibi_scale"] = meaning["alibi_dtype"] = None
    if config.norm == "rms":
        meaning["norm_bias"] = None
    limit = config.context_length or np.inf
    windows = [config.window(i) for i in layers]
    return meaning | {
        "rotary": [_rotation(config.rotary_of(i), rotated_width(config)) for i in layers],
        "sliding_window": [None if (window or limit) >= limit else window for window in windows],
        "attention_scale": config.attention_scale or config.head_dim**-0.5,
        "latent": config.latent and list(vars(config.latent).values()),
        "experts": experts
        and list((vars(experts) | {"layers": [config.has_experts(i) for i in layers]}).values()),
    }


def _rotation(rotary: RotaryConfig | None, width: int) -> list[Any] | None:
    if rotary is None:
        return None
    scaling = rotary.scaling
    meaning: list[Any] = [rotary.theta, rotary.dimensions(width)]
    match scaling:
        case None | LinearScaling(factor=1):
            return meaning
        case Llama3Scaling() | PairScaling():
            return [*meaning, "pairs", *pair_factors(rotary, width).tolist()]
        case YarnScaling() | LongRopeScaling():
            numbers = vars(scaling) | {"attention_factor": scaling.magnitude}
            if isinstance(scaling, LongRopeScaling):
                numbers["factor"] = None  # from which the magnitude was made
            return [*meaning, scaling.kind, *numbers.values()]
    return [*meaning, scaling.kind, *vars(scaling).values()]


def pair_factors(rotary: RotaryConfig | None, width: int) -> np.ndarray:
    """Return what the frequency of each rotated pair is divided by.

    Args:
        rotary: the rotary embedding, with a scaling.
        width: width of what is rotated of a head, see `rotated_width`.
    """
    assert rotary is not None  # noqa: S101  # for the type checker: its scaling was looked at
    plain = RotaryEmbedding(dataclasses.replace(rotary, scaling=None), width)
    return np.asarray(plain.frequencies(None)) / RotaryEmbedding(rotary, width).frequencies(None)


def rotated_width(config: DecoderConfig) -> int:
    """Return the width of the part of a head of which the rotary embedding rotates a fraction."""
    return config.latent.rotated_dim if config.latent else config.head_dim


def _is_close(stored: Any, meant: Any) -> bool:
    """Return whether two values are equal, floats as far as a file keeps them."""
    if isinstance(meant, list | tuple) and isinstance(stored, list | tuple):
        return len(stored) == len(meant) and all(map(_is_close, stored, meant))
    if isinstance(meant, float) and isinstance(stored, int | float):
        return abs(stored - meant) <= _MAGNITUDES_DIFFER_BY * abs(meant)
    return bool(stored == meant)
