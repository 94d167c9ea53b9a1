"""Write tensors to safetensors files one by one, so that a model is never held twice."""

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from nextword.presets.keras import GIGABYTE
from nextword.presets.keras_config import write_json
from nextword.presets.stored_tensors import check_finite

_ENCODINGS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_ITEM_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}
_ALIGNMENT = 8


def write_safetensors(
    directory: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    max_shard_bytes: float | None = None,
) -> None:
    """Write the weights of a transformers checkpoint, in several files if they are large.

    Args:
        directory: where the files are made.
        tensors: names and tensors, taken one by one and rounded to `dtype`.
        shapes: shape of each tensor by name, in the same order.
        dtype: "float32", "float16" or "bfloat16".
        max_shard_bytes: the most bytes of tensors in one file; None for no limit.

    Raises:
        PresetError: a number is not finite in that dtype.
        ValueError: one tensor is larger than a file may be.

    Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     weights = {"a": np.ones((2, 3))}
    ...     write_safetensors(Path(folder), weights.items(), {"a": (2, 3)}, "float16")
    ...     (Path(folder) / "model.safetensors").stat().st_size
    108
    """
    sizes = {name: math.prod(shape) * _ITEM_SIZES[dtype] for name, shape in shapes.items()}
    shards = _shards(sizes, max_shard_bytes)
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    place: dict[str, BinaryIO] = {}
    with ExitStack() as stack:
        for filename, shard in zip(names, shards, strict=True):
            file = stack.enter_context((directory / filename).open("wb"))
            file.write(_header({name: shapes[name] for name in shard}, sizes, dtype))
            place |= dict.fromkeys(shard, file)
        for name, tensor in tensors:
            with np.errstate(over="ignore"):  # what is too large for the dtype is found below
                values = np.ascontiguousarray(tensor, dtype=dtype)
            check_finite(values, f"In {dtype}, the tensor {name!r}")
            place[name].write(values.view(np.uint8).data)
    if len(shards) > 1:
        weight_map = {
            name: file for file, shard in zip(names, shards, strict=True) for name in shard
        }
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        write_json(directory / "model.safetensors.index.json", index)


def _header(shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int], dtype: str) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + sizes[name]
        header[name] = {
            "dtype": _ENCODINGS[dtype],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _shards(sizes: Mapping[str, int], max_bytes: float | None) -> list[list[str]]:
    """Return the names of the tensors of each file."""
    limit = math.inf if max_bytes is None else max_bytes
    shards: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if size > limit:
            raise ValueError(
                f"`max_shard_size` must be at least the size of the largest tensor, "
                f"{size / GIGABYTE:.3g}. Received: max_shard_size={limit / GIGABYTE:.3g}."
            )
        if used + size > limit:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards
