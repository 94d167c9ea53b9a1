"""The header of a GGUF file: its keys and values, and where its tensors lie, none of it trusted.

The format is specified at https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

import math
import struct
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import (
    GGML_QUANT_SIZES,
    GGMLQuantizationType,
    GGUFReader,
    GGUFValueType,
    ReaderField,
)

from nextword.errors import PresetError
from nextword.presets.file_checks import cannot_read, check_file, not_valid
from nextword.presets.handles import show

_EXPECTED = "a GGUF file"
_VERSIONS = (2, 3)
_PREAMBLE = struct.Struct("<4sIQQ")  # magic, version, number of tensors, number of keys
_LENGTH = struct.Struct("<Q")

# The largest vocabularies in use make headers of about 20 MiB; the largest models have a few
# thousand tensors. The limits keep what is built while reading a header within a few hundred MiB.
_MAX_HEADER_BYTES = 64 * 2**20
_MAX_ENTRIES = 2**16
_MAX_RANK = 4


class TensorExtent(NamedTuple):
    """Where one tensor lies in a GGUF file, checked to be inside it and in no other tensor.

    Attributes:
        name: the tensor's name.
        type: how its numbers are stored.
        shape: its shape, outermost dimension first (the reverse of the file's order).
        offset: where in the file it starts, in bytes.
        size: how many bytes it takes.
    """

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int
    size: int


def read_header(path: Path) -> "StrictGGUFReader":
    """Read the header of a GGUF file.

    Args:
        path: the file.

    Raises:
        PresetError: the file cannot be read, is not GGUF, is of a version or byte order that is not
            supported, or is not whole and consistent: everything that the header promises is
            checked against the size of the file.
    """
    _check_preamble(path)
    try:
        return StrictGGUFReader(path)
    except PresetError:
        raise
    except OSError as error:
        raise cannot_read(path, error) from error
    except ValueError as error:  # what the package's reader itself finds wrong
        raise not_valid(path, _EXPECTED, error) from error


def _check_preamble(path: Path) -> None:
    size = check_file(path)
    try:
        with path.open("rb") as file:
            preamble = file.read(_PREAMBLE.size)
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(preamble) < _PREAMBLE.size:
        raise not_valid(path, _EXPECTED, f"it ends after {size} bytes, within its header")
    magic, version, tensors, keys = _PREAMBLE.unpack(preamble)
    if magic != b"GGUF":
        raise not_valid(path, _EXPECTED, "it does not begin with 'GGUF'")
    if version & 0xFFFF == 0:
        raise not_valid(path, _EXPECTED, "its numbers are big-endian, which is not supported")
    if version not in _VERSIONS:
        raise not_valid(
            path, _EXPECTED, f"its version must be one of {_VERSIONS}. Received: version={version}"
        )
    for what, count in (("tensors", tensors), ("keys", keys)):
        if count > _MAX_ENTRIES:
            raise not_valid(
                path,
                _EXPECTED,
                f"it must have at most {_MAX_ENTRIES} {what}. Received: {count} {what}",
            )


class StrictGGUFReader(GGUFReader):
    """The package's reader, made to check every length before use and to read arrays in one piece.

    The base class makes one array per string of a vocabulary, which takes seconds, and slices that
    run past the end of the file come out short without an error. The steps that do so are replaced;
    the walk through the file stays the package's.

    Args:
        path: a file whose first 24 bytes were checked.

    Attributes:
        extents: where the tensors are. `tensors` of the base class stays empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.extents: list[TensorExtent] = []
        super().__init__(path)

    def value(self, key: str) -> Any:
        """Return the value of a key as a plain Python value.

        Of the numbers that a float of 32 bits may stand for, it is the shortest: 1e-5, as it was
        before it was rounded.

        Raises:
            PresetError: a string in it is not UTF-8.
            KeyError: there is no such key.
        """
        field = self.fields[key]
        try:
            if field.types == [GGUFValueType.ARRAY, GGUFValueType.STRING]:
                return _split_strings(field.parts[-1])
            if field.types == [GGUFValueType.FLOAT32]:
                return float(str(field.parts[-1][0]))
            return field.contents()
        except UnicodeDecodeError as error:
            raise self._malformed(f"the value of {show(key)} is not UTF-8") from error

    def _get(
        self, offset: int, dtype: Any, count: int = 1, override_order: Any = None
    ) -> np.ndarray:
        # Every read of the header comes through here.
        end = int(offset) + np.dtype(dtype).itemsize * int(count)
        if end > self._limit():
            raise self._beyond_limit(offset, end)
        return super()._get(offset, dtype, count, override_order)

    def _push_field(self, field: ReaderField, skip_sum: bool = False) -> int:
        if field.name in self.fields:
            raise self._malformed(f"the key {show(field.name)} occurs twice")
        return super()._push_field(field, skip_sum)

    def _get_field_parts(
        self, orig_offs: int, raw_type: int
    ) -> tuple[int, list[np.ndarray], list[int], list[GGUFValueType]]:
        if raw_type != GGUFValueType.ARRAY:
            return super()._get_field_parts(orig_offs, raw_type)
        item = self._get(orig_offs, np.uint32)
        length = self._get(orig_offs + 4, np.uint64)
        start = orig_offs + 12
        item_type = GGUFValueType(item[0])
        if item_type == GGUFValueType.ARRAY:
            raise self._malformed("an array of arrays is not supported")
        if item_type == GGUFValueType.STRING:
            values = self._get(start, np.uint8, self._strings_size(start, int(length[0])))
        else:
            values = self._get(start, self.gguf_scalar_to_np[item_type], length[0])
        return 12 + values.nbytes, [item, length, values], [2], [GGUFValueType.ARRAY, item_type]

    def _strings_size(self, start: int, count: int) -> int:
        end = start
        data, last = self.data.data, self._limit() - _LENGTH.size
        for _ in range(count):
            if end > last:
                raise self._beyond_limit(start, end + _LENGTH.size)
            end += _LENGTH.size + _LENGTH.unpack_from(data, end)[0]
        return end - start

    def _build_tensors(self, start_offs: int, fields: Iterable[ReaderField]) -> None:
        self.extents = [self._extent(int(start_offs), field) for field in fields]
        names: set[str] = set()
        for extent in self.extents:
            if extent.name in names:
                raise self._malformed(f"two tensors have the name {show(extent.name)}")
            names.add(extent.name)
        for first, second in pairwise(sorted(self.extents, key=lambda extent: extent.offset)):
            if first.offset + first.size > second.offset:
                raise self._malformed(
                    f"the tensors {show(first.name)} and {show(second.name)} overlap"
                )

    def _extent(self, start: int, field: ReaderField) -> TensorExtent:
        _, _, rank, dimensions, raw_type, offset = field.parts
        tensor = f"the tensor {show(field.name)}"
        if not 1 <= rank[0] <= _MAX_RANK:
            raise self._malformed(
                f"{tensor} must have 1 to {_MAX_RANK} dimensions. Received: {rank[0]}"
            )
        shape = tuple(reversed(dimensions.tolist()))
        if 0 in shape:
            raise self._malformed(f"{tensor} has no elements. Received: shape={shape}")
        try:
            encoding = GGMLQuantizationType(int(raw_type[0]))
        except ValueError as error:
            raise self._malformed(f"{tensor} has the unknown type {raw_type[0]}") from error
        block, block_bytes = GGML_QUANT_SIZES[encoding]
        if shape[-1] % block:
            raise self._malformed(
                f"{tensor} must have rows of a multiple of {block} elements, for it is "
                f"{encoding.name}. Received: shape={shape}"
            )
        relative, size = int(offset[0]), math.prod(shape) // block * block_bytes
        if relative % int(self.alignment):
            raise self._malformed(
                f"{tensor} must start at a multiple of {self.alignment} bytes. Received: "
                f"offset={relative}"
            )
        if start + relative + size > self.data.size:
            raise self._malformed(
                f"it is cut short or damaged, for it has {self.data.size} bytes and {tensor} would "
                f"take bytes {start + relative} to {start + relative + size}"
            )
        return TensorExtent(field.name, encoding, shape, start + relative, size)

    def _limit(self) -> int:
        return min(self.data.size, _MAX_HEADER_BYTES)

    def _beyond_limit(self, offset: int, end: int) -> PresetError:
        if self.data.size > _MAX_HEADER_BYTES:
            return self._malformed(
                f"its header must have at most {_MAX_HEADER_BYTES:,} bytes. Received: a header of "
                f"{end:,} bytes or more"
            )
        return self._malformed(
            f"it is cut short or damaged, for it has {self.data.size} bytes and byte {int(offset)} "
            f"announces data up to byte {end}"
        )

    def _malformed(self, reason: str) -> PresetError:
        return not_valid(self.path, _EXPECTED, reason)


def _split_strings(data: np.ndarray) -> list[str]:
    """Split the bytes of an array of strings, each stored as its length and its UTF-8 bytes."""
    content = data.tobytes()
    strings = []
    position = 0
    while position < len(content):
        start = position + _LENGTH.size
        position = start + _LENGTH.unpack_from(content, position)[0]
        strings.append(content[start:position].decode())
    return strings
