"""Steps of generation as jitted programs, which are called with no more than they read.

What XLA is handed at each call takes time for each array. A decoding step reads hundreds of
variables, most of them by the native kernels, which find them by their addresses.
"""

import contextlib
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import keras
import numpy as np

from nextword._garbage import collection_paused
from nextword.ops.native import uses_kernels
from nextword.ops.native.jax_addresses import Addresses, read_at_addresses, values_of

Step = Callable[..., Any]


class CompileClock:
    """How long programs have taken to be traced and compiled.

    Attributes:
        seconds: since the process started.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._called = contextlib.ExitStack()
        self._has_traced = False

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """Call a program in this context.

        A call only dispatches the work, so that its time is that of compiling, if it traces.
        """
        self._has_traced, started = False, time.perf_counter()
        with self._called:
            yield
        if self._has_traced:
            self.seconds += time.perf_counter() - started

    def traces(self) -> None:
        """Tell that the program is being traced, which makes objects that stay."""
        self._has_traced = True
        self._called.enter_context(collection_paused())


class Jitted:
    """A step as a jitted function of its arguments and of the values of variables.

    Args:
        step: a pure function of keyword arguments, which calls the layers that have the variables.
        variables: those of which it is given the values.
        addressed: those that native programs read at their addresses.
        donated: names of the arguments whose memory the results may take over.
        name: of the program.
        clock: measures how long it takes to compile.

    Attributes:
        variables: as given.
        read: which of them were read when the step was traced.
        reads_addresses: whether what is at addresses was.
    """

    def __init__(
        self,
        step: Step,
        variables: Sequence[keras.Variable],
        addressed: Sequence[keras.Variable],
        donated: Sequence[str],
        name: str,
        clock: CompileClock,
    ) -> None:
        self.variables = variables
        self.read: list[keras.Variable] = []
        self.reads_addresses = False
        self._clock = clock
        left_out = set(map(id, addressed)) - set(map(id, variables))

        def traced(values: list[Any], addresses: Any, **arguments: Any) -> tuple[Any, Any]:
            clock.traces()
            scope = _RecordingScope(zip(variables, values, strict=True), left_out)
            with read_at_addresses(addresses, addressed) as given, scope:
                results = step(**arguments)
            self.read = [each for each in variables if id(each) in scope.read]
            self.reads_addresses = given.is_read
            # What ends with the program, and is nobody's to donate.
            return results, None if addresses is None else addresses[:1, 0]

        traced.__name__ = name
        self._jitted = jax.jit(traced, donate_argnames=tuple(donated))

    def __call__(self, values: list[Any], addresses: Any, **arguments: Any) -> tuple[Any, Any]:
        """Return the step's results, and what is there when it has ended, if it reads addresses."""
        with self._clock.calling():
            return self._jitted(values=values, addresses=addresses, **arguments)

    def trace(self, values: list[Any], addresses: Any, **arguments: Any) -> None:
        """Trace the step, as the first call does."""
        with self._clock.calling():
            self._jitted.eval_shape(values=values, addresses=addresses, **arguments)


class _RecordingScope(keras.StatelessScope):
    """A scope that knows which variables' values were asked for.

    Args:
        values: the variables and their values.
        left_out: identities of others, which must not become constants of a program.
    """

    def __init__(self, values: Any, left_out: set[int]) -> None:
        super().__init__(values)
        self.read: set[int] = set()
        self._left_out = left_out

    def get_current_value(self, variable: keras.Variable) -> Any:
        if id(variable) in self._left_out:
            raise RuntimeError(f"A step reads {variable.path!r}, which a first trace did not.")
        self.read.add(id(variable))
        return super().get_current_value(variable)


class Program:
    """A step, jitted for just the variables that it reads, which a first trace shows.

    Args:
        step: see `Jitted`.
        variables: those that it may read.
        donated: see `Jitted`.
        clock: see `Jitted`.
    """

    def __init__(
        self,
        step: Step,
        variables: Sequence[keras.Variable],
        donated: Sequence[str],
        clock: CompileClock,
    ) -> None:
        self._step = step
        self._variables = variables
        self._donated = donated
        self._clock = clock
        self._addresses = Addresses()
        self._jitted: dict[Hashable, Jitted] = {}

    def __call__(self, **arguments: Any) -> Any:
        key = uses_kernels(), *self._shapes(arguments)
        if key not in self._jitted:
            self._jitted[key] = self._jitted_for(arguments)
        jitted = self._jitted[key]
        values = values_of(jitted.variables)
        if not jitted.reads_addresses:
            return jitted(values, None, **arguments)[0]
        every = values_of(self._variables)
        results, end = jitted(values, self._addresses.table(every), **arguments)
        self._addresses.keep(every, results, end)
        return results

    def _jit(self, own: Sequence[keras.Variable]) -> Jitted:
        name = self._step.__name__
        return Jitted(self._step, own, self._variables, self._donated, name, self._clock)

    def _shapes(self, arguments: dict[str, Any]) -> list[tuple[int, ...]]:
        """Return what decides how a step is computed: how many rows there are, and tokens."""
        others = [value for name, value in arguments.items() if name not in self._donated]
        return [np.shape(leaf) for leaf in jax.tree.leaves(others)]

    def _jitted_for(self, arguments: dict[str, Any]) -> Jitted:
        """Return the step as it is to be called for arguments of such shapes."""
        every = self._jit(self._variables)
        values = values_of(self._variables)
        table = self._addresses.table(values) if uses_kernels() else None
        every.trace(values, table, **arguments)
        if len(every.read) == len(self._variables):
            return every
        own = self._jit(every.read)
        own.reads_addresses = every.reads_addresses
        return own
