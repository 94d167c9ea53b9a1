"""Checks of the arguments that samplers share: one clear sentence for whatever cannot work."""

import math
import reprlib
from numbers import Integral, Real
from typing import Any

MAX_TEMPERATURE = 3.4028234e38  # the largest float32: the division by it runs in float32
MAX_SEED = 2**63 - 1
MAX_INT32 = 2**31 - 1


def _received(name: str, value: Any) -> str:
    return f"Received: {name}={reprlib.repr(value)}."


def _as_float(value: Any) -> float | None:
    # A bool is an int to Python, but `p=True` is a mistake.
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _as_int(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        return None
    return int(value)


def check_temperature(temperature: Any) -> float:
    """Return `temperature` as a float.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative, not finite, or too large for float32.
    """
    rule = "`temperature` must be a finite number >= 0, where 0 means greedy choice."
    number = _as_float(temperature)
    if number is None:
        raise TypeError(f"{rule} {_received('temperature', temperature)}")
    if not 0 <= number <= MAX_TEMPERATURE:
        raise ValueError(f"{rule} {_received('temperature', temperature)}")
    return number


def check_count(name: str, value: Any) -> int:
    """Return `value` as an int.

    Args:
        name: what the argument is called.
        value: the argument.

    Raises:
        TypeError: it is not an integer.
        ValueError: it is less than 1.
    """
    rule = f"`{name}` must be an integer >= 1."
    number = _as_int(value)
    if number is None:
        raise TypeError(f"{rule} {_received(name, value)}")
    if number < 1:
        raise ValueError(f"{rule} {_received(name, value)}")
    return number


def check_p(p: Any) -> float:
    """Return `p` as a float.

    Raises:
        TypeError: it is not a number.
        ValueError: it is outside (0, 1].
    """
    rule = "`p` must be a number greater than 0 and at most 1."
    number = _as_float(p)
    if number is None:
        raise TypeError(f"{rule} {_received('p', p)}")
    if not 0 < number <= 1:
        raise ValueError(f"{rule} {_received('p', p)}")
    return number


def check_range(name: str, value: Any, low: float, high: float) -> float:
    """Return `value` as a float.

    Args:
        name: what the argument is called.
        value: the argument.
        low: the smallest number it may be.
        high: the largest.

    Raises:
        TypeError: it is not a number.
        ValueError: it is out of the range.
    """
    rule = f"`{name}` must be a number from {low} to {high}."
    number = _as_float(value)
    if number is None:
        raise TypeError(f"{rule} {_received(name, value)}")
    if not low <= number <= high:
        raise ValueError(f"{rule} {_received(name, value)}")
    return number


def check_flag(name: str, value: Any) -> bool:
    """Return `value`.

    Raises:
        TypeError: it is not a bool.
    """
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False. {_received(name, value)}")
    return value


def check_seed(seed: Any) -> int | None:
    """Return `seed` as an int, or None where there is none.

    Raises:
        TypeError: it is neither None nor an integer.
        ValueError: it is negative, or needs more than 63 bits.
    """
    if seed is None:
        return None
    rule = "`seed` must be None or an integer from 0 to 2**63 - 1."
    number = _as_int(seed)
    if number is None:
        raise TypeError(f"{rule} {_received('seed', seed)}")
    if not 0 <= number <= MAX_SEED:
        raise ValueError(f"{rule} {_received('seed', seed)}")
    return number
