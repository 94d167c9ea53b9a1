"""Which lines of nextword an input reaches, so that inputs that reach new ones are kept."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import nextword

_SOURCE = str(Path(nextword.__file__).parent)
_TRACED_CALLS = 50  # of one function, for one input: the first ones show the most


class Coverage:
    """The lines that have been reached since it was made.

    Python 3.12 and later report every line once, at next to no cost; before, lines are traced.
    """

    def __init__(self) -> None:
        self._reached: set[tuple[CodeType, int]] = set()
        self._calls: Counter[CodeType] = Counter()
        if sys.version_info >= (3, 12):
            self._monitoring = sys.monitoring
            self._monitoring.use_tool_id(self._monitoring.COVERAGE_ID, "fuzz")

    def __len__(self) -> int:
        return len(self._reached)

    def close(self) -> None:
        """Let go of the interpreter."""
        if sys.version_info >= (3, 12):
            self._monitoring.free_tool_id(self._monitoring.COVERAGE_ID)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Note the lines that are reached inside."""
        if sys.version_info >= (3, 12):
            events, id = self._monitoring.events, self._monitoring.COVERAGE_ID
            self._monitoring.register_callback(id, events.LINE, self._see)
            self._monitoring.set_events(id, events.LINE)
            try:
                yield
            finally:
                self._monitoring.set_events(id, 0)
            return
        self._calls.clear()
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def _see(self, code: CodeType, line: int) -> Any:
        if code.co_filename.startswith(_SOURCE):
            self._reached.add((code, line))
        return self._monitoring.DISABLE

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(_SOURCE):
            return None
        self._calls[code] += 1
        return self._trace_lines if self._calls[code] <= _TRACED_CALLS else None

    def _trace_lines(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self._reached.add((frame.f_code, frame.f_lineno))
        return self._trace_lines
