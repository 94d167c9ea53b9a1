"""`RotaryConfig`: how rotary position embedding turns positions into angles, as data."""

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class _Scaling:
    """A kind of scaling, which checks that every number it is given is finite and positive."""

    kind: ClassVar[str]

    @property
    def magnitude(self) -> float:
        """Factor of whatever is rotated."""
        return 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            numbers = value if isinstance(value, tuple) else (value,)
            if value is None or isinstance(value, bool):
                continue
            if not all(_is_positive(number) for number in numbers):
                raise ValueError(
                    f"`{name}` of the rotary scaling {self.kind!r} must be positive and finite. "
                    f"Received: {value!s:.60}."
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearScaling(_Scaling):
    """Position interpolation: every position is divided by `factor` (arXiv:2306.15595)."""

    kind: ClassVar[str] = "linear"
    factor: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class DynamicScaling(_Scaling):
    """A base that grows with the text once it is longer than the context of pre-training.

    A text of `n` tokens, `n > original_context_length`, has the base `theta * s ** (d / (d - 2))`
    with `s = factor * n / original_context_length - (factor - 1)` and `d` rotated dimensions
    (https://arxiv.org/abs/2309.00071, section 3.3). While a text grows, each token is rotated by
    the base of the text that it was the end of; what is cached stays as it is.
    """

    kind: ClassVar[str] = "dynamic"
    factor: float
    original_context_length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3Scaling(_Scaling):
    """Llama 3.1's interpolation of low frequencies only (https://arxiv.org/abs/2407.21783).

    Wavelengths above `original_context_length / low_frequency_factor` are stretched by `factor`,
    those below `original_context_length / high_frequency_factor` are kept, and those between are
    blended.
    """

    kind: ClassVar[str] = "llama3"
    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context_length: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class YarnScaling(_Scaling):
    """YaRN (https://arxiv.org/abs/2309.00071): interpolation of low frequencies, sharper attention.

    Pairs that turn less than `slow_turns` times in `original_context_length` tokens are stretched
    by `factor`, those that turn more than `fast_turns` times are kept, and those between are
    blended by their index, rounded outwards to whole pairs with `whole_pairs`. What is rotated is
    multiplied by `attention_factor`, by default that of the paper.
    """

    kind: ClassVar[str] = "yarn"
    factor: float
    original_context_length: int
    fast_turns: float = 32.0
    slow_turns: float = 1.0
    whole_pairs: bool = True
    attention_factor: float | None = None

    @property
    def magnitude(self) -> float:
        return self.attention_factor or yarn_magnitude(self.factor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairScaling(_Scaling):
    """A factor for each rotated pair, by which its frequency is divided."""

    kind: ClassVar[str] = "pairs"
    factors: Sequence[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors", tuple(self.factors))  # JSON has lists only
        super().__post_init__()


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongRopeScaling(_Scaling):
    """LongRoPE (https://arxiv.org/abs/2402.13753): a factor for each pair, in two sets.

    `short_factors` divide the frequencies of texts up to `original_context_length` tokens and
    `long_factors` those of longer ones, all of whose tokens are rotated alike. A text that grows
    beyond is computed anew once. What is rotated is multiplied by `attention_factor`, by default
    what the paper gives for a context that is `factor` times as long as that of pre-training.
    """

    kind: ClassVar[str] = "longrope"
    short_factors: Sequence[float]
    long_factors: Sequence[float]
    original_context_length: int
    factor: float = 1.0
    attention_factor: float | None = None

    @property
    def magnitude(self) -> float:
        growth = math.log(max(self.factor, 1.0)) / math.log(self.original_context_length)
        return self.attention_factor or math.sqrt(1 + growth)

    def __post_init__(self) -> None:
        for name in ("short_factors", "long_factors"):  # JSON has lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()
        if self.original_context_length < 2:  # its logarithm divides
            raise ValueError(
                "`original_context_length` of the rotary scaling 'longrope' must be at least 2. "
                f"Received: {self.original_context_length}."
            )


RotaryScaling = (
    LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling | PairScaling | LongRopeScaling
)
_SCALINGS: dict[str, type[Any]] = {cls.kind: cls for cls in typing.get_args(RotaryScaling)}


def rotary_scaling(
    settings: Mapping[str, Any] | None, *, factor: float = 1.0
) -> RotaryScaling | None:
    """Return the scaling that a backbone's arguments describe.

    Args:
        settings: "kind", which is "linear", "dynamic", "llama3", "yarn", "pairs" or "longrope",
            and the attributes of the scaling of this kind; or None.
        factor: where there are no settings, what positions are divided by.

    Raises:
        ValueError: the settings are none of a kind of scaling.

    Example:
    >>> rotary_scaling({"kind": "dynamic", "factor": 2, "original_context_length": 64})
    DynamicScaling(factor=2, original_context_length=64)
    """
    if settings is None:
        return None if factor == 1 else LinearScaling(factor=factor)
    values = dict(settings)
    kind = values.pop("kind", None)
    if kind not in _SCALINGS:
        raise ValueError(
            f"The 'kind' of a rotary scaling must be one of {', '.join(map(repr, _SCALINGS))}. "
            f"Received: {kind!r}."
        )
    try:
        scaling: RotaryScaling = _SCALINGS[kind](**values)
    except TypeError:
        known = ", ".join(field.name for field in dataclasses.fields(_SCALINGS[kind]))
        raise ValueError(
            f"The rotary scaling {kind!r} has the attributes {known}. Received: "
            f"{', '.join(map(str, values))}."
        ) from None
    return scaling


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryConfig:
    """How rotary position embedding turns positions into angles.

    Attributes:
        theta: base of the geometric series of wavelengths.
        fraction: the part of a head's dimensions, from the first, that is rotated.
        scaling: how the frequencies are changed to reach beyond the context of pre-training.
    """

    theta: float = 10000.0
    fraction: float = 1.0
    scaling: RotaryScaling | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.theta) and self.theta > 0):
            raise ValueError(
                f"The rotary `theta` must be a positive number. Received: {self.theta}."
            )
        if not 0 < self.fraction <= 1:
            raise ValueError(f"The rotary `fraction` must be in (0, 1]. Received: {self.fraction}.")

    def dimensions(self, head_dim: int) -> int:
        """Return how many dimensions of a head are rotated."""
        # A little more, since a fraction made of two integers may round down.
        return int(head_dim * self.fraction + 1e-6)

    def check(self, head_dim: int) -> None:
        """Check that heads of a width can be rotated so.

        Raises:
            ValueError: they cannot.
        """
        dimensions, scaling = self.dimensions(head_dim), self.scaling
        if dimensions % 2:
            raise ValueError(
                "Rotary position embedding needs an even `head_dim`, or even part of it. Received: "
                f"{dimensions} dimensions."
            )
        if isinstance(scaling, DynamicScaling) and dimensions < 4:
            raise ValueError(
                "The rotary scaling 'dynamic' needs at least 4 rotated dimensions. Received: "
                f"{dimensions}."
            )
        if scaling is None:
            return
        for name, value in vars(scaling).items():
            if isinstance(value, tuple) and len(value) != dimensions // 2:
                raise ValueError(
                    f"`{name}` of the rotary scaling {scaling.kind!r} must have {dimensions // 2} "
                    f"entries, one for each rotated pair. Received: {len(value)} entries."
                )

    @property
    def changes_beyond(self) -> int | None:
        """The number of tokens beyond which rotation depends on the text's length, or None."""
        scaling = self.scaling
        if isinstance(scaling, DynamicScaling | LongRopeScaling):
            return scaling.original_context_length
        return None

    @property
    def recomputed_beyond(self) -> int | None:
        """The number of tokens beyond which all tokens of a text are rotated otherwise, or None."""
        scaling = self.scaling
        return scaling.original_context_length if isinstance(scaling, LongRopeScaling) else None


def rotary_config(
    theta: float,
    settings: Mapping[str, Any] | None,
    *,
    factor: float = 1.0,
    fraction: float = 1.0,
) -> RotaryConfig:
    """Return the rotary embedding that a backbone's arguments describe.

    Args:
        theta: see `RotaryConfig`.
        settings: see `rotary_scaling`.
        factor: see `rotary_scaling`.
        fraction: see `RotaryConfig`.

    Raises:
        ValueError: an argument is out of its range, or the settings are none of a kind of scaling.

    Example:
    >>> rotary_config(10000.0, None, fraction=0.5)
    RotaryConfig(theta=10000.0, fraction=0.5, scaling=None)
    """
    scaling = rotary_scaling(settings, factor=factor)
    return RotaryConfig(theta=theta, fraction=fraction, scaling=scaling)


def yarn_magnitude(factor: float, scale: float = 1.0) -> float:
    """Return what YaRN multiplies with whatever is rotated.

    Args:
        factor: how many times as long as the context of pre-training texts may be.
        scale: weight of its logarithm.

    Example:
    >>> round(yarn_magnitude(40.0), 4)
    1.3689
    """
    return 0.1 * scale * math.log(max(factor, 1.0)) + 1.0


def _is_positive(number: Any) -> bool:
    return type(number) in (int, float) and math.isfinite(number) and number > 0
