"""The `nextword` command: thin commands that know nothing of how a model computes.

Importing this package costs next to nothing, and so does `nextword --help`: Keras and its backend
are imported by a command that needs a model, when it runs.
"""

import io
import sys

__all__ = ["main"]


def main() -> None:
    """Run the `nextword` command on `sys.argv`, and exit with its status."""
    # A character that the terminal cannot show must not end an answer, and a byte that is no text
    # must reach the check that says so.
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "replace"),
        (sys.stderr, "replace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)

    from nextword.cli.app import app

    app(prog_name="nextword")
