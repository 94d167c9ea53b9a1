"""Memory that weights lie in, in huge pages where the system has them.

A decoding step reads every weight once, and so every page of their memory. With pages of 4 KB the
processor looks up thousands of them for each token, and what it reads ahead ends with each; pages
of 2 MB it reads a few percent faster. Linux gives them to those who ask before they write
(https://docs.kernel.org/admin-guide/mm/transhuge.html).
"""

import mmap
import threading
import weakref

import numpy as np

_HUGE_PAGE = 2 << 20
_BLOCK = 16 * _HUGE_PAGE  # goes with the last array in it, so it should not hold too many
_SMALLEST = 1 << 14  # smaller arrays would but keep a block of weights that are gone
_ALIGNMENT = 64  # of what JAX takes without copying it again


class WeightMemory:
    """Blocks of memory in huge pages, each shared by some arrays and gone with the last of them.

    Example:
    >>> weights = WeightMemory().copy(np.ones((512, 512), "float32"))
    >>> weights.shape, weights.ctypes.data % 64
    ((512, 512), 0)
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._block: weakref.ref[mmap.mmap] | None = None
        self._used = 0

    def copy(self, array: np.ndarray) -> np.ndarray:
        """Return a copy of an array that lies here.

        Args:
            array: the array.

        Returns:
            An array like it; the same one if it is small, or where there are no huge pages.
        """
        if array.nbytes < _SMALLEST or not hasattr(mmap, "MADV_HUGEPAGE"):
            return array
        block, start = self._reserve(array.nbytes)
        copy = np.frombuffer(block, array.dtype, array.size, start).reshape(array.shape)
        np.copyto(copy, array)
        return copy

    def _reserve(self, size: int) -> tuple[mmap.mmap, int]:
        """Return a block and where in it there are some bytes that nobody else gets."""
        if size > _BLOCK:
            return _new_block(size)
        with self._lock:
            block = None if self._block is None else self._block()
            if block is None or self._used + size > len(block):
                block, self._used = _new_block(_BLOCK)
                self._block = weakref.ref(block)
            start = self._used
            self._used += -(-size // _ALIGNMENT) * _ALIGNMENT
            return block, start


def _new_block(size: int) -> tuple[mmap.mmap, int]:
    """Return a block and where in it the first whole huge page begins."""
    block = mmap.mmap(-1, size + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    block.madvise(mmap.MADV_HUGEPAGE)
    address: int = np.frombuffer(block, np.uint8).ctypes.data
    return block, -address % _HUGE_PAGE
