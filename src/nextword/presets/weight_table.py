"""Weight tables: for every variable of a model, where a checkpoint stores it and in what layout.

A table maps a variable's path to a `Stored`. Reading a checkpoint walks the table in one direction,
writing one in the other, so that class and attribute names are never the file format.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from nextword.errors import PresetError
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.stored_tensors import check_finite
from nextword.presets.weight_layouts import Layout, Rows


class Stored:
    """A tensor of a checkpoint and the steps from it to a variable.

    Args:
        name: the tensor's name in the file.
        *layouts: applied one after the other when the tensor is read.
        stacked: where the variable is a stack of that many tensors, their number; a `*` in the name
            stands for the index of each.

    Example:
    >>> from nextword.presets.weight_layouts import Transposed
    >>> stored = Stored("h.0.mlp.c_fc.weight", Transposed())
    >>> stored.read(np.zeros((2, 6))).shape, stored.write(np.zeros((6, 2))).shape
    ((6, 2), (2, 6))
    >>> Stored("h.0.experts.*.weight", stacked=2).names
    ('h.0.experts.0.weight', 'h.0.experts.1.weight')
    """

    def __init__(self, name: str, *layouts: Layout, stacked: int | None = None) -> None:
        self.name = name
        self.layouts = layouts
        self.stacked = stacked

    def renamed(self, name: str) -> "Stored":
        """Return the same of a tensor of another name."""
        return Stored(name, *self.layouts, stacked=self.stacked)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the tensors that the variable is made of."""
        if self.stacked is None:
            return (self.name,)
        return tuple(self.name.replace("*", str(i)) for i in range(self.stacked))

    def read(self, tensor: np.ndarray) -> np.ndarray:
        """Return the variable's value for the stored tensor."""
        for layout in self.layouts:
            tensor = layout.read(tensor)
        return tensor

    def write(self, value: np.ndarray) -> np.ndarray:
        """Return the tensor to store for the variable's value; only its part if it is shared."""
        for layout in reversed(self.layouts):
            value = layout.write(value)
        return value


WeightTable = Mapping[str, Stored]


