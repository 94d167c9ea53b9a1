"""Progress bars, for people who watch a terminal."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def watched_terminal() -> int | None:
    """Return the file descriptor of stderr if a person watches it, else None."""
    try:
        return sys.stderr.fileno() if sys.stderr.isatty() else None
    except (AttributeError, ValueError, io.UnsupportedOperation):  # no stderr, or a notebook's
        return None


@contextmanager
def progress_bar(
    description: str, total: int, *, worth_showing: bool = True
) -> Iterator[Callable[[int], None]]:
    """Show how far long work has come, on stderr while somebody watches it.

    Args:
        description: what is being done.
        total: how much there is to do, in any unit.
        worth_showing: whether the work is long enough for a bar.

    Yields:
        A function that is told how much has been done since it was last called.

    Example:
    >>> with progress_bar("Counting", total=2) as advance:
    ...     advance(1)
    ...     advance(1)
    """
    if not worth_showing or watched_terminal() is None:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)
