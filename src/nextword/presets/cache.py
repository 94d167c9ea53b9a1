"""nextword's own cache: entries that appear at once and whole, or not at all.

An entry is a directory with a manifest (each file's size and hash) beside its files. It is built in
a temporary sibling and renamed into place, so that a reader never meets half of one, whatever was
interrupted and however many processes fetch it at the same time. Files that the Hugging Face and
Kaggle clients download live in those clients' own caches, not here.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

_MANIFEST = "manifest.json"
_FILES = "files"
_STAGING_PREFIX = ".partial-"
_STAGING_SECONDS = 2 * 24 * 3600  # what is older was left behind by a process that was killed


@dataclass(frozen=True)
class FileRecord:
    """What the manifest of a cache entry says of one file: its size in bytes and its hash."""

    size: int
    sha256: str


def cache_directory() -> Path:
    """Return where nextword keeps downloaded files.

    It is the directory that the variable `NEXTWORD_CACHE` names, or else the platform's usual place
    for caches (`~/.cache/nextword` on Linux). It need not exist yet.
    """
    chosen = os.environ.get("NEXTWORD_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("nextword")


def entry_files(entry: Path) -> Path | None:
    """Return the directory with an entry's files, or `None` if it is absent or damaged.

    Damage is looked for in the sizes alone: hashing gigabytes at each start would cost more than
    loading them.
    """
    files = entry / _FILES
    try:
        manifest = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
        intact = all(
            (files / name).stat().st_size == record["size"] for name, record in manifest.items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return files if intact and manifest else None


@contextmanager
def staging(entry: Path) -> Iterator[Path]:
    """Yield a fresh directory beside `entry` to work in; it is deleted afterwards.

    Example:
        >>> with tempfile.TemporaryDirectory() as cache:
        ...     entry = Path(cache) / "entry"
        ...     with staging(entry) as work:
        ...         files = work / "new"
        ...         files.mkdir()
        ...         _ = (files / "greeting.txt").write_bytes(b"hello")
        ...         files = publish(files, {"greeting.txt": FileRecord(5, "2cf24dba…")}, entry)
        ...     files == entry_files(entry), (files / "greeting.txt").read_text()
        (True, 'hello')
    """
    entry.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(entry.parent)
    with tempfile.TemporaryDirectory(
        prefix=_STAGING_PREFIX, dir=entry.parent, ignore_cleanup_errors=True
    ) as work:
        yield Path(work)


def publish(files: Path, records: dict[str, FileRecord], entry: Path) -> Path:
    """Move a directory of files out of a staging directory into a new cache entry.

    Args:
        files: a directory in the one that `staging(entry)` gave.
        records: for each file, by its path relative to `files`, its size and hash.
        entry: the entry's directory. If another process has published it meanwhile, its files are
            kept and ours are dropped; if it is damaged, it is replaced.

    Returns:
        The directory with the entry's files.

    Raises:
        OSError: the entry cannot be written.
    """
    new = files.parent / "entry"
    new.mkdir()
    files.rename(new / _FILES)
    manifest = {name: asdict(record) for name, record in records.items()}
    (new / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    with suppress(OSError):
        if entry_files(entry) is None:
            entry.rename(new.parent / "damaged")
    try:
        new.rename(entry)
    except OSError:
        if entry_files(entry) is None:
            raise
    return entry / _FILES


def _remove_abandoned(directory: Path) -> None:
    for work in directory.glob(f"{_STAGING_PREFIX}*"):
        try:
            abandoned = time.time() - work.stat().st_mtime > _STAGING_SECONDS
        except OSError:  # its owner has just removed it
            continue
        if abandoned:
            shutil.rmtree(work, ignore_errors=True)
