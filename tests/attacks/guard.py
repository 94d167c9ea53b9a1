"""Watch what the process does while it works on a file that means harm.

What Python does is seen by an audit hook, what native code opens by the kernel, memory and time are
limited: a test that passes has shown that the file brought about nothing but an error.
"""

import ctypes
import getpass
import os
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import nextword
from nextword.presets import PresetError

MEMORY = 2**30
SECONDS = 20

# What loading a model has no reason to do. `open` is looked at more closely.
_FORBIDDEN = (
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile"),
    *(
        "os.mkdir",
        "os.remove",
        "os.rmdir",
        "os.rename",
        "os.link",
        "os.symlink",
        "os.chmod",
        "os.truncate",
        "shutil.",
    ),
    *("socket.", "subprocess.", "pty.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser."),
    *("pickle.", "marshal.loads", "exec", "ctypes.dlopen", "code.__new__", "function.__new__"),
)
_TEMPORARY = os.path.realpath(tempfile.gettempdir())
_TESTS = f"pytest-of-{getpass.getuser()}"
_COMPILES = ("exec", "code.__new__")
_FILES = ("os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
_IN_OPEN = 0x20
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_INSTALLED = tuple(
    os.path.realpath(path)
    for path in (
        sys.prefix,
        sys.base_prefix,
        Path(nextword.__file__).parent,
        "/dev/null",
        "/proc/meminfo",
    )
)


class _Watch:
    """What has been seen since it was made."""

    def __init__(self, readable: tuple[Path, ...], *, temporary: bool, compiles: bool) -> None:
        self.violations: list[str] = []
        self._forbidden = tuple(e for e in _FORBIDDEN if not (compiles and e in _COMPILES))
        self._readable = tuple(map(os.path.realpath, readable))
        self._temporary = temporary

    def see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            wrong = not self._may_open(*arguments)
        elif event in _FILES and self._temporary:
            # What `rmtree` removes is named relative to a directory that it has opened.
            is_inside = event in ("os.remove", "os.rmdir") and arguments[-1] not in (None, -1)
            wrong = not (is_inside or self._is_temporary(arguments[0]))
        else:
            wrong = event.startswith(self._forbidden)
        if wrong:
            self.violations.append(f"{event}{arguments!r:.500}")
            raise AssertionError(f"forbidden: {self.violations[-1]}")

    def _may_open(self, path: Any, mode: Any, flags: Any) -> bool:
        if isinstance(path, int) or self._is_temporary(path):
            return True  # a number is a file that was opened before
        path = Path(os.path.realpath(os.fsdecode(path)))
        writes = bool((flags or 0) & _WRITES) or any(letter in (mode or "") for letter in "wax+")
        # The temporary files of a test may lie inside the environment that runs it.
        installed = () if path.is_relative_to(_TEMPORARY) else _INSTALLED
        return not writes and any(map(path.is_relative_to, (*self._readable, *installed)))

    def _is_temporary(self, path: Any) -> bool:
        path = Path(os.path.realpath(os.fsdecode(path)))
        if not self._temporary or not path.is_relative_to(_TEMPORARY):
            return False
        return path.relative_to(_TEMPORARY).parts[:1] != (_TESTS,)


_active: _Watch | None = None
_is_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _active is not None:
        _active.see(event, arguments)


@contextmanager
def watched(
    *readable: Path,
    bait: Path | None = None,
    temporary: bool = False,
    compiles: bool = False,
    memory: int = MEMORY,
) -> Iterator[None]:
    """Fail if what runs inside the block leaves its bounds.

    It may read below the given paths and what is installed. It may not write, reach a network,
    start a process, unpickle, execute new code, import another package, map more than `memory`
    bytes more than it had, or run longer than a few seconds.

    Args:
        *readable: the preset.
        bait: a directory that nothing, native code included, may open a file in.
        temporary: whether it may have temporary files.
        compiles: whether it may execute new code, as chat templates become in their sandbox.
        memory: bytes.
    """
    global _active, _is_hooked
    if not _is_hooked:  # a hook cannot be taken away again
        sys.addaudithook(_hook)
        _is_hooked = True
    packages = _packages()
    opened = _opened_files(bait) if bait is not None else iter([])
    next(opened, None)
    watch = _Watch(readable, temporary=temporary, compiles=compiles)
    start = time.process_time()
    with _limited_memory(memory):
        _active = watch
        try:
            yield
        finally:
            _active = None
    seconds = time.process_time() - start
    assert not watch.violations, watch.violations
    assert not (names := next(opened, [])), f"opened {names}"
    assert not (new := _packages() - packages), f"imported {new}"
    assert seconds < SECONDS, seconds


def _packages() -> set[str]:
    return {name.partition(".")[0] for name in sys.modules}


@contextmanager
def _limited_memory(more: int) -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _opened_files(directory: Path) -> Iterator[list[str]]:
    """Yield twice: at once, and then the names of the files that were opened in between."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        yield []
        return
    queue = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        assert libc.inotify_add_watch(queue, os.fsencode(directory), _IN_OPEN) >= 0
        yield []
        try:
            events = os.read(queue, 2**16)
        except BlockingIOError:
            events = b""
        yield list(_names(events))
    finally:
        os.close(queue)


def _names(events: bytes) -> Iterator[str]:
    while events:
        _, _, _, length = struct.unpack("iIII", events[:16])
        yield events[16 : 16 + length].rstrip(b"\0").decode()
        events = events[16 + length :]


def refused(load: Any, directory: Path, message: str, **bounds: Any) -> None:
    """Check that a preset is refused in one sentence, and that nothing else happens.

    Args:
        load: a `from_preset`.
        directory: the preset.
        message: what the sentence must match.
        **bounds: see `watched`.
    """
    with watched(directory, **bounds), pytest.raises(PresetError, match=message) as caught:
        load(directory)
    text = str(caught.value)
    assert text.isprintable()
    assert text.endswith((".", "?"))
    assert len(text) < 1000
