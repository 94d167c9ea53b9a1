"""What generation needs of a Keras backend beyond `keras.ops`.

There is one file per backend beside this one, and the engine asks `get_backend` for the one in use.
"""

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras

from nextword.layers import TransformerLayer

_BACKENDS = ("jax", "torch")


class Backend(Protocol):
    """How one Keras backend compiles a step and writes into the cache in place.

    Attributes:
        compile_seconds: time spent on compiling since the process started.
    """

    compile_seconds: float

    def compile(
        self,
        step: Callable[..., Any],
        variables: Sequence[keras.Variable],
        donated: Sequence[str] = (),
    ) -> Callable[..., Any]:
        """Compile a step that reads the model's variables.

        Args:
            step: a pure function of tensors (and nested lists, tuples and dicts of them, and None)
                that calls the model's layers.
            variables: the variables it reads; their values at each call are used.
            donated: names of the keyword arguments whose memory the results may take over.

        Returns:
            A function to be called with keyword arguments only.
        """
        ...

    def compile_for_each(
        self,
        step: Callable[..., Any],
        layers: Sequence[TransformerLayer],
        donated: Sequence[str] = (),
    ) -> list[Callable[..., Any]]:
        """Compile a step of one layer, once for all layers of a kind.

        Args:
            step: as `compile` takes it, with the layer as its first argument.
            layers: the layers.
            donated: as `compile` takes it.

        Returns:
            For each layer a function to be called with keyword arguments only.
        """
        ...

    def write_block(self, buffer: Any, block: Any, row: Any, start: Any) -> Any:
        """Write a block of tokens into some rows.

        Args:
            buffer: tensor of shape `[rows, heads, capacity, head_dim]`.
            block: tensor of shape `[some_rows, heads, length, head_dim]`.
            row: the first of the rows to write.
            start: position of the block's first token; `start + length <= capacity`.

        Returns:
            The changed buffer.
        """
        ...

    def write_tokens(self, buffer: Any, tokens: Any, positions: Any) -> Any:
        """Write one or more consecutive tokens into every row.

        Args:
            buffer: tensor of shape `[rows, heads, capacity, head_dim]`.
            tokens: tensor of shape `[rows, heads, length, head_dim]`.
            positions: int32 tensor of shape `[rows]`, the position of each row's first token, at
                most `capacity - length`.

        Returns:
            The changed buffer.
        """
        ...

    def top_k(self, scores: Any, k: int) -> tuple[Any, Any]:
        """Select the `k` largest scores of each row.

        Args:
            scores: float32 tensor of shape `[rows, candidates]`.
            k: number of scores to select, at most `candidates`.

        Returns:
            The scores, largest first, and their indices as int32, both of shape `[rows, k]`. Of
            equal scores the one with the lowest index comes first.
        """
        ...


@functools.cache
def get_backend() -> Backend:
    """Return the `Backend` for the Keras backend in use."""
    name = keras.backend.backend()
    if name not in _BACKENDS:
        raise RuntimeError(
            f"nextword generates on the Keras backends {' and '.join(_BACKENDS)}. Received: the "
            f"backend {name!r}. Set the variable KERAS_BACKEND before Keras is imported."
        )
    return importlib.import_module(f"nextword.generation.{name}_backend").BACKEND
