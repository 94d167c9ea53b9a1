"""Presets on the Hugging Face Hub and on Kaggle, through those hubs' own client libraries.

The clients bring the user's settings with them — token, endpoint, proxy, cache, offline mode — show
a progress bar, and keep an interrupted download apart from a finished one. What is added here: a
preset's files all come from one commit or version, however long it takes to fetch them; a file that
the preset lacks (`None`) is kept apart from one that cannot be had (an error); and what was learned
online is known offline. The client libraries are imported when a file is first asked for.
"""

import re
from contextlib import suppress
from pathlib import Path, PurePosixPath

from nextword.errors import PresetError
from nextword.presets.cache import cache_directory
from nextword.presets.handles import HuggingFaceHandle, KaggleHandle, check_filename
from nextword.presets.hub_clients import first_line, http_status, kagglehub_client
from nextword.presets.sources import PresetSource

_COMMIT = re.compile(r"[0-9a-f]{40}")


class HuggingFaceSource(PresetSource):
    """A preset in a repository on the Hugging Face Hub.

    Args:
        handle: the repository, revision, and folder or `.gguf` file in it.
        name: the preset as the user wrote it.
    """

    def __init__(self, handle: HuggingFaceHandle, name: str) -> None:
        self.handle = handle
        self.name = name
        self._revision = handle.revision
        self._found: dict[str, Path | None] = {}

    def __repr__(self) -> str:
        return f"HuggingFaceSource({self.name!r})"

    def find(self, filename: str) -> Path | None:
        check_filename(filename)
        if self.handle.gguf_name is None:
            path = str(PurePosixPath(self.handle.path) / filename)
        elif filename == self.handle.gguf_name:
            path = self.handle.path
        else:
            return None
        if path not in self._found:
            self._found[path] = self._fetch(path)
        return self._found[path]

    def filenames(self) -> list[str] | None:
        return None if self.handle.gguf_name is None else [self.handle.gguf_name]

    def gguf_path(self) -> Path | None:
        return None if self.handle.gguf_name is None else self.path(self.handle.gguf_name)

    def _fetch(self, path: str) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        # A commit never changes, so what is known to be missing from it needs no second request.
        if _is_commit(self._revision) and self._is_known_missing(path):
            return None
        try:
            local = Path(
                hf_hub_download(
                    self.handle.repository, path, revision=self._revision, library_name="nextword"
                )
            )
        except LocalEntryNotFoundError as error:  # the hub was not asked, or did not answer
            if self._is_known_missing(path):
                return None
            raise self._failure(path, error.__cause__ or error) from error
        except EntryNotFoundError:
            return None
        # The client's exceptions differ in family from version to version (requests, httpx), and
        # whatever stops it means the same to the user: this file could not be had.
        except Exception as error:
            raise self._failure(path, error) from error
        commit = local.parents[path.count("/")].name
        if _is_commit(commit):
            self._revision = commit
        return local

    def _is_known_missing(self, path: str) -> bool:
        from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

        cached = try_to_load_from_cache(self.handle.repository, path, revision=self._revision)
        return cached is _CACHED_NO_EXIST

    def _failure(self, path: str, error: BaseException) -> PresetError:
        from huggingface_hub import constants, errors

        repository = f"{constants.ENDPOINT}/{self.handle.repository}"
        status = http_status(error)
        if isinstance(error, errors.RevisionNotFoundError):
            reason = f"{repository} has no revision {self.handle.revision or 'main'!r}"
        elif isinstance(error, errors.GatedRepoError) or status == 403:
            reason = (
                f"access to {repository} was refused: if it is gated, accept its terms on that "
                "page, then set HF_TOKEN or run `hf auth login`"
            )
        elif isinstance(error, errors.RepositoryNotFoundError):
            reason = (
                f"{repository} does not exist, or is private: check the name, and for a private "
                "repository set HF_TOKEN or run `hf auth login`"
            )
        elif status == 401:
            reason = f"{constants.ENDPOINT} did not accept the token in HF_TOKEN or `hf auth login`"
        elif isinstance(error, errors.OfflineModeIsEnabled):
            reason = "the client is offline (HF_HUB_OFFLINE) and the file is not in its cache"
        elif status is not None:
            reason = f"{constants.ENDPOINT} answered with HTTP status {status}"
        else:
            reason = f"the download from {constants.ENDPOINT} failed ({first_line(error)})"
        return PresetError(f"Cannot get {path!r} of preset {self.name!r}: {reason}.")


