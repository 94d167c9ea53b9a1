"""What a handle may look like, and its parts: text is checked here before anything is done with it.

A handle is the text `scheme://...` that names a preset on a hub. It may come from a command line, a
web form or a file, so it is read by a strict grammar: every part is a plain name, and no part can
climb out of the folder it belongs to. Nothing in this module touches a disk or a network.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from nextword.errors import PresetError, did_you_mean

SYNTAX = {
    "hf": "hf://org/name[@revision][/subfolder]",
    "kaggle": "kaggle://org/model/keras/variant[/version]",
    "pypi": "pypi://package==version/path/in/wheel",
}

_MAX_PATH = 1024
_MAX_NAME = 255  # the longest name of one file on every common file system
_SHOWN = 120

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SLUG = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
_REFS = re.compile(r"(refs/(?:pr|convert)/[^/]*)(?:/(.*))?", re.DOTALL)
_KAGGLE_VERSION = re.compile(r"[1-9][0-9]{0,8}")
# The names and versions of PEP 508 and PEP 440, without wildcards: a handle means one release.
_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_RELEASE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.!+_-]{0,98}[A-Za-z0-9])?")


@dataclass(frozen=True)
class HuggingFaceHandle:
    """A folder, or one `.gguf` file, of a repository on the Hugging Face Hub.

    Attributes:
        repository: `"org/name"`.
        revision: a branch, a tag or a commit; `None` is the repository's main branch.
        path: the folder or file inside the repository, `""` for its root.
    """

    repository: str
    revision: str | None = None
    path: str = ""

    @property
    def gguf_name(self) -> str | None:
        """The name of the file, where the handle names one `.gguf` file."""
        return _gguf_name(self.path)


@dataclass(frozen=True)
class KaggleHandle:
    """A model variant on Kaggle.

    Attributes:
        variant: `"org/model/framework/variant"`.
        version: its version, counted from 1; `None` is the newest.
    """

    variant: str
    version: int | None = None

    def __str__(self) -> str:
        return self.variant if self.version is None else f"{self.variant}/{self.version}"


@dataclass(frozen=True)
class WheelHandle:
    """A folder, or one `.gguf` file, inside a wheel on the Python package index.

    Attributes:
        package: the project's name on the index.
        version: the exact release.
        path: the folder or file inside the wheel.
    """

    package: str
    version: str
    path: str

    @property
    def gguf_name(self) -> str | None:
        """The name of the file, where the handle names one `.gguf` file."""
        return _gguf_name(self.path)


Handle = HuggingFaceHandle | KaggleHandle | WheelHandle


def show(text: str) -> str:
    r"""Return `text` for use in an error sentence: quoted, escaped, and cut if it is very long.

    What is left out is from the middle, since a path is known by its end.

    >>> show("two\nlines")
    "'two\\nlines'"
    """
    start = _SHOWN // 3
    return repr(text if len(text) <= _SHOWN else f"{text[:start]}…{text[start - _SHOWN :]}")


def check_filename(filename: str) -> str:
    """Check that a name stays inside the preset it is looked up in, and return it.

    Names of files are read from files too (the shard index of a checkpoint), so they are as hostile
    as handles. What is allowed is a relative path whose parts are joined by `/`.

    Args:
        filename: a name such as `"config.json"` or `"assets/tokenizer/merges.txt"`.

    Raises:
        PresetError: it is empty, absolute, too long, or has a part `.` or `..`, a backslash, a
            colon or an unprintable character.
        TypeError: it is not a string.

    Example:
        >>> check_filename("assets/tokenizer/merges.txt")
        'assets/tokenizer/merges.txt'
    """
    if not isinstance(filename, str):
        raise TypeError(f"filename must be a string. Received: filename={filename!r}.")
    if not _is_relative_path(filename):
        raise PresetError(
            "A file of a preset is named by a relative path inside it, such as "
            f"'assets/tokenizer/merges.txt'. Received: filename={show(filename)}."
        )
    return filename


def parse_handle(text: str) -> Handle | None:
    """Read a handle.

    Args:
        text: what the user wrote.

    Returns:
        The handle, or `None` where `text` has no `scheme://` and so must be something else: a
        built-in name or a path.

    Raises:
        PresetError: the scheme is unknown, or the rest does not follow its grammar.

    Example:
        >>> parse_handle("hf://HuggingFaceTB/SmolLM2-135M@main/onnx")
        HuggingFaceHandle(repository='HuggingFaceTB/SmolLM2-135M', revision='main', path='onnx')
        >>> parse_handle("kaggle://keras/gpt2/keras/gpt2_base_en/3")
        KaggleHandle(variant='keras/gpt2/keras/gpt2_base_en', version=3)
        >>> parse_handle("./my-preset") is None
        True
    """
    match = _SCHEME.fullmatch(text)
    if match is None:
        return None
    scheme, rest = match.groups()
    parse = _PARSERS.get(scheme)
    if parse is None:
        raise PresetError(
            f"{show(scheme + '://')} is not a place that presets come from."
            f"{did_you_mean(scheme, SYNTAX)} Valid handles are {', '.join(SYNTAX.values())}. "
            f"Received: preset={show(text)}."
        )
    handle = parse(rest)
    if handle is None:
        raise PresetError(
            f"A handle of this kind has the form {SYNTAX[scheme]}, of plain names without "
            f"'..', colons, backslashes or unprintable characters. Received: preset={show(text)}."
        )
    return handle


def parse_destination(uri: str) -> HuggingFaceHandle | KaggleHandle:
    """Read where a preset is to be uploaded to.

    Args:
        uri: `hf://[user/]model` or `kaggle://user/model/keras/variation`.

    Returns:
        The handle. On the Hugging Face Hub a `repository` without a user belongs to whoever is
        logged in.

    Raises:
        PresetError: it is neither, or names a version or a part of a model.
        TypeError: it is not a string.

    Example:
        >>> parse_destination("hf://my-model")
        HuggingFaceHandle(repository='my-model', revision=None, path='')
    """
    if not isinstance(uri, str):
        raise TypeError(f"`uri` must be a string. Received: uri={uri!r:.80}.")
    scheme, _, rest = uri.partition("://")
    if scheme == "hf":
        organisation, slash, name = rest.rpartition("/")
        if _is_repository(name) and (_SLUG.fullmatch(organisation) or not slash):
            return HuggingFaceHandle(rest)
    if scheme == "kaggle":
        handle = _parse_kaggle(rest)
        if handle is not None and handle.version is None:
            return handle
    raise PresetError(
        "`uri` must be hf://[user/]model or kaggle://user/model/keras/variation, without a version."
        f" Received: uri={show(uri)}."
    )


def _parse_huggingface(rest: str) -> HuggingFaceHandle | None:
    organisation, _, rest = rest.partition("/")
    name, at, tail = _split_at_first(rest, "/@")
    revision: str | None = None
    path: str | None = tail if at == "/" else None
    if at == "@":
        revision, path = _split_revision(tail)
        if not all(_REVISION.fullmatch(part) for part in revision.split("/")):
            return None
    if not (_SLUG.fullmatch(organisation) and _is_repository(name)):
        return None
    if path is not None and not _is_relative_path(path):
        return None
    return HuggingFaceHandle(f"{organisation}/{name}", revision, path or "")


def _split_revision(text: str) -> tuple[str, str | None]:
    # Only references to pull requests and conversions have slashes of their own.
    if references := _REFS.fullmatch(text):
        return references[1], references[2]
    revision, slash, path = text.partition("/")
    return revision, path if slash else None


def _is_repository(name: str) -> bool:
    return _SLUG.fullmatch(name) is not None and not name.endswith(".git")


def _parse_kaggle(rest: str) -> KaggleHandle | None:
    *names, last = rest.split("/")
    version: int | None = None
    if len(names) == 4:
        if not _KAGGLE_VERSION.fullmatch(last):
            return None
        version = int(last)
    else:
        names.append(last)
    if len(names) != 4 or not all(map(_SLUG.fullmatch, names)):
        return None
    return KaggleHandle("/".join(names), version)


def _parse_wheel(rest: str) -> WheelHandle | None:
    requirement, _, path = rest.partition("/")
    package, _, version = requirement.partition("==")
    if not (_PACKAGE.fullmatch(package) and _RELEASE.fullmatch(version)):
        return None
    return WheelHandle(package, version, path) if _is_relative_path(path) else None


_PARSERS = {"hf": _parse_huggingface, "kaggle": _parse_kaggle, "pypi": _parse_wheel}


def _split_at_first(text: str, separators: str) -> tuple[str, str, str]:
    """Like `str.partition`, at whichever of several one-character separators comes first."""
    for index, character in enumerate(text):
        if character in separators:
            return text[:index], character, text[index + 1 :]
    return text, "", ""


def _is_relative_path(path: str) -> bool:
    # A colon is how Windows writes drives and alternate streams; no checkpoint has one in a name.
    return len(path) <= _MAX_PATH and all(
        part not in {"", ".", ".."}
        and len(part.encode(errors="replace")) <= _MAX_NAME
        and part.isprintable()
        and not set(part) & set("\\:")
        for part in path.split("/")
    )


def _gguf_name(path: str) -> str | None:
    name = PurePosixPath(path).name
    return name if name.lower().endswith(".gguf") else None
