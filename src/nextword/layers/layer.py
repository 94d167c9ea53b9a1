"""The base of every layer here: variables that can be born with their stored value.

Keras creates a variable by running its initializer. Loading a checkpoint afterwards would compute
billions of random numbers only to overwrite them, and hold both copies. Inside
`initialize_from(source)` the source is the initializer: each variable starts as the stored tensor.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from nextword.layers.weight_memory import WeightMemory
from nextword.ops.native.step_program import NotCoveredError, Register, StepProgram

WeightSource = Callable[[str, tuple[int, ...], str], Any]
"""Maps a variable's path, shape and dtype to its initial value."""

_weight_source: contextvars.ContextVar[WeightSource | None] = contextvars.ContextVar(
    "weight_source", default=None
)
_memory = WeightMemory()


@contextlib.contextmanager
def initialize_from(source: WeightSource | None) -> Iterator[None]:
    """Give every variable that a `Layer` creates in this context its value from `source`.

    Args:
        source: called with the variable's path (such as
            `"transformer_layer_0/self_attention/query/kernel"`), shape and dtype; returns an array
            of that shape and dtype. None for the variables' own initializers.
    """
    token = _weight_source.set(source)
    try:
        yield
    finally:
        _weight_source.reset(token)


def _given(value: Any) -> Any:
    """Give an array of nobody else's to the backend.

    JAX would otherwise take it by a program that it compiles for each shape, which takes longer
    than reading the weights of a small model. What is mapped from a file, and so cannot be written
    to, is left to Keras, for JAX might go on reading it there.
    """
    if keras.backend.backend() == "jax" and isinstance(value, np.ndarray) and value.flags.writeable:
        import jax

        # A processor reads it where it lies.
        return jax.device_put(_memory.copy(value) if jax.default_backend() == "cpu" else value)
    return value


class Layer(keras.layers.Layer):
    """A Keras layer whose variables take their initial values from `initialize_from`'s source."""

    def add_weight(
        self,
        shape: tuple[int | None, ...] | None = None,
        initializer: Any | None = None,
        *,
        name: str,
        **kwargs: Any,
    ) -> keras.Variable:
        source = _weight_source.get()
        if source is None:
            return super().add_weight(shape=shape, initializer=initializer, name=name, **kwargs)
        path = f"{self.path}/{name}"
        if keras.distribution.distribution() is not None:
            # Keras would trace an initializer, and make the value a constant of a program.
            variable = super().add_weight(shape=shape, initializer="zeros", name=name, **kwargs)
            variable.assign(source(path, variable.shape, variable.dtype))
            return variable

        def given(shape: tuple[int, ...], dtype: str) -> Any:
            return _given(source(path, shape, dtype))

        return super().add_weight(shape=shape, initializer=given, name=name, **kwargs)

    @contextlib.contextmanager
    def unlocked(self) -> Iterator[None]:
        """Allow variables to be added and removed, which Keras forbids once a layer is built."""
        self._tracker.unlock()
        try:
            yield
        finally:
            self._tracker.lock()

    def emit(self, program: StepProgram, *args: Any) -> Register:
        """Add what the layer computes to a native step.

        Raises:
            NotCoveredError: the step's instructions do not cover it.
        """
        raise NotCoveredError
