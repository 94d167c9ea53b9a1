"""Weight tables: for every variable of a model, where a checkpoint stores it and in what layout.

A table maps a variable's path to a `Stored`. Reading a checkpoint walks the table, so that class
and attribute names are never the file format.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np

from nextword.errors import PresetError
from nextword.presets.checkpoint import Checkpoint


class Layout(Protocol):
    """How a stored tensor differs from the variable made of it."""

    def read(self, tensor: np.ndarray) -> np.ndarray:
        """Return the variable's value."""
        ...


class Transposed:
    """Stored `[in, out]`, held `[out, in]`."""

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return tensor.T  # a bias, which has one axis, stays as it is


class Rows:
    """The rows from `start` to `stop` of a tensor that several variables share.

    Args:
        start: first row.
        stop: row after the last.
    """

    def __init__(self, start: int, stop: int) -> None:
        self.start = start
        self.stop = stop

    def read(self, tensor: np.ndarray) -> np.ndarray:
        return tensor[self.start : self.stop]


class InterleavedRotary:
    """Stored for a rotary embedding of neighbouring pairs, held for one of half-split pairs.

    Args:
        num_heads: number of heads that the rows are divided into.
    """

    def __init__(self, num_heads: int) -> None:
        self.num_heads = num_heads

    def read(self, tensor: np.ndarray) -> np.ndarray:
        pairs = tensor.reshape(self.num_heads, -1, 2, *tensor.shape[1:])
        return pairs.swapaxes(1, 2).reshape(tensor.shape)


class Stored:
    """A tensor of a checkpoint and the steps from it to a variable.

    Args:
        name: the tensor's name in the file.
        *layouts: applied one after the other when the tensor is read.

    Example:
    >>> Stored("h.0.mlp.c_fc.weight", Transposed()).read(np.zeros((2, 6))).shape
    (6, 2)
    """

    def __init__(self, name: str, *layouts: Layout) -> None:
        self.name = name
        self.layouts = layouts

    def read(self, tensor: np.ndarray) -> np.ndarray:
        """Return the variable's value for the stored tensor."""
        for layout in self.layouts:
            tensor = layout.read(tensor)
        return tensor


WeightTable = Mapping[str, Stored]


def per_layer(num_layers: int, table: WeightTable) -> dict[str, Stored]:
    """Repeat a table's entries for every layer, with `{i}` standing for its index.

    Args:
        num_layers: number of layers.
        table: entries whose path and stored name hold `{i}`.

    Example:
    >>> sorted(per_layer(2, {"layer_{i}/bias": Stored("h.{i}.b")}))
    ['layer_0/bias', 'layer_1/bias']
    """
    return {
        path.format(i=i): Stored(stored.name.format(i=i), *stored.layouts)
        for i in range(num_layers)
        for path, stored in table.items()
    }


def linear(path: str, name: str, *layouts: Layout, bias: bool = False) -> dict[str, Stored]:
    """Return the entries of a linear layer, stored as `name.weight` and perhaps `name.bias`.

    Args:
        path: path of the layer.
        name: the stored name, without its last part.
        *layouts: steps from the stored kernel, and the stored bias, to the variables.
        bias: whether the layer has a bias.

    Example:
    >>> sorted(linear("feed_forward/gate", "mlp.gate_proj", bias=True))
    ['feed_forward/gate/bias', 'feed_forward/gate/kernel']
    """
    table = {f"{path}/kernel": Stored(f"{name}.weight", *layouts)}
    if bias:
        table[f"{path}/bias"] = Stored(f"{name}.bias", *layouts)
    return table


def norm(path: str, name: str, *, bias: bool = False) -> dict[str, Stored]:
    """Return the entries of a normalization, stored as `name.weight` and perhaps `name.bias`.

    Args:
        path: path of the layer.
        name: the stored name, without its last part.
        bias: whether the layer has a bias.

    Example:
    >>> norm("output_norm", "ln_f")["output_norm/scale"].name
    'ln_f.weight'
    """
    table = {f"{path}/scale": Stored(f"{name}.weight")}
    if bias:
        table[f"{path}/bias"] = Stored(f"{name}.bias")
    return table


class CheckpointWeights:
    """A source of initial values for variables: reads each from a checkpoint as it is asked for.

    Args:
        checkpoint: the stored model.
        table: where each variable is stored.
        ignored: regular expressions of stored tensors that are no weights, such as causal masks.
        on_read: called with the number of bytes of each value that was read.

    Raises:
        PresetError: the checkpoint lacks a tensor of the table, or holds one that is neither in the
            table nor ignored.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        table: WeightTable,
        *,
        ignored: Iterable[str] = (),
        on_read: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._checkpoint = checkpoint
        self._table = table
        self._on_read = on_read
        stored = checkpoint.tensor_names()
        wanted = {entry.name for entry in table.values()}
        if missing := wanted - stored:
            raise PresetError(
                f"{checkpoint.name} lacks {_listing(missing)}. Its weights are incomplete or its "
                "configuration describes another model."
            )
        not_weights = re.compile("|".join(f"(?:{pattern})" for pattern in ignored) or r"(?!)")
        if extra := {name for name in stored - wanted if not not_weights.fullmatch(name)}:
            raise PresetError(
                f"{checkpoint.name} holds {_listing(extra)}, for which its architecture "
                f"{checkpoint.architecture!r} has no place. Leaving weights out would change what "
                "the model computes."
            )

    def __call__(self, path: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return the value of the variable at `path`.

        Args:
            path: the variable's path.
            shape: the shape it must have.
            dtype: name of the dtype it shall have.

        Raises:
            PresetError: the stored tensor has another shape.
        """
        stored = self._table[path]
        tensor = self._checkpoint.tensor(stored.name)
        try:
            value = stored.read(tensor)
        except ValueError:  # a shape that a layout cannot take apart
            value = tensor
        if value.shape != tuple(shape):
            raise PresetError(
                f"The tensor {stored.name!r} of {self._checkpoint.name} must give {path!r} the "
                f"shape {tuple(shape)}. Received: shape {value.shape}."
            )
        self._on_read(value.nbytes)
        return np.ascontiguousarray(value, dtype=dtype)


def _listing(names: Iterable[str], limit: int = 3) -> str:
    ordered = sorted(names)
    shown = ", ".join(map(repr, ordered[:limit]))
    rest = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return f"the tensor{'s' if len(ordered) > 1 else ''} {shown}{rest}"
