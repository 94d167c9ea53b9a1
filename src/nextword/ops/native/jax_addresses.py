"""Variables that compiled JAX programs read at their addresses.

XLA is handed each argument of a program at each call. A decoding step reads hundreds of weights,
and handing them over takes as long as a quarter of the step. So the native kernels are told where
the weights lie: one argument instead of hundreds.
"""

import contextlib
import contextvars
import weakref
from collections.abc import Iterator, Mapping, Sequence
from operator import is_
from typing import Any

import jax
import keras
import numpy as np

from nextword.ops.native.described import NUMBERS, described, description


def values_of(variables: Sequence[keras.Variable]) -> list[Any]:
    """Return the values of variables, outside of any scope of Keras.

    `Variable.value` asks what scopes there are, which takes a millisecond for all of a model.
    """
    return [variable._value for variable in variables]


class _Reads:
    """Values, and the last of the programs that may read them.

    XLA does not know that they are read, so they must be there until that program has ended.
    """

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.end: Any = None

    def wait(self) -> None:
        if self.end is not None:
            jax.block_until_ready(self.end)
            self.end = None


class Addresses:
    """Where the values of variables lie, as an argument of programs.

    Args:
        variables: the variables.
    """

    def __init__(self, variables: Sequence[keras.Variable]) -> None:
        self._variables = variables
        self._reads = _Reads()
        self._table: Any = None
        # At the end of the process, JAX itself waits for its programs.
        weakref.finalize(self, self._reads.wait).atexit = False

    def table(self) -> Any:
        """Return what describes each variable's value, uint32 `[variables, 2 * NUMBERS]`."""
        values = values_of(self._variables)
        if self._table is None or not all(map(is_, values, self._reads.values)):
            self._reads.wait()
            self._reads.values = jax.block_until_ready(values)
            rows = [description(v.unsafe_buffer_pointer(), v.dtype.name, v.shape) for v in values]
            self._table = jax.device_put(described(rows).view(np.uint32))
        return self._table

    def read_until(self, end: Any) -> None:
        """Keep the values that `table` described until a program has ended.

        Args:
            end: a result of the program.
        """
        self._reads.end = end


class _Given:
    """The table of a program that is being traced, and the places of variables in it."""

    def __init__(self, table: Any, variables: Sequence[keras.Variable]) -> None:
        self.table = table
        self.places: Mapping[int, int] = {id(each): place for place, each in enumerate(variables)}
        self.is_read = False


_given: contextvars.ContextVar[_Given | None] = contextvars.ContextVar("given", default=None)


@contextlib.contextmanager
def read_at_addresses(table: Any, variables: Sequence[keras.Variable]) -> Iterator[_Given]:
    """Let native programs that are traced in this context read variables where they lie.

    Args:
        table: of `Addresses`, traced; None if they read nothing there.
        variables: its variables.

    Yields:
        What says in `is_read` whether a program reads the table.
    """
    given = _Given(table, variables)
    token = _given.set(given)
    try:
        yield given
    finally:
        _given.reset(token)


def addressed(operands: Sequence[Any]) -> tuple[Any, np.ndarray]:
    """Say where operands of a native program are described.

    Args:
        operands: variables and arrays.

    Returns:
        The table, and for each operand its place there, or -1 where it must be handed over.
    """
    given = _given.get()
    if given is None or given.table is None:
        return np.zeros((0, 2 * NUMBERS), np.uint32), np.full(len(operands), -1, np.int64)
    given.is_read = True
    places = [given.places.get(id(operand), -1) for operand in operands]
    return given.table, np.array(places, np.int64)
