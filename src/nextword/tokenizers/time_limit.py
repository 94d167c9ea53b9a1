"""A limit on the time that native code takes, which nothing can interrupt."""

import threading
from collections.abc import Callable
from typing import Any


class TimeLimit:
    """Runs calls of native code that may never end, and gives up waiting for those that do not.

    A call that is given up goes on in its thread until it ends or the process does. So that there
    is never more than one of them, all later calls are refused.

    Args:
        seconds: how long a call may take, whatever it is given.
        seconds_per_item: how much longer, for each item that it is given.

    Example:
    >>> TimeLimit(seconds=10, seconds_per_item=1e-3).run(lambda: sum([1, 2]), items=2)
    3
    """

    def __init__(self, *, seconds: float, seconds_per_item: float) -> None:
        self._seconds = seconds
        self._seconds_per_item = seconds_per_item
        self._is_exceeded = False

    def run(self, call: Callable[[], Any], *, items: int) -> Any:
        """Return what a call returns.

        Args:
            call: must let other threads run.
            items: number of items that it is given.

        Raises:
            TimeoutError: it took too long, or one before it did.
        """
        seconds = self._seconds + self._seconds_per_item * items
        outcome: list[tuple[Any, BaseException | None]] = []

        def run() -> None:
            try:
                outcome.append((call(), None))
            except BaseException as error:
                outcome.append((None, error))

        if not self._is_exceeded:
            # A daemon, which does not keep the process from ending.
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            thread.join(seconds)
        if not outcome:
            self._is_exceeded = True
            raise TimeoutError(f"it took more than the {seconds:.0f} seconds that it may take")
        value, error = outcome[0]
        if error is not None:
            raise error
        return value
