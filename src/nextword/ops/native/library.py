"""The shared library of the native kernels, and which of its kernels are used."""

import contextlib
import ctypes
import functools
from collections.abc import Iterator
from pathlib import Path


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """Return the library, or None where it was not built or does not fit the machine."""
    for path in Path(__file__).parent.glob("_kernels*.so"):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(path))
            library.nextword_kernels_in_use.restype = ctypes.c_char_p
            library.nextword_use_kernels.argtypes = [ctypes.c_char_p]
            return library
    return None


_is_off = False


def kernels_in_use() -> str | None:
    """Return the instruction set of the kernels that are used, or None where there are none.

    Returns:
        "avx512-vnni", "avx2" or "portable" (C++ for any processor); None where Keras computes.
    """
    library = load_library()
    return None if library is None or _is_off else library.nextword_kernels_in_use().decode()


@contextlib.contextmanager
def kernels_used(name: str | None) -> Iterator[None]:
    """Use the kernels of another instruction set, for comparisons.

    Programs that were compiled before keep calling kernels if they did, of the set in use.

    Args:
        name: see `kernels_in_use`; None for none.

    Raises:
        ValueError: this machine cannot run them.
    """
    global _is_off
    library, before = load_library(), (_is_off, kernels_in_use())
    if name is not None and (library is None or not library.nextword_use_kernels(name.encode())):
        raise ValueError(f"This machine has no kernels of that name. Received: name={name!r}.")
    _is_off = name is None
    try:
        yield
    finally:
        _is_off = before[0]
        if library is not None and before[1] is not None:
            library.nextword_use_kernels(before[1].encode())
