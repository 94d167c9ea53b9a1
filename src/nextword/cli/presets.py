"""`nextword presets`: the models that are known by name."""

import dataclasses
import json
from typing import Annotated

import typer

from nextword.presets import builtin_presets

HELP = (
    "List the models that are known by name, with where their files come from.\n\n"
    "A model that is not on the list loads as well, from a hub, a directory or a .gguf file: "
    "'nextword generate --help' shows how to name it."
    """

[bold]Examples[/bold]
  nextword presets
  nextword presets --json"""
)

_SUFFIXES = ("", "K", "M", "B", "T")


def presets(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for other programs.")
    ] = False,
) -> None:
    """List the built-in presets."""
    rows = [
        {"name": name, **dataclasses.asdict(preset)} for name, preset in builtin_presets().items()
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("description")
    table.add_column("handle", overflow="fold")
    for row in rows:
        table.add_row(
            row["name"], human_count(row["params"]), row["description"], Text(row["handle"])
        )
    Console().print(table)


def human_count(number: int) -> str:
    """Return a count in three significant digits and a suffix for its thousands.

    Example:
    >>> human_count(134_515_008)
    '135M'
    """
    value = float(number)
    for suffix in _SUFFIXES[:-1]:
        text = f"{value:.3g}"
        if float(text) < 1000:
            return text + suffix
        value /= 1000
    return f"{value:.3g}{_SUFFIXES[-1]}"
