"""What must hold of the parts of a tokenizer.json that say how text is changed and cut.

The library takes them as they are. It bounds neither the memory that a rule can ask for nor the
time: a regular expression may need the square of a text's length, or worse.
"""

import json
from collections.abc import Iterator
from typing import Any

from nextword.errors import PresetError

_MAX_STEPS = 256
_MAX_STRING = 4096
_MAX_GROWTH = 64
_MAX_CHARSMAP = 4 * 2**20

_BINARY = "precompiled_charsmap"


def check_section(kind: str, section: Any, name: str) -> None:
    """Check the sizes in a normalizer or pre-tokenizer.

    Args:
        kind: what the section is called.
        section: the parsed JSON of it.
        name: whose tokenizer it is, for messages.

    Raises:
        PresetError: it has more steps or longer strings than any tokenizer needs, or makes a text
            many times as long.
    """
    growth, steps = 1, 0
    for key, value in _entries(section):
        if isinstance(value, str) and len(value) > (
            _MAX_CHARSMAP if key == _BINARY else _MAX_STRING
        ):
            raise _too_much(kind, name, f"a string of {len(value)} characters")
        if isinstance(value, dict):
            steps += 1
            growth *= _growth(value)
        if steps > _MAX_STEPS:
            raise _too_much(kind, name, f"more than {_MAX_STEPS} steps")
        if growth > _MAX_GROWTH:
            raise _too_much(kind, name, f"steps that can make a text {growth} times as long")


def regular_expressions(component: Any) -> set[str]:
    """Return the regular expressions in a normalizer or pre-tokenizer of the library.

    Args:
        component: the library's object, or `None`.
    """
    if component is None:
        return set()
    section = json.loads(component.__getstate__())
    return {value for key, value in _entries(section) if key == "Regex"}


def _entries(section: Any) -> Iterator[tuple[str, Any]]:
    """Yield the keys and values of all objects in a section; the section itself has no key."""
    waiting = [("", section)]
    while waiting:
        key, value = waiting.pop()
        yield key, value
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, item) for item in value]


def _growth(step: dict[str, Any]) -> int:
    """Return how many times as long a step can make a text."""
    pattern, content = step.get("pattern"), step.get("content")
    if step.get("type") != "Replace" or not isinstance(content, str):
        return 1
    text = pattern.get("String") if isinstance(pattern, dict) else None
    # A regular expression may match no character at all, everywhere.
    return max(1, len(content) // len(text) if isinstance(text, str) and text else len(content) + 1)


def _too_much(kind: str, name: str, what: str) -> PresetError:
    return PresetError(
        f"The {kind} in the tokenizer.json of {name!r} cannot be used: it has {what}."
    )
