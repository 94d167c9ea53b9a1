"""Tensors that lie uncompressed in files, read one by one through a memory map.

Each read maps the bytes of that tensor only, and its pages go when the array does: reading a whole
model this way never holds more of its files in memory than the tensor at hand.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from nextword.errors import PresetError, did_you_mean
from nextword.presets.handles import show
from nextword.quantization import BLOCK_FORMATS, GroupedFormat

_DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I8": np.dtype(np.int8),
}
FLOATS = tuple(dtype.name for dtype in _DTYPES.values() if dtype != np.int8)


def check_finite(values: np.ndarray, what: str) -> None:
    """Raise if an array of floats holds NaN or infinity.

    The bits of such numbers are, as integers, above those of all others of their sign. Two maxima
    of integers take a tenth of the time of `np.isfinite` for bfloat16.

    Args:
        values: a contiguous array. One of other numbers than floats passes.
        what: what it is, the beginning of the message.

    Raises:
        PresetError: it does.

    Example:
        >>> check_finite(np.array([1.0, -np.inf], "float32"), "The tensor 'w'")
        Traceback (most recent call last):
        ...
        nextword.errors.PresetError: The tensor 'w' must hold finite numbers. Received: -inf.
    """
    if values.dtype.name not in FLOATS or not values.size:
        return
    size = values.dtype.itemsize
    infinity = int(np.array(np.inf, values.dtype).view(f"i{size}"))
    negative_infinity = int(np.array(-np.inf, values.dtype).view(f"u{size}"))
    if values.view(f"i{size}").max() < infinity and values.view(f"u{size}").max() < (
        negative_infinity
    ):
        return
    wrong = values[~np.isfinite(values)].flat[0]
    raise PresetError(f"{what} must hold finite numbers. Received: {wrong}.")


@dataclass(frozen=True)
class StoredTensor:
    """One tensor, and where its bytes are.

    Attributes:
        name: its name in the checkpoint.
        path: the file.
        offset: where in the file it starts, in bytes. The reader of the file's header has checked
            that the tensor ends within the file.
        shape: its shape, outermost dimension first.
        encoding: how its numbers are stored: "F32", "F16", "BF16", "I8", or what the file calls
            it.
    """

    name: str
    path: Path
    offset: int
    shape: tuple[int, ...]
    encoding: str

    @property
    def dtype(self) -> np.dtype | None:
        """The dtype that `read` returns, or `None` if the encoding cannot be read."""
        return _DTYPES.get(self.encoding)

    def read(self) -> np.ndarray:
        """Return the tensor.

        Raises:
            PresetError: its encoding cannot be read, or the file has changed since it was opened.
        """
        if self.dtype is None:
            raise PresetError(
                f"The tensor {show(self.name)} of {show(str(self.path))} is stored as "
                f"{self.encoding}, which nextword cannot read as a weight."
            )
        return self._map(self.dtype, self.shape)

    def _map(self, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        if 0 in shape:
            return np.zeros(shape, dtype)
        try:
            # Copy-on-write: the array is writable, which torch insists on, and the file never is.
            mapped = np.memmap(self.path, dtype, "c", self.offset, (math.prod(shape),))
        except (OSError, ValueError) as error:
            raise PresetError(
                f"{show(str(self.path))} has been cut short or removed since it was opened."
            ) from error
        # Files do not always align their tensors to the size of a number; some backends insist.
        return np.require(mapped.view(np.ndarray).reshape(shape), requirements="A")


class StoredTensors:
    """The tensors of one checkpoint, by name. Nothing is held open between two reads.

    Args:
        name: what the checkpoint is called in messages.
        tensors: the tensors.

    Raises:
        PresetError: two tensors have one name.
    """

    def __init__(self, name: str, tensors: Iterable[StoredTensor]) -> None:
        self.name = name
        self._tensors: dict[str, StoredTensor] = {}
        for tensor in tensors:
            other = self._tensors.setdefault(tensor.name, tensor)
            if other is not tensor:
                raise PresetError(
                    f"The tensor {show(tensor.name)} of {show(name)} is stored twice, in "
                    f"{show(other.path.name)} and in {show(tensor.path.name)}."
                )

    @property
    def dtype(self) -> str:
        """The name of the dtype in which `tensor` returns most elements of the float matrices."""
        elements: Counter[str] = Counter()
        for tensor in self._tensors.values():
            if tensor.dtype not in (None, np.int8) and len(tensor.shape) >= 2:
                elements[tensor.dtype.name] += math.prod(tensor.shape)
        return elements.most_common(1)[0][0] if elements else "float32"

    def tensor_names(self) -> frozenset[str]:
        """Return the names of all tensors."""
        return frozenset(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, outermost dimension first, without reading it.

        Raises:
            PresetError: there is no such tensor.
        """
        return self._find(name).shape

    def encoding(self, name: str) -> str:
        """Return how the numbers of a tensor are stored, such as "BF16" or "I8".

        Raises:
            PresetError: there is no such tensor.
        """
        return self._find(name).encoding

    def tensor(self, name: str) -> np.ndarray:
        """Return a tensor.

        Args:
            name: one of `tensor_names()`.

        Returns:
            The array, in the stored dtype if that is float32, float16, bfloat16 (from `ml_dtypes`)
            or int8, then memory-mapped, copy-on-write; in float32 if it had to be dequantised.

        Raises:
            PresetError: there is no such tensor, or its encoding cannot be read.
        """
        return self._find(name).read()

    def block_format(self, name: str) -> GroupedFormat | None:
        """Return the format that can hold the blocks of a tensor; None where there is none.

        Raises:
            PresetError: there is no such tensor.
        """
        return BLOCK_FORMATS.get(self.encoding(name))

    def blocks(self, name: str) -> np.ndarray:
        """Return the blocks of a tensor for which there is a `block_format`.

        Returns:
            uint8 array of shape `[rows, bytes of a row]`, memory-mapped, copy-on-write.

        Raises:
            PresetError: there is no such tensor, or it is not stored in blocks.
        """
        tensor = self._find(name)
        blocks = getattr(tensor, "blocks", None)
        if blocks is None:
            raise PresetError(
                f"The tensor {show(name)} of {show(self.name)} must be stored in blocks. Received: "
                f"{tensor.encoding}."
            )
        array: np.ndarray = blocks()
        return array

    def close(self) -> None:
        """Close what is open: nothing here, and arrays that were read stay valid."""

    def _find(self, name: str) -> StoredTensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            hint = did_you_mean(name, self._tensors)
            raise PresetError(f"{show(self.name)} has no tensor {show(name)}.{hint}")
        return tensor
