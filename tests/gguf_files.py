"""Write small GGUF files: good ones with the gguf package, and byte by byte those it would not."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter, quantize


class Blocks(NamedTuple):
    """A tensor given as the bytes of its quantised blocks: uint8, `[..., bytes of a row]`."""

    data: np.ndarray
    type: str


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray | Blocks],
    quantization: str | None = None,
) -> Path:
    """Write a GGUF file, and return its path.

    Args:
        path: where to write it.
        metadata: keys and values: strings, booleans, integers, floats, and lists of one of them.
            `general.architecture` must be among them.
        tensors: name to array, `[out, in]`: float32, float16, bfloat16 of `ml_dtypes`, or `Blocks`.
        quantization: the type to quantise all arrays of two and more dimensions to, such as "Q8_0".
    """
    writer = GGUFWriter(path, metadata["general.architecture"])
    for key, value in metadata.items():
        if key != "general.architecture":  # the writer's constructor has written it
            _write_value(writer, key, value)
    for name, tensor in tensors.items():
        data, kind = _encode(tensor, quantization)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _encode(
    tensor: np.ndarray | Blocks, quantization: str | None
) -> tuple[np.ndarray, GGMLQuantizationType | None]:
    if isinstance(tensor, Blocks):
        return tensor.data, GGMLQuantizationType[tensor.type]
    if quantization is not None and tensor.ndim >= 2:
        kind = GGMLQuantizationType[quantization]
        return quantize(tensor.astype(np.float32), kind), kind
    if tensor.dtype == ml_dtypes.bfloat16:
        return np.ascontiguousarray(tensor).view(np.uint8), GGMLQuantizationType.BF16
    return np.ascontiguousarray(tensor), None


def _write_value(writer: GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_key_value(key, value, GGUFValueType.ARRAY, sub_type=_type_of(value[0], True))
    else:
        writer.add_key_value(key, value, _type_of(value))


def _type_of(value: Any, in_array: bool = False) -> GGUFValueType:
    # As llama.cpp's converter writes them: counts are unsigned, the kinds of tokens are signed.
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0 and not in_array:
        return GGUFValueType.UINT32
    return GGUFValueType.get_type(value)


def string(text: str | bytes) -> bytes:
    """Return a GGUF string: its length and its bytes."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def pair(key: str | bytes, kind: int, payload: bytes) -> bytes:
    """Return a key of type `kind` with its value's bytes."""
    return string(key) + struct.pack("<I", kind) + payload


def info(
    name: str | bytes,
    dimensions: Sequence[int],
    kind: int = GGMLQuantizationType.F32,
    offset: int = 0,
    rank: int | None = None,
) -> bytes:
    """Return the description of a tensor, `dimensions` innermost first."""
    rank = len(dimensions) if rank is None else rank
    return (
        string(name)
        + struct.pack("<I", rank)
        + struct.pack(f"<{len(dimensions)}Q", *dimensions)
        + struct.pack("<IQ", kind, offset)
    )


ARCHITECTURE = pair("general.architecture", GGUFValueType.STRING, string("llama"))


def gguf_bytes(
    pairs: Sequence[bytes] = (ARCHITECTURE,),
    infos: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    magic: bytes = b"GGUF",
    version: int = 3,
    num_tensors: int | None = None,
    num_pairs: int | None = None,
    order: str = "<",
) -> bytes:
    """Return a GGUF file of these parts, whether or not they fit together."""
    num_tensors = len(infos) if num_tensors is None else num_tensors
    num_pairs = len(pairs) if num_pairs is None else num_pairs
    header = magic + struct.pack(f"{order}IQQ", version, num_tensors, num_pairs)
    header += b"".join([*pairs, *infos])
    return header + b"\0" * (-len(header) % 32) + data
