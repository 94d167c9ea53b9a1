"""The header of a safetensors file: what tensors it holds, and where, checked by the library.

The format is specified at https://github.com/huggingface/safetensors.
"""

import struct
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from nextword.presets.file_checks import cannot_read, check_file, not_valid
from nextword.presets.json_files import parse_json
from nextword.presets.stored_tensors import StoredTensor

_EXPECTED = "a safetensors file"
_LENGTH = struct.Struct("<Q")
_MAX_HEADER_BYTES = 32 * 2**20
_MAX_RANK = 8


def read_safetensors_header(path: Path) -> list[StoredTensor]:
    """Return where the tensors of a safetensors file are. No tensor is read.

    Args:
        path: the file.

    Raises:
        PresetError: the file cannot be read, or is not a whole and consistent safetensors file:
            its tensors must tile the rest of the file exactly, in sizes that their shapes explain.
    """
    header, data_start = _read_header(path)
    try:
        # The library is the judge of the format; only its verdict is used.
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, ValueError) as error:
        raise not_valid(path, _EXPECTED, error) from error
    except OSError as error:
        raise cannot_read(path, error) from error
    return [
        _stored(path, name, entry, data_start)
        for name, entry in header.items()
        if name != "__metadata__"
    ]


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    size = check_file(path)
    try:
        with path.open("rb") as file:
            prefix = file.read(_LENGTH.size)
            length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else 0
            header = file.read(length) if length <= min(size, _MAX_HEADER_BYTES) else b""
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(header) < length or not length:
        raise not_valid(
            path,
            _EXPECTED,
            f"its header must have 1 to {_MAX_HEADER_BYTES} bytes and lie within its {size} bytes. "
            f"Received: a header of {length} bytes",
        )
    if not header.startswith(b"{"):
        raise not_valid(path, _EXPECTED, "its header does not begin with '{'")
    try:
        return parse_json(header), _LENGTH.size + length
    except ValueError as error:
        raise not_valid(path, _EXPECTED, error) from error


def _stored(path: Path, name: str, entry: dict[str, Any], data_start: int) -> StoredTensor:
    shape = tuple(entry["shape"])
    if len(shape) > _MAX_RANK:
        raise not_valid(path, _EXPECTED, f"a tensor in it has {len(shape)} dimensions")
    return StoredTensor(name, path, data_start + entry["data_offsets"][0], shape, entry["dtype"])
