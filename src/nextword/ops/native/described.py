"""Arrays as the kernels' plain C functions take them: described by numbers, see array.h."""

from collections.abc import Sequence

import numpy as np

MOST_DIMENSIONS = 4
"""An array of more axes is of a type that no kernel takes."""

NUMBERS = 3 + MOST_DIMENSIONS
"""How many numbers describe an array: its address, type and rank, and its shape."""

TYPES = {"float32": 0, "bfloat16": 1, "float16": 2, "uint8": 3, "int8": 4, "int32": 5}
"""By the order in array.h."""

_OTHER = len(TYPES)
_PADDINGS = [(0,) * (MOST_DIMENSIONS - axes) for axes in range(MOST_DIMENSIONS + 1)]


def description(address: int, dtype: str, shape: Sequence[int]) -> list[int]:
    """Return the numbers of a dense array.

    Args:
        address: of its memory.
        dtype: its name.
        shape: its shape.
    """
    if len(shape) > MOST_DIMENSIONS:
        return [address, _OTHER, 0, *_PADDINGS[0]]
    return [address, TYPES.get(dtype, _OTHER), len(shape), *shape, *_PADDINGS[len(shape)]]


def described(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """Return descriptions as one array, int64 of shape `[arrays, NUMBERS]`."""
    return np.array(rows, np.int64).reshape(-1, NUMBERS)
