"""Write a GGUF file: its keys first, then its tensors one at a time, so that few are ever held."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter

from nextword.presets.directories import replaced_file


class TensorPlan(NamedTuple):
    """What is known of a tensor before it is made.

    Attributes:
        name: the tensor's name.
        shape: its shape, outermost dimension first.
        encoding: how its numbers are stored, such as "F16" or "Q8_0".
    """

    name: str
    shape: tuple[int, ...]
    encoding: str

    @property
    def size(self) -> int:
        """The number of bytes that it takes."""
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[self.encoding]]
        return math.prod(self.shape) // block * block_bytes


def write_gguf(
    path: Path,
    architecture: str,
    metadata: Mapping[str, Any],
    plans: Sequence[TensorPlan],
    tensors: Iterable[np.ndarray],
) -> None:
    """Write a GGUF file, as a whole or not at all.

    Args:
        path: the file. One that is there is replaced.
        architecture: the value of `general.architecture`.
        metadata: the other keys: strings, booleans, integers, floats, and lists of one of them.
        plans: every tensor.
        tensors: the bytes of each as an array, in the same order. Asked for one by one.

    Raises:
        ValueError: a tensor is of another size than planned.

    Example:
        ```python
        plan = TensorPlan("output_norm.weight", (4,), "F32")
        write_gguf(Path("norm.gguf"), "llama", {"llama.block_count": 0}, [plan], [np.ones(4, "f")])
        ```
    """
    with replaced_file(path) as new:
        writer = GGUFWriter(new, architecture)
        try:
            for key, value in metadata.items():
                _add_value(writer, key, value)
            for plan in plans:
                kind = GGMLQuantizationType[plan.encoding]
                dtype: Any = np.dtype(np.float32)  # which says no more than that shapes are whole
                writer.add_tensor_info(plan.name, plan.shape, dtype, plan.size, raw_dtype=kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for plan, tensor in zip(plans, tensors, strict=True):
                if tensor.nbytes != plan.size:
                    raise ValueError(
                        f"The tensor {plan.name!r} must have {plan.size} bytes. Received: "
                        f"{tensor.nbytes} bytes."
                    )
                writer.write_tensor_data(np.ascontiguousarray(tensor))
        finally:
            writer.close()


def _add_value(writer: GGUFWriter, key: str, value: Any) -> None:
    """Add a key with the type that llama.cpp asks for, which is strict about it."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
