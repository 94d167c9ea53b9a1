"""How stored tensors are laid out otherwise than the variables made of them."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Layout(Protocol):
    """How a stored tensor differs from the variable made of it. `write` undoes `read`."""

    def read(self, tensor: np.ndarray) -> np.ndarray:
        """Return the variable's value."""
        ...

    def write(self, value: np.ndarray) -> np.ndarray:
        """Return the tensor to store for a variable's value."""
        ...


@dataclass(frozen=True)
class Transposed:
    """Stored `[..., in, out]`, held `[..., out, in]`; a bias, of one axis, stays as it is."""

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.swapaxes(-2, -1) if tensor.ndim > 1 else tensor

    def write(self, value: np.ndarray) -> np.ndarray:
        return self.read(value)


@dataclass(frozen=True)
class SwappedAxes:
    """A kernel of three axes stored with the first two in the other order; a bias as it is."""

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.swapaxes(0, 1) if tensor.ndim > 2 else tensor

    def write(self, value: np.ndarray) -> np.ndarray:
        return self.read(value)


@dataclass(frozen=True)
class UnusedRows:
    """Stored behind rows that no model reads.

    Args:
        count: number of rows.
    """

    count: int

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return tensor[self.count :]

    def write(self, value: np.ndarray) -> np.ndarray:
        unused = np.zeros((self.count, *value.shape[1:]), value.dtype)
        return np.concatenate([unused, value])


@dataclass(frozen=True)
class Rows:
    """The rows from `start` to `stop` of a tensor that several variables share.

    What `write` returns is these rows alone; `stored_tensors` puts the whole tensor together.

    Args:
        start: first row.
        stop: row after the last.
        axis: 0 for rows of a matrix or a bias, 1 where each expert has some.
    """

    start: int
    stop: int
    axis: int = 0

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return tensor[(slice(None),) * self.axis + (slice(self.start, self.stop),)]

    def write(self, value: np.ndarray) -> np.ndarray:
        return value


@dataclass(frozen=True)
class HeadAxis:
    """Stored `[heads * width, ...]`, held `[heads, width, ...]`.

    Args:
        num_heads: number of heads.
    """

    num_heads: int

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.reshape(self.num_heads, -1, *tensor.shape[1:])

    def write(self, value: np.ndarray) -> np.ndarray:
        return value.reshape(-1, *value.shape[2:])


@dataclass(frozen=True)
class NoHeadAxis:
    """Stored `[heads, width, ...]`, held `[heads * width, ...]`.

    Args:
        num_heads: number of heads.
    """

    num_heads: int

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return HeadAxis(self.num_heads).write(tensor)

    def write(self, value: np.ndarray) -> np.ndarray:
        return HeadAxis(self.num_heads).read(value)


@dataclass(frozen=True)
class AlternatingRows:
    """Stored for each expert with the rows of two matrices in turns, held one behind the other."""

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return np.concatenate([tensor[:, ::2], tensor[:, 1::2]], axis=1)

    def write(self, value: np.ndarray) -> np.ndarray:
        pairs = np.stack(np.split(value, 2, axis=1), axis=2)
        return pairs.reshape(value.shape)


@dataclass(frozen=True)
class InterleavedRotary:
    """Stored for a rotary embedding of neighbouring pairs, held for one of half-split pairs.

    Args:
        num_heads: number of heads that the rows are divided into.
        dimensions: number of rows of a head, from its first, that are rotated; None for all.
    """

    num_heads: int
    dimensions: int | None = None

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return self._regrouped(tensor, (-1, 2))

    def write(self, value: np.ndarray) -> np.ndarray:
        return self._regrouped(value, (2, -1))

    def _regrouped(self, tensor: np.ndarray, pairs: tuple[int, int]) -> np.ndarray:
        heads = tensor.reshape(self.num_heads, -1, *tensor.shape[1:])
        rotated, kept = np.split(heads, [self.dimensions or heads.shape[1]], axis=1)
        grouped = rotated.reshape(self.num_heads, *pairs, *tensor.shape[1:]).swapaxes(1, 2)
        return np.concatenate([grouped.reshape(rotated.shape), kept], axis=1).reshape(tensor.shape)


@dataclass(frozen=True)
class SplitHeads:
    """Stored `[in, heads, head_dim]`, held `[heads * head_dim, in]`; a bias loses its head axis.

    Args:
        num_heads: number of heads.
    """

    num_heads: int

    def read(self, tensor: np.ndarray) -> np.ndarray:
        if tensor.ndim not in (2, 3) or tensor.shape[-2] != self.num_heads:
            raise ValueError(f"The last axis but one must be {self.num_heads} heads.")
        return tensor.reshape(*tensor.shape[:-2], -1).T

    def write(self, value: np.ndarray) -> np.ndarray:
        stored = value.T
        return stored.reshape(*stored.shape[:-1], self.num_heads, -1)


@dataclass(frozen=True)
class JoinedHeads:
    """Stored `[heads, head_dim, out]`, held `[out, heads * head_dim]`; a bias stays as it is.

    Args:
        num_heads: number of heads.
    """

    num_heads: int

    def read(self, tensor: np.ndarray) -> np.ndarray:
        if tensor.ndim == 1:
            return tensor
        if tensor.ndim != 3 or tensor.shape[0] != self.num_heads:
            raise ValueError(f"Axis 0 must be {self.num_heads} heads.")
        return tensor.reshape(-1, tensor.shape[-1]).T

    def write(self, value: np.ndarray) -> np.ndarray:
        if value.ndim == 1:
            return value
        return value.T.reshape(self.num_heads, -1, len(value))


@dataclass(frozen=True)
class GroupedHeads:
    """Stored group by group (queries, key, value), held as all queries, all keys, all values.

    Args:
        num_groups: number of groups, which is that of key/value heads.
        head_dim: width of a head.
    """

    num_groups: int
    head_dim: int

    def read(self, tensor: np.ndarray) -> np.ndarray:
        heads = tensor.reshape(self.num_groups, -1, self.head_dim, *tensor.shape[1:])
        parts = [heads[:, :-2], heads[:, -2], heads[:, -1]]
        return np.concatenate([part.reshape(-1, *tensor.shape[1:]) for part in parts])

    def write(self, value: np.ndarray) -> np.ndarray:
        keys = self.num_groups * self.head_dim
        parts = np.split(value, [len(value) - 2 * keys, len(value) - keys])
        shape = (self.num_groups, -1, self.head_dim, *value.shape[1:])
        return np.concatenate([part.reshape(shape) for part in parts], 1).reshape(value.shape)


@dataclass(frozen=True)
class LeadingAxes:
    """Stored with axes of length 1 before its own, which are not held.

    Args:
        count: number of the axes.
    """

    count: int

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.reshape(tensor.shape[self.count :])

    def write(self, value: np.ndarray) -> np.ndarray:
        return value.reshape((1,) * self.count + value.shape)


@dataclass(frozen=True)
class Shifted:
    """Stored with a constant added.

    Args:
        offset: the constant.
    """

    offset: float

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return tensor - np.asarray(self.offset, tensor.dtype)

    def write(self, value: np.ndarray) -> np.ndarray:
        return value + np.asarray(self.offset, value.dtype)


def moves_rows(layout: Layout) -> bool:
    """Return whether a layout moves rows of a matrix and leaves each as it is."""
    if isinstance(layout, Rows):
        return layout.axis == 0
    return isinstance(layout, GroupedHeads | InterleavedRotary | UnusedRows)
