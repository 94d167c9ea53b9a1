"""Replace a directory or a file as a whole: whoever looks sees the old one or the new one."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_directory(directory: Path, keeps: Callable[[str], bool]) -> Iterator[Path]:
    """Yield an empty directory that takes the place of another when the block ends.

    Everything is written beside the old directory and reaches the disk before the names change, so
    that an error, a full disk or a lost power supply leaves the old directory as it was. The one
    moment in which a crash leaves its name unused is that between two renames; then the old
    directory is beside it, under a name that begins with `.` and its own name.

    Args:
        directory: the directory to replace. It need not exist.
        keeps: whether an entry of the old directory, given by its name, is kept. Kept files are
            linked into the new directory, or copied where the file system has no links.

    Yields:
        The new directory.

    Example:
        ```python
        with replaced_directory(Path("preset"), keeps=lambda name: name == "README.md") as new:
            (new / "config.json").write_text("{}")
        ```
    """
    directory = directory.resolve()  # a symbolic link to a directory stays one
    directory.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{directory.name}."
    new = Path(tempfile.mkdtemp(prefix=prefix, suffix=".new", dir=directory.parent))
    try:
        yield new
        if directory.exists():
            _keep(directory, new, keeps)
        for path in [*new.rglob("*"), new]:
            _sync(path)
        # The private mode of temporary directories is not what `mkdir` would have given.
        new.chmod(directory.stat().st_mode if directory.exists() else 0o777 & ~_umask())
        _swap(directory, new, prefix)
        _sync(directory.parent)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a path for a file that takes the place of another when the block ends.

    Args:
        path: the file to replace. It need not exist.

    Example:
        ```python
        with replaced_file(Path("numbers.txt")) as new:
            new.write_text("1 2 3")
        ```
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as directory:
        new = Path(directory) / path.name
        yield new
        _sync(new)
        new.replace(path)
        _sync(path.parent)


def _keep(old: Path, new: Path, keeps: Callable[[str], bool]) -> None:
    for entry in old.iterdir():
        target = new / entry.name
        if not keeps(entry.name) or target.exists():
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, target, symlinks=True, copy_function=_link)
        else:
            _link(entry, target)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _swap(directory: Path, new: Path, prefix: str) -> None:
    if not directory.exists():
        new.rename(directory)
        return
    old = Path(tempfile.mkdtemp(prefix=prefix, suffix=".old", dir=directory.parent))
    directory.rename(old)
    try:
        new.rename(directory)
    except BaseException:
        old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    if path.is_symlink():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # not every system can do so with a directory
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
