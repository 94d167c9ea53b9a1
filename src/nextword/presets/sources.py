"""Where a preset's files are: the interface that readers use, and presets on the local disk."""

import os
from abc import abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

from nextword.errors import PresetError, did_you_mean
from nextword.presets.handles import check_filename

_MAX_LISTED = 10_000


class PresetSource(Protocol):
    """Where the files of one preset are; fetches a file when it is asked for.

    Attributes:
        name: the preset as the user wrote it, for messages.
    """

    name: str

    @abstractmethod
    def find(self, filename: str) -> Path | None:
        """Return the local path of a file, fetching it if needed.

        Args:
            filename: a relative path inside the preset, its parts joined by `/`.

        Returns:
            The path, or `None` if the preset has no such file. Whether there is one must be known:
            a hub that cannot be reached is an error, not a missing file.

        Raises:
            PresetError: the name would leave the preset, or the file cannot be fetched.
        """
        ...

    def path(self, filename: str) -> Path:
        """Return what `find` returns, where the preset cannot do without the file.

        Raises:
            PresetError: as `find` does, and if the preset has no such file.
        """
        found = self.find(filename)
        if found is None:
            hint = did_you_mean(filename, self.filenames() or ())
            raise PresetError(f"Preset {self.name!r} has no file {filename!r}.{hint}")
        return found

    @abstractmethod
    def filenames(self) -> list[str] | None:
        """Return the names of the files, or `None` where that is not known without a download."""
        ...

    def gguf_path(self) -> Path | None:
        """Return the GGUF file, fetching it if needed, if that one file is the whole preset.

        Raises:
            PresetError: the preset is one GGUF file and it is missing or cannot be fetched.
        """
        return None


class LocalDirectory(PresetSource):
    """A preset in a directory on the local disk.

    A name cannot climb out of the directory, but symbolic links in it are followed wherever they
    lead: the directory is the user's own, and the caches of model hubs are made of such links.
    Only regular files count, so that a pipe or a device in the directory cannot block or flood us.

    Args:
        directory: the directory.
        name: the preset as the user wrote it.
    """

    def __init__(self, directory: Path, name: str | None = None) -> None:
        self.directory = directory
        self.name = str(directory) if name is None else name

    def __repr__(self) -> str:
        return f"LocalDirectory({self.name!r})"

    def find(self, filename: str) -> Path | None:
        candidate = self.directory / check_filename(filename)
        try:
            return candidate if candidate.is_file() else None
        except OSError as error:
            raise PresetError(
                f"Cannot read {filename!r} of preset {self.name!r}: {error.strerror}."
            ) from error

    def filenames(self) -> list[str] | None:
        return sorted(islice(self._walk(), _MAX_LISTED))

    def _walk(self) -> Iterator[str]:
        for folder, subfolders, files in os.walk(self.directory):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            relative = Path(folder).relative_to(self.directory)
            yield from ((relative / name).as_posix() for name in sorted(files))


class LocalFile(PresetSource):
    """A preset that is one GGUF file on the local disk.

    Args:
        gguf_file: the file.
        name: the preset as the user wrote it.
    """

    def __init__(self, gguf_file: Path, name: str | None = None) -> None:
        self.gguf_file = gguf_file
        self.name = str(gguf_file) if name is None else name

    def __repr__(self) -> str:
        return f"LocalFile({self.name!r})"

    def find(self, filename: str) -> Path | None:
        return self.gguf_file if check_filename(filename) == self.gguf_file.name else None

    def filenames(self) -> list[str] | None:
        return [self.gguf_file.name]

    def gguf_path(self) -> Path | None:
        return self.gguf_file