class KaggleSource(PresetSource):
    """A preset that is a model variant on Kaggle.

    Args:
        handle: the variant and version.
        name: the preset as the user wrote it.
    """

    def __init__(self, handle: KaggleHandle, name: str) -> None:
        self.handle = handle
        self.name = name
        self._found: dict[str, Path | None] = {}

    def __repr__(self) -> str:
        return f"KaggleSource({self.name!r})"

    def find(self, filename: str) -> Path | None:
        check_filename(filename)
        if filename not in self._found:
            self._found[filename] = self._fetch(filename)
        return self._found[filename]

    def filenames(self) -> list[str] | None:
        return None

    def _fetch(self, filename: str) -> Path | None:
        if self._is_known_missing(filename):
            return None
        try:
            local = Path(kagglehub_client().model_download(str(self.handle), path=filename))
        # As above: the families of the client's exceptions are its own affair.
        except Exception as error:
            if not _is_missing_on_kaggle(error):
                raise self._failure(filename, error) from error
            if http_status(error) == 404 and not any(self._found.values()):
                self._check_model_exists(filename)
            self._remember_missing(filename)
            return None
        # Other files then come from this same version, even if a newer one is published meanwhile.
        version = local.parents[filename.count("/")].name
        if self.handle.version is None and version.isdecimal():
            self.handle = KaggleHandle(self.handle.variant, int(version))
        return local

    def _check_model_exists(self, filename: str) -> None:
        """Tell "no such file" from "no such model", which Kaggle answers alike with status 404."""
        try:
            newest = _newest_kaggle_version(self.handle)
        except Exception as error:
            raise self._failure(filename, error) from error
        if self.handle.version is not None and self.handle.version > newest:
            raise PresetError(
                f"Preset {self.name!r} does not exist: the newest version of "
                f"'kaggle://{self.handle.variant}' is {newest}."
            )

    def _is_known_missing(self, filename: str) -> bool:
        with suppress(OSError):
            return self._missing_mark(filename).exists()
        return False

    def _missing_mark(self, filename: str) -> Path:
        # Versions on Kaggle never change, but its client does not remember what they lack, and a
        # preset's optional files would be asked for at every start, and not found out offline.
        return cache_directory() / "kaggle" / str(self.handle) / f"{filename}.missing"

    def _remember_missing(self, filename: str) -> None:
        if self.handle.version is None:
            return
        mark = self._missing_mark(filename)
        with suppress(OSError):  # a cache that cannot be written only costs a request next time
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()

    def _failure(self, filename: str, error: BaseException) -> PresetError:
        model = "https://www.kaggle.com/models/" + "/".join(self.handle.variant.split("/")[:2])
        status = http_status(error)
        if status == 404:
            reason = f"Kaggle has no such model; see {model}"
        elif status in {401, 403}:
            reason = (
                f"Kaggle refused access: {model} does not exist, is private, or has terms to "
                "accept on that page; then set KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY"
            )
        elif status is not None:
            reason = f"Kaggle answered with HTTP status {status}"
        else:
            reason = f"the download from Kaggle failed ({first_line(error)})"
            if self.handle.version is None:
                reason += "; a handle that ends in a version is read from the cache when offline"
        return PresetError(f"Cannot get {filename!r} of preset {self.name!r}: {reason}.")


def _newest_kaggle_version(handle: KaggleHandle) -> int:
    from kagglehub.clients import build_kaggle_client
    from kagglehub.handle import parse_model_handle
    from kagglesdk.models.types.model_api_service import ApiGetModelInstanceRequest

    model = parse_model_handle(handle.variant)
    request = ApiGetModelInstanceRequest()
    request.owner_slug = model.owner
    request.model_slug = model.model
    request.framework = model.framework_enum()
    request.instance_slug = model.variation
    with build_kaggle_client() as client:
        return client.models.model_api_client.get_model_instance(request).version_number


def _is_missing_on_kaggle(error: Exception) -> bool:
    # The second is what kagglehub says in a Kaggle or Colab notebook, where models are mounted.
    return http_status(error) == 404 or "is not present in the model files" in str(error)


def _is_commit(revision: str | None) -> bool:
    return revision is not None and _COMMIT.fullmatch(revision) is not None
