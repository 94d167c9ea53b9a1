"""The errors that nextword raises for bad input, and the hints that go with them."""

import difflib
from collections.abc import Iterable


class PresetError(ValueError):
    """A preset cannot be found, is incomplete, or holds something that must not be trusted."""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return a hint that names the closest candidates, ready to append to an error sentence.

    Args:
        name: what the user wrote.
        candidates: the valid spellings.

    Returns:
        `" Did you mean 'a' or 'b'?"` (with its leading space), or `""` where nothing comes close.

    Example:
    >>> did_you_mean("gredy", ["greedy", "random"])
    " Did you mean 'greedy'?"
    """
    close = difflib.get_close_matches(name, list(candidates), n=3)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
