"""What must hold of a local file before it is read, and what to say of one that is not right."""

import re
import stat
from pathlib import Path

from nextword.errors import PresetError
from nextword.presets.handles import show

_HEAD = 512

# Why a download or a rename went wrong can be read from the first bytes of what is there.
_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, whose file `git lfs pull` would fetch"),
    (b"GGUF", "a GGUF file"),
    (b"PK\x03\x04", "a zip archive, which is what PyTorch pickles are stored in"),
    (b"\x89HDF\r\n", "an HDF5 file"),
    (b"\x1f\x8b\x08", "a gzip archive"),
)
_HTML = re.compile(rb"\s*<(?:!doctype html|html)", re.IGNORECASE)
_PICKLE = re.compile(rb"\x80[\x02-\x05][^\0]")


def check_file(path: Path, *, max_bytes: int | None = None) -> int:
    """Check that a path is a regular file, and return its size in bytes.

    Args:
        path: the file. A pipe or a device could block its reader or never end.
        max_bytes: the largest size to accept.

    Raises:
        PresetError: it cannot be read, is no regular file, or is larger than `max_bytes`.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise cannot_read(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise PresetError(f"{show(str(path))} must be a file, not a directory, pipe or device.")
    if max_bytes is not None and status.st_size > max_bytes:
        raise PresetError(
            f"{show(str(path))} must have at most {max_bytes:,} bytes. Received: a file of "
            f"{status.st_size:,} bytes."
        )
    return status.st_size


def cannot_read(path: Path, error: Exception) -> PresetError:
    """Return the error to raise where the operating system refuses to read a file."""
    reason = getattr(error, "strerror", None) or error
    return PresetError(f"Cannot read {show(str(path))}: {reason}.")


def not_valid(path: Path, expected: str, reason: str | Exception) -> PresetError:
    """Return the error to raise for a file whose content is not what it should be.

    Args:
        path: the file.
        expected: what it should be, such as `"a GGUF file"`.
        reason: what is wrong with it. Where the file turns out to be something else altogether,
            the error says what instead.
    """
    if isinstance(reason, Exception):  # the words of others may quote anything from the file
        reason = show(str(reason).rstrip("."))[1:-1]
    try:
        with path.open("rb") as file:
            recognised = recognise(file.read(_HEAD))
    except OSError:
        recognised = None
    if recognised is not None and recognised != expected:
        reason = f"it is {recognised}"
    return PresetError(f"{show(str(path))} is not {expected} that can be read: {reason}.")


def recognise(head: bytes) -> str | None:
    r"""Return what a file is by its first bytes, or `None` where they do not tell.

    Args:
        head: the first few hundred bytes.

    Example:
        >>> recognise(b"\n<!DOCTYPE html><html>")
        'an HTML page, such as a download that failed leaves behind'
    """
    if not head:
        return "an empty file"
    if _HTML.match(head):
        return "an HTML page, such as a download that failed leaves behind"
    if _PICKLE.match(head):
        return "a Python pickle"
    return next((what for magic, what in _SIGNATURES if head.startswith(magic)), None)
