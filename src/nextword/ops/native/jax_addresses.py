"""Variables that compiled JAX programs read at their addresses.

XLA is handed each argument of a program at each call. A decoding step reads hundreds of weights,
and handing them over takes as long as a quarter of the step. So the native kernels are told where
the weights lie: one argument instead of hundreds.
"""

import contextlib
import contextvars
import weakref
from collections.abc import Iterator, Mapping, Sequence
from operator import call, is_
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


class _Reading:
    """The values that programs may be reading.

    XLA does not know that they are read, so they must be there until the programs have ended.
    """

    def __init__(self) -> None:
        self._values: Sequence[Any] = ()
        self._end: Any = None

    def until(self, end: Any, values: Sequence[Any]) -> None:
        """Keep values until a program has ended, which is dispatched behind all others."""
        self._values, self._end = values, end

    def finish(self, end: Any = None) -> None:
        """Wait for the programs and let go of the values, unless one came behind that of `end`."""
        if self._end is not None and (end is None or end is self._end):
            jax.block_until_ready(self._end)
            self._values, self._end = (), None


class Addresses:
    """Where the values of variables lie, as an argument of programs."""

    def __init__(self) -> None:
        self._reading = _Reading()
        self._described: list[weakref.ref[Any]] = []
        self._table: Any = None

    def table(self, values: Sequence[Any]) -> Any:
        """Return what describes values, uint32 `[values, 2 * NUMBERS]`.

        Args:
            values: the values of all variables, always as many.
        """
        if not self._described or not all(map(is_, map(call, self._described), values)):
            self._reading.finish()
            jax.block_until_ready(values)
            rows = [description(v.unsafe_buffer_pointer(), v.dtype.name, v.shape) for v in values]
            self._table = jax.device_put(described(rows).view(np.uint32))
            self._described = list(map(weakref.ref, values))
        return self._table

    def keep(self, values: Sequence[Any], results: Any, end: Any) -> None:
        """Keep values until a program has ended that reads them, or its results go on living.

        Args:
            values: what `table` has described.
            results: the program's results, from which the next program goes on.
            end: what is there when it has ended.
        """
        self._reading.until(end, values)
        # At the end of the process, JAX itself waits for its programs.
        first = jax.tree.leaves(results)[0]
        weakref.finalize(first, self._reading.finish, end).atexit = False


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
