"""LoRA factors as KerasHub has them, and as they are here.

KerasHub factorizes a kernel of any shape `[..., last]` into `a [..., rank]` and `b [rank, last]`.
Where the kernel's axes are input, head and head dimension, its heads share one `b`. Here a kernel
is a matrix `[out, in]` whose update is `b @ a`. What one of the two can express with some rank the
other can with a rank that is larger by the number of heads, and with the same product.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nextword.errors import PresetError
from nextword.models.formats.keras_layers import counted_layers, layer_of
from nextword.presets.stored_tensors import StoredTensors
from nextword.presets.weight_layouts import Layout
from nextword.presets.weight_table import Stored, WeightTable, stored_tensors

RANK = "lora/vars/rank"
_FACTOR = re.compile(r"lora/(\d{1,9})/vars/lora_kernel_[ab]")


@dataclass(frozen=True)
class Factors:
    """The low-rank update `alpha / rank * b @ a` of one matrix.

    Attributes:
        a: float32 array of shape `[rank, in]`.
        b: float32 array of shape `[out, rank]`.
        alpha: the strength of the update.
    """

    a: np.ndarray
    b: np.ndarray
    alpha: float


@dataclass(frozen=True)
class _Heads:
    """How a stored kernel, seen as a matrix `[leading, last]`, consists of heads.

    Attributes:
        shape: the shape of the stored kernel.
        leading: for each head, the stored row of each of our inputs; shape `[heads, in]`.
        rows: for each head, our row of each of its last dimensions; shape `[heads, last]`. Where
            one stored kernel is several matrices, their rows are counted on.
    """

    shape: tuple[int, ...]
    leading: np.ndarray
    rows: np.ndarray


@functools.lru_cache(maxsize=64)
def _heads(parts: tuple[tuple[tuple[Layout, ...], tuple[int, int]], ...]) -> _Heads:
    """Return how a stored kernel consists of heads.

    Args:
        parts: the layouts and the shape of each of the matrices that it is.
    """
    columns = parts[0][1][1]
    table, positions, start = {}, {}, 0
    for number, (layouts, (rows, _)) in enumerate(parts):
        stop = start + rows * columns
        table[str(number)] = Stored("kernel", *layouts)
        positions[str(number)] = np.arange(start, stop).reshape(rows, columns)
        start = stop
    # Where each element of the stored kernel comes from, found by writing the elements' positions.
    ((_, stored),) = stored_tensors(table, positions.__getitem__)
    of_row, of_input = np.divmod(stored.reshape(-1, stored.shape[-1]), columns)
    leading = np.lexsort((of_input[:, 0], of_row[:, 0])).reshape(-1, columns)
    return _Heads(stored.shape, leading, of_row[leading[:, 0]])


def read_keras_hub_lora(
    stored: StoredTensors, table: WeightTable, shapes: Mapping[str, tuple[int, int]]
) -> dict[str, Factors]:
    """Return the factors in a file that KerasHub's `save_lora_weights` wrote.

    Args:
        stored: the tensors of the file.
        table: where KerasHub stores each variable of the model.
        shapes: the shape of each matrix that can have factors.

    Returns:
        Path of each matrix to its factors.

    Raises:
        PresetError: the file is of another model.
    """
    layers = counted_layers(table)
    matrices = _matrices(table, shapes)
    numbers = set()
    for name in stored.tensor_names() - {RANK}:
        match = _FACTOR.fullmatch(name)
        if match is None:
            raise PresetError(
                f"{stored.name!r} must hold LoRA weights. Received: {name!r}, which is none."
            )
        numbers.add(int(match[1]))
    found: dict[str, Factors] = {}
    for number in sorted(numbers):
        layer = layers[number] if number < len(layers) else ""
        paths = matrices.get(layer, [])
        if not paths:
            raise PresetError(
                f"{stored.name!r} must hold LoRA weights of this model. Received: weights of layer "
                f"{number}, which in KerasHub is none that can have them."
            )
        heads = _heads(_parts(table, shapes, paths))
        a, b = (f"lora/{number}/vars/lora_kernel_{name}" for name in "ab")
        rank = stored.shape(b)[0] if stored.shape(b) else 0
        wanted = {a: (*heads.shape[:-1], rank), b: (rank, heads.shape[-1])}
        for name, shape in wanted.items():
            if stored.shape(name) != shape or not rank:
                raise PresetError(
                    f"{stored.name!r} must hold LoRA weights of this model, with {name!r} of shape "
                    f"{shape}. Received: shape {stored.shape(name)}."
                )
        factors = _from_keras_hub(stored.tensor(a), stored.tensor(b), heads)
        start = 0
        for path in paths:
            stop = start + shapes[path][0]
            found[path] = Factors(factors.a, factors.b[start:stop], factors.alpha)
            start = stop
    return found


def keras_hub_lora(
    factors: Mapping[str, Factors], table: WeightTable, shapes: Mapping[str, tuple[int, int]]
) -> dict[str, np.ndarray]:
    """Return the tensors of a file that KerasHub's `load_lora_weights` reads.

    Args:
        factors: path of each matrix that has factors to these.
        table: see `read_keras_hub_lora`.
        shapes: see `read_keras_hub_lora`.

    Returns:
        Name of each tensor to the tensor. There are none where KerasHub has no factors, which is
        for embeddings only.
    """
    matrices = _matrices(table, shapes)
    products: dict[int, tuple[_Heads, np.ndarray, np.ndarray]] = {}
    for number, layer in enumerate(counted_layers(table)):
        paths = matrices.get(layer, [])
        if not any(path in factors for path in paths):
            continue
        heads = _heads(_parts(table, shapes, paths))
        products[number] = (heads, *_to_keras_hub(_joined(factors, shapes, paths), heads))
    if not products:
        return {}
    rank = max(len(b) for _, _, b in products.values())
    tensors = {RANK: np.array(rank)}
    for number, (heads, a, b) in products.items():
        missing = (0, rank - len(b))
        prefix = f"lora/{number}/vars/lora_kernel"
        tensors[f"{prefix}_a"] = np.pad(a, ((0, 0), missing)).reshape(*heads.shape[:-1], rank)
        tensors[f"{prefix}_b"] = np.pad(b, (missing, (0, 0)))
    return tensors


def _matrices(table: WeightTable, shapes: Mapping[str, tuple[int, int]]) -> dict[str, list[str]]:
    """Return the paths of the kernels that each layer of KerasHub holds."""
    found: dict[str, list[str]] = {}
    for path, entry in table.items():
        if path in shapes and path.endswith("/kernel"):
            found.setdefault(layer_of(entry.name), []).append(path)
    return found


def _parts(
    table: WeightTable, shapes: Mapping[str, tuple[int, int]], paths: list[str]
) -> tuple[tuple[tuple[Layout, ...], tuple[int, int]], ...]:
    return tuple((table[path].layouts, shapes[path]) for path in paths)


def _joined(
    factors: Mapping[str, Factors], shapes: Mapping[str, tuple[int, int]], paths: list[str]
) -> Factors:
    """Return the factors of several matrices, one above the other."""
    rows = sum(shapes[path][0] for path in paths)
    a, b, start = [], [], 0
    for path in paths:
        stop = start + shapes[path][0]
        if path in factors:
            own = factors[path]
            block = np.zeros((rows, len(own.a)), "float32")
            block[start:stop] = own.b * np.float32(own.alpha / len(own.a))
            a.append(own.a)
            b.append(block)
        start = stop
    rank = sum(map(len, a))
    return Factors(np.concatenate(a), np.concatenate(b, axis=1), rank)


def _from_keras_hub(a: np.ndarray, b: np.ndarray, heads: _Heads) -> Factors:
    """Return factors `a [rank * heads, in]` and `b [out, rank * heads]` with the same product."""
    rank, (count, columns) = len(b), heads.leading.shape
    by_head = a.reshape(-1, rank)[heads.leading].astype("float32")
    if count * rank > columns:  # then the product itself is the smaller one
        product = np.empty((heads.rows.size, columns), "float32")
        for head, rows in enumerate(heads.rows):
            product[rows] = (by_head[head] @ b.astype("float32")).T
        return Factors(np.eye(columns, dtype="float32"), product, columns)
    blocks = np.zeros((heads.rows.size, count, rank), "float32")
    for head, rows in enumerate(heads.rows):
        blocks[rows, head] = b.T
    ours = by_head.swapaxes(1, 2).reshape(count * rank, columns)
    return Factors(ours, blocks.reshape(len(blocks), -1), count * rank)


def _to_keras_hub(factors: Factors, heads: _Heads) -> tuple[np.ndarray, np.ndarray]:
    """Return factors `a [leading, rank]` and `b [rank, last]` with the same product."""
    rank, count, last = len(factors.a), *heads.rows.shape
    if count * rank > last:  # then the product itself is the smaller one
        a = np.empty((heads.leading.size, last), "float32")
        for leading, rows in zip(heads.leading, heads.rows, strict=True):
            a[leading] = factors.a.T @ factors.b[rows].T
        return a, np.eye(last, dtype="float32")
    blocks = np.zeros((heads.leading.size, count, rank), "float32")
    for head, leading in enumerate(heads.leading):
        blocks[leading, head] = factors.a.T
    b = factors.b[heads.rows].swapaxes(1, 2).reshape(count * rank, last)
    return blocks.reshape(len(blocks), -1), b
