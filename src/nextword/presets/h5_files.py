"""Weights in HDF5 files, as Keras writes them: every tensor whole and uncompressed in one place.

HDF5 can do much more: links to other files, datasets computed from other files, compressed pieces,
dimensions without data. Keras uses none of it and all of it can be abused, so all is refused. Only
the structure is read with the HDF5 library; the numbers are mapped straight from the file.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from nextword.errors import PresetError
from nextword.presets.file_checks import cannot_read, check_file, not_valid
from nextword.presets.handles import show
from nextword.presets.stored_tensors import StoredTensor

_EXPECTED = "an HDF5 file"
_MAX_DEPTH = 32
_MAX_OBJECTS = 200_000
_MAX_RANK = 8
_BFLOAT16 = "bfloat16"  # HDF5 has no such type: Keras stores two bytes and an attribute
_ENCODINGS = {"<f4": "F32", "<f2": "F16", "|i1": "I8", "|u1": "U8"}


def read_h5_header(path: Path) -> list[StoredTensor]:
    """Return where the tensors of an HDF5 file are. No tensor is read.

    Args:
        path: the file.

    Returns:
        The tensors, each named by its path in the file, such as `"layers/dense/vars/0"`.

    Raises:
        PresetError: the file cannot be read, or holds what Keras never writes: a link, a dataset in
            other files, in pieces, or larger than what is stored of it.
    """
    size = check_file(path)
    try:
        with path.open("rb"), h5py.File(path, "r") as file:
            return [_stored(path, name, dataset, size) for name, dataset in _datasets(path, file)]
    except PresetError:
        raise
    except PermissionError as error:
        raise cannot_read(path, error) from error
    # The library reports damage with whatever exception its binding found fitting.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise not_valid(path, _EXPECTED, error) from error


def _datasets(path: Path, file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield every dataset, without ever following a link that is not a plain name."""
    seen = {_address(file)}
    groups: list[tuple[str, h5py.Group]] = [("", file)]
    while groups:
        prefix, group = groups.pop()
        for key in group:
            name = f"{prefix}{key}"
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise not_valid(path, _EXPECTED, f"{show(name)} is a link to somewhere else")
            item = group[key]
            address = _address(item)
            if address in seen:
                raise not_valid(path, _EXPECTED, f"{show(name)} is a second name of one object")
            seen.add(address)
            if len(seen) > _MAX_OBJECTS or name.count("/") >= _MAX_DEPTH:
                raise not_valid(
                    path,
                    _EXPECTED,
                    f"it may hold {_MAX_OBJECTS} objects, in {_MAX_DEPTH} levels, and holds more",
                )
            if isinstance(item, h5py.Group):
                groups.append((f"{name}/", item))
            elif isinstance(item, h5py.Dataset):
                yield name, item
            else:
                raise not_valid(path, _EXPECTED, f"{show(name)} is neither group nor dataset")


def _address(item: Any) -> int:
    return int(h5py.h5o.get_info(item.id).addr)


def _stored(path: Path, name: str, dataset: h5py.Dataset, file_size: int) -> StoredTensor:
    # First of all: what follows may look into other files for a dataset that is kept there.
    properties = dataset.id.get_create_plist()
    if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_external_count():
        raise not_valid(
            path,
            _EXPECTED,
            f"{show(name)} is not stored in one piece in this file, as Keras stores weights",
        )
    shape = dataset.shape
    if shape is None or len(shape) > _MAX_RANK:
        raise not_valid(path, _EXPECTED, f"{show(name)} has no shape of at most {_MAX_RANK} axes")
    size, offset = math.prod(shape) * dataset.dtype.itemsize, dataset.id.get_offset()
    if size and (offset is None or offset + size > file_size):
        raise not_valid(
            path,
            _EXPECTED,
            f"{show(name)} has the shape {shape}, more than is stored of it",
        )
    return StoredTensor(name, path, offset or 0, shape, _encoding(dataset))


def _encoding(dataset: h5py.Dataset) -> str:
    dtype = dataset.dtype
    if dtype.str == "|V2" and "dtype" in dataset.attrs:
        attribute = dataset.attrs.get_id("dtype")
        if attribute.shape == () and dataset.attrs["dtype"] == _BFLOAT16:
            return "BF16"
    return _ENCODINGS.get(dtype.str, str(dtype)[:80])


def write_h5_files(
    directory: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    places: Mapping[str, str],
) -> None:
    """Write tensors to HDF5 files as Keras does.

    Args:
        directory: where the files are made.
        tensors: names, such as `"layers/dense/vars/0"`, and tensors, taken one by one.
        places: name of each tensor to the file that it goes to.
    """
    with ExitStack() as stack:
        files = {
            filename: stack.enter_context(h5py.File(directory / filename, "w"))
            for filename in dict.fromkeys(places.values())
        }
        for name, tensor in tensors:
            tensor = np.asarray(tensor, order="C")
            if tensor.dtype.name == _BFLOAT16:
                dataset = files[places[name]].create_dataset(name, data=tensor.view("V2"))
                dataset.attrs["dtype"] = _BFLOAT16
            else:
                files[places[name]].create_dataset(name, data=tensor)
