"""Read JSON that is not trusted: bounded in size, and with one meaning only."""

import gc
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from nextword.presets.file_checks import cannot_read, check_file, not_valid

MAX_JSON_BYTES = 16 * 2**20  # the shard index of a model of 100,000 tensors fits

_MAX_DIGITS = 400  # what a float can hold; the time to convert grows with the square
_EXPECTED = "a JSON file"
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: the file.
        max_bytes: the largest file to accept.

    Returns:
        The object. A byte order mark at the start of the file is ignored.

    Raises:
        PresetError: the file cannot be read, is too large, is not UTF-8, is not a JSON object, has
            a key twice in one object, a number that is not finite, half of a surrogate pair in a
            string, or is nested beyond reason. Where it is something else, such as an HTML page or
            a Git LFS pointer, the error says so.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = Path(directory) / "config.json"
        ...     _ = path.write_text('{"model_type": "llama"}')
        ...     read_json(path)
        {'model_type': 'llama'}
    """
    check_file(path, max_bytes=max_bytes)
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise cannot_read(path, error) from error
    try:
        return parse_json(data[:max_bytes])
    except ValueError as error:
        raise not_valid(path, _EXPECTED, error) from error


def parse_json(data: bytes) -> dict[str, Any]:
    """Parse one JSON object, as `read_json` does.

    Args:
        data: the object, in UTF-8.

    Raises:
        ValueError: says what is wrong with it.

    Example:
        >>> parse_json(b'{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ...
        ValueError: the key 'a' occurs twice in one object
    """
    try:
        with _garbage_left():
            value = json.loads(
                data.decode("utf-8-sig"),
                object_pairs_hook=_object,
                parse_int=_integer,
                parse_float=_finite,
                parse_constant=_refuse_constant,
            )
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from error
    except RecursionError as error:
        raise ValueError("its objects and arrays are nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"it holds {_kind(value)} where an object is expected")
    if _SURROGATE_ESCAPE.search(data):
        _check_surrogates(value)
    return value


@contextmanager
def _garbage_left() -> Iterator[None]:
    """Leave garbage where it is for a while.

    Millions of small objects, none of them garbage, make Python look through all of them again and
    again: most of the time that a large file takes.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {key[:80]!r} occurs twice in one object")
    return result


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"it holds a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:80]} is too large")
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"it holds {text}, which is not a JSON number")


def _check_surrogates(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a string in it has half of a surrogate pair") from error


def _kind(value: Any) -> str:
    if isinstance(value, list):
        return "an array"
    return "a string" if isinstance(value, str) else f"the value {str(value)[:80]}"