def per_layer(layers: Iterable[int], table: WeightTable) -> dict[str, Stored]:
    """Repeat a table's entries for every layer, with `{i}` standing for its index.

    Args:
        layers: indices of the layers.
        table: entries whose path and stored name hold `{i}`.

    Example:
    >>> sorted(per_layer(range(2), {"layer_{i}/bias": Stored("h.{i}.b")}))
    ['layer_0/bias', 'layer_1/bias']
    """
    return {
        path.format(i=i): stored.renamed(stored.name.format(i=i))
        for i in layers
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


def norm(path: str, name: str, *layouts: Layout, bias: bool = False) -> dict[str, Stored]:
    """Return the entries of a normalization, stored as `name.weight` and perhaps `name.bias`.

    Args:
        path: path of the layer.
        name: the stored name, without its last part.
        *layouts: steps from the stored scale to the variable.
        bias: whether the layer has a bias.

    Example:
    >>> norm("output_norm", "ln_f")["output_norm/scale"].name
    'ln_f.weight'
    """
    table = {f"{path}/scale": Stored(f"{name}.weight", *layouts)}
    if bias:
        table[f"{path}/bias"] = Stored(f"{name}.bias")
    return table


def stored_tensors(
    table: WeightTable, value: Callable[[str], np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every tensor of a checkpoint to be written, in the order of the table.

    Args:
        table: where each variable is stored.
        value: returns the value of the variable at a path. Asked once per variable, and only when
            its tensor is due, so that the whole model is never held twice.

    Yields:
        The tensor's name and the tensor. One that several variables share is put together.

    Raises:
        ValueError: the variables that share a tensor do not cover it.

    Example:
    >>> table = {"query": Stored("qkv", Rows(0, 2)), "key": Stored("qkv", Rows(2, 3))}
    >>> values = {"query": np.array([1, 2]), "key": np.array([3])}
    >>> [(name, tensor.tolist()) for name, tensor in stored_tensors(table, values.__getitem__)]
    [('qkv', [1, 2, 3])]
    """
    by_name: dict[str, list[str]] = {}
    for path, stored in table.items():
        by_name.setdefault(stored.name, []).append(path)
    for name, paths in by_name.items():
        if (names := table[paths[0]].names) != (name,):
            yield from zip(names, table[paths[0]].write(value(paths[0])), strict=True)
        elif len(paths) == 1:
            yield name, table[paths[0]].write(value(paths[0]))
        else:
            yield name, _joined(name, {path: table[path] for path in paths}, value)


def stored_shapes(
    table: WeightTable, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a checkpoint to be written, by its name.

    Args:
        table: where each variable is stored.
        shapes: path of each variable to its shape.

    Raises:
        PresetError: a variable has no place in the table, or the table asks for another one.

    Example:
    >>> table = {"query": Stored("qkv", Rows(0, 2)), "key": Stored("qkv", Rows(2, 3))}
    >>> stored_shapes(table, {"query": (2, 8), "key": (1, 8)})
    {'qkv': (3, 8)}
    """
    if unplaced := shapes.keys() ^ table.keys():
        raise PresetError(f"There is no place for the variable {min(unplaced)!r}.")
    # Arrays without memory of their own go through the layouts.
    empty = np.zeros((), np.int8)
    tensors = stored_tensors(table, lambda path: np.broadcast_to(empty, shapes[path]))
    return {name: tensor.shape for name, tensor in tensors}


def _joined(name: str, parts: WeightTable, value: Callable[[str], np.ndarray]) -> np.ndarray:
    """Return the tensor whose rows several variables are."""
    rows: list[tuple[Rows, np.ndarray]] = []
    common: set[tuple[Layout, ...]] = set()
    for path, stored in parts.items():
        at = next((i for i, step in enumerate(stored.layouts) if isinstance(step, Rows)), None)
        if at is None:
            raise ValueError(f"{path!r} takes the whole of {name!r}, which it shares.")
        part = stored.layouts[at]
        assert isinstance(part, Rows)  # noqa: S101  # for the type checker: just searched for
        rows.append((part, Stored(name, *stored.layouts[at + 1 :]).write(value(path))))
        common.add(stored.layouts[:at])
    rows.sort(key=lambda entry: entry[0].start)
    ends = [0, *(part.stop for part, _ in rows)]
    if len(common) > 1 or [part.start for part, _ in rows] != ends[:-1]:
        raise ValueError(f"The variables that share {name!r} do not cover it: {list(parts)}.")
    joined = np.concatenate([tensor for _, tensor in rows], axis=rows[0][0].axis)
    return Stored(name, *common.pop()).write(joined)


class CheckpointWeights:
    """A source of initial values for variables: reads each from a checkpoint as it is asked for.

    Args:
        checkpoint: the stored model.
        table: where each variable is stored.
        ignored: regular expressions of stored tensors that are no weights, such as causal masks.
        on_read: called with the number of elements of each value that was read.

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
        self.on_read = on_read
        stored = checkpoint.tensor_names()
        if sum(entry.stacked or 0 for entry in table.values()) > len(stored):
            raise PresetError(f"{checkpoint.name} holds fewer experts than it declares.")
        wanted = {name for entry in table.values() for name in entry.names}
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
            PresetError: the stored tensor has another shape, or numbers that are not finite.
        """
        stored = self._table[path]
        tensors = [self._checkpoint.tensor(name) for name in stored.names]
        tensor = tensors[0]
        try:
            value = stored.read(tensor if stored.stacked is None else np.stack(tensors))
        except (ValueError, IndexError):  # a shape that cannot be taken apart, or stacked
            value = tensor
        if value.shape != tuple(shape):
            raise PresetError(
                f"The tensor {stored.name!r} of {self._checkpoint.name} must give {path!r} the "
                f"shape {tuple(shape)}. Received: shape {value.shape}."
            )
        if (value.dtype == np.int8) != (dtype == "int8"):
            raise PresetError(
                f"The tensor {stored.name!r} of {self._checkpoint.name} must hold {path!r} in "
                f"{dtype}. Received: {value.dtype.name}."
            )
        self.on_read(value.size)
        with np.errstate(over="ignore"):  # what is too large for the dtype is found below
            value = np.ascontiguousarray(value, dtype=dtype)
        check_finite(value, f"In {dtype}, the tensor {stored.name!r} of {self._checkpoint.name}")
        return value


def _listing(names: Iterable[str], limit: int = 3) -> str:
    ordered = sorted(names)
    shown = ", ".join(map(repr, ordered[:limit]))
    rest = f" and {len(ordered) - limit} more" if len(ordered) > limit else ""
    return f"the tensor{'s' if len(ordered) > 1 else ''} {shown}{rest}"
