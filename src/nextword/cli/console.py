"""What a command writes: plain text on stdout; progress, statistics and errors on stderr."""

import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE

_PLAIN_CONTROLS = frozenset("\n\t")


def stderr_console() -> "Console":
    """Return a console on stderr that never breaks a line by itself."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_error(message: str) -> None:
    """Print `message` on stderr as one red line, whatever line breaks or controls it holds."""
    from rich.text import Text

    line = without_controls(" ".join(message.split()))
    stderr_console().print(Text(f"Error: {line}", style="red"))


def print_note(message: str, *, only_terminal: bool = False) -> None:
    """Print `message` on stderr as one dim line; on request, only if stderr is a terminal."""
    from rich.text import Text

    console = stderr_console()
    if console.is_terminal or not only_terminal:
        console.print(Text(without_controls(message), style="dim"))


def write(text: str) -> None:
    """Write a piece of generated text to stdout and show it at once.

    Text for a terminal goes through `without_controls`; a file or a pipe receives it as it is.
    """
    sys.stdout.write(without_controls(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def without_controls(text: str) -> str:
    """Replace the control characters of `text`, line feed and tab excepted, by U+FFFD.

    What a model or a file says must not be able to command the terminal that shows it: escape
    sequences retitle windows, write to the clipboard and hide text.
    """
    if text.isprintable():
        return text
    return "".join(
        "\ufffd" if unicodedata.category(char) == "Cc" and char not in _PLAIN_CONTROLS else char
        for char in text
    )


def discard_stdout() -> None:
    """Point stdout at nothing, so that the flush at exit cannot fail once more on a closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@contextmanager
def spinner(message: str, *, quiet: bool) -> Iterator[None]:
    """Show a spinner while the block runs, if stderr is a terminal and not `quiet`.

    The block must leave stdout and stderr alone: two cannot draw on one line.
    """
    console = stderr_console()
    if quiet or not console.is_terminal:
        yield
        return
    with console.status(message):
        yield
