"""Upload a preset to a model hub, through the hub's own client library.

Whatever is wrong with the directory is found before anything is sent, and nothing is sent that is
no part of a preset: what has once been public stays so.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from nextword.errors import PresetError
from nextword.presets.checkpoint import open_checkpoint
from nextword.presets.file_checks import cannot_read
from nextword.presets.handles import HuggingFaceHandle, parse_destination, show
from nextword.presets.hub_clients import first_line, http_status, kagglehub_client
from nextword.presets.model_card import ModelCard
from nextword.presets.sources import LocalDirectory

_CARD = "README.md"
# All that presets, tokenizers and their documents are made of: no code, no pickles, no settings.
_SUFFIXES = frozenset([".h5", ".jinja", ".json", ".md", ".model", ".safetensors", ".spm", ".txt"])
_NAMES = frozenset(["LICENSE", "NOTICE", ".gitattributes"])
# Files of an earlier upload that would be loaded instead of what is uploaded now, or beside it.
_REPLACED = (".h5", ".json", ".safetensors")


@dataclass(frozen=True)
class _LocalPreset:
    """A directory that holds a whole preset and nothing else."""

    directory: Path
    filenames: list[str]
    card: ModelCard


def upload_preset(uri: str, preset: str | os.PathLike[str]) -> None:
    """Upload a preset to the Hugging Face Hub or to Kaggle.

    The user who is logged in there owns it. On the Hugging Face Hub the preset becomes one commit:
    of an earlier preset in the repository nothing but its history remains, and a model card is
    written if there is none. On Kaggle it becomes a new version of the model.

    Args:
        uri: `hf://[user/]model` or `kaggle://user/model/keras/variation`.
        preset: the directory of the preset, as `save_to_preset` writes it.

    Raises:
        PresetError: the directory is no whole preset or holds something else, nobody is logged in,
            or the upload fails.
        TypeError: an argument is of the wrong type.

    Example:
    >>> upload_preset("hf://my-name/my-model", "./my-preset")
    Traceback (most recent call last):
    ...
    nextword.errors.PresetError: `preset` must be the directory of a preset. Received: \
preset='./my-preset', which does not exist.
    """
    handle = parse_destination(uri)
    local = _checked_preset(preset)
    if isinstance(handle, HuggingFaceHandle):
        _upload_to_huggingface(handle, local)
    else:
        _upload_to_kaggle(handle.variant, local)


def _checked_preset(preset: str | os.PathLike[str]) -> _LocalPreset:
    if not isinstance(preset, str | os.PathLike):
        raise TypeError(
            f"`preset` must be the path of a directory. Received: preset={preset!r:.80}."
        )
    try:
        directory = Path(preset).expanduser()
    except RuntimeError:  # there is no home directory to expand "~" to
        directory = Path(preset)
    if not directory.is_dir():
        raise PresetError(
            f"`preset` must be the directory of a preset. Received: preset={show(str(preset))}, "
            f"which {'is a file' if directory.exists() else 'does not exist'}."
        )
    filenames = sorted(_checked_files(directory))
    source = LocalDirectory(directory, str(preset))
    return _LocalPreset(directory, filenames, ModelCard.of(source, open_checkpoint(source)))


def _checked_files(directory: Path) -> Iterator[str]:
    """Yield the names of the files below a directory, each of which may be a part of a preset."""
    for folder, subfolders, names in os.walk(directory, onerror=_refuse_to_skip):
        for path in (Path(folder, name) for name in [*subfolders, *names]):
            name = path.relative_to(directory).as_posix()
            problem = _problem(path, directory.resolve())
            if problem is not None:
                raise PresetError(
                    f"A preset to upload must hold nothing else. Received: {show(str(directory))} "
                    f"with {show(name)}, which is {problem}."
                )
            if path.is_file():
                yield name


def _refuse_to_skip(error: OSError) -> NoReturn:
    raise cannot_read(Path(error.filename), error) from error


def _problem(path: Path, inside: Path) -> str | None:
    """Return why a file or folder of a preset must not be uploaded, None if it may be."""
    if path.is_symlink() and (path.is_dir() or not path.resolve().is_relative_to(inside)):
        return "a link that leads out of it or to a directory"
    is_known = path.is_dir() or path.suffix.lower() in _SUFFIXES
    if path.name not in _NAMES and (path.name.startswith(".") or not is_known):
        return "no part of a preset"
    return None if path.is_file() or path.is_dir() else "no file that can be read"


def _upload_to_huggingface(handle: HuggingFaceHandle, local: _LocalPreset) -> None:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(library_name="nextword")
    repository = handle.repository
    try:
        repository = api.create_repo(repository, exist_ok=True).repo_id
        stored = set(api.list_repo_files(repository))
        content: dict[str, str | bytes] = {
            name: str(local.directory / name) for name in local.filenames
        }
        if _CARD not in stored | content.keys():
            content[_CARD] = local.card.markdown(repository).encode()
        stale = (n for n in stored - content.keys() if PurePosixPath(n).suffix in _REPLACED)
        api.create_commit(
            repository,
            [
                *(CommitOperationAdd(name, data) for name, data in sorted(content.items())),
                *(CommitOperationDelete(name) for name in sorted(stale)),
            ],
            commit_message="Upload a preset with nextword",
        )
    # The client's exceptions differ in family from version to version (requests, httpx).
    except Exception as error:
        raise _huggingface_failure(repository, error) from error


def _huggingface_failure(repository: str, error: BaseException) -> PresetError:
    from huggingface_hub import constants, errors

    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # from one of its threads
        error = error.__cause__
    status = http_status(error)
    if status == 401:
        reason = (
            f"{constants.ENDPOINT} accepts no upload without a valid token: set HF_TOKEN or run "
            "`hf auth login`"
        )
    elif status == 403:
        reason = (
            f"{constants.ENDPOINT} says that the token in HF_TOKEN or `hf auth login` may not "
            "write there"
        )
    elif isinstance(error, errors.OfflineModeIsEnabled):
        reason = "the client is offline (HF_HUB_OFFLINE)"
    elif status is not None:
        reason = f"{constants.ENDPOINT} answered with HTTP status {status} ({first_line(error)})"
    else:
        reason = f"the upload failed ({first_line(error)})"
    return PresetError(f"Cannot upload to 'hf://{repository}': {reason}.")


def _upload_to_kaggle(variant: str, local: _LocalPreset) -> None:
    try:
        kagglehub_client().model_upload(variant, str(local.directory))
    # As above: the families of the client's exceptions are its own affair.
    except Exception as error:
        status = http_status(error)
        if status in {401, 403}:
            reason = (
                "Kaggle refused access: set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, "
                f"to those of {show(variant.split('/')[0])} or of one who may write there"
            )
        elif status is not None:
            reason = f"Kaggle answered with HTTP status {status}"
        else:
            reason = f"the upload failed ({first_line(error)})"
        raise PresetError(f"Cannot upload to 'kaggle://{variant}': {reason}.") from error
