"""How much work one rendering of a chat template may do.

The budget belongs to the rendering under way in the current thread or task: Jinja compiles a
template once and runs it from anywhere, so there is no argument to hand it through.
"""

import time
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jinja2.exceptions import SecurityError

MAX_TEXT = 16_000_000
"""Longest text that a template may make, in characters: several million tokens."""

STEP = 512
"""What a loop round or a call costs, in characters."""

_ITEM = 64  # what looking at one item of a container costs, in characters
_MAX_WORK = 1 << 27
_MAX_SECONDS = 5.0
_WORK_BETWEEN_LOOKS_AT_THE_CLOCK = 1 << 16


class Budget:
    """Work left to do, in characters read or made, and processor time."""

    def __init__(self) -> None:
        self._work = _MAX_WORK
        self._deadline = time.thread_time() + _MAX_SECONDS
        self._next_look = _MAX_WORK

    def charge(self, amount: int) -> None:
        """Take `amount`, or raise `SecurityError` where there is not that much."""
        self._work -= amount + 1
        is_late = False
        if self._work < self._next_look:
            self._next_look = self._work - _WORK_BETWEEN_LOOKS_AT_THE_CLOCK
            is_late = time.thread_time() > self._deadline
        if amount > MAX_TEXT or self._work < 0 or is_late:
            raise SecurityError("it takes more time or memory than a chat template may")


_budget: ContextVar[Budget] = ContextVar("budget")


@contextmanager
def new_budget() -> Iterator[None]:
    """Give what runs inside a budget of its own."""
    token = _budget.set(Budget())
    try:
        yield
    finally:
        _budget.reset(token)


def charge(amount: int) -> None:
    """Take `amount` from the budget.

    Raises:
        SecurityError: there is not that much left.
    """
    _budget.get().charge(amount)


def charge_size(*values: Any) -> None:
    """Charge the lengths of strings and containers, but not what is in the containers."""
    charge(sum(len(value) for value in values if isinstance(value, str | list | tuple | dict)))


def charge_contents(*values: Any) -> tuple[int, int]:
    """Charge what values hold, all the way down: a bound of how long they are as text.

    A list that holds one large list many times is small in memory and large as text.

    Args:
        *values: anything.

    Returns:
        How many characters are in their strings, and how many values there are.
    """
    budget = _budget.get()
    characters = items = 0
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        size = 0
        if isinstance(value, str):
            size = len(value)
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | KeysView | ValuesView | ItemsView):
            waiting += value
        budget.charge(size + _ITEM)
        characters += size
        items += 1
    return characters, items
