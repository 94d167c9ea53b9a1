"""`nextword presets`: the models that are known by name."""

import dataclasses
import json
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Annotated, Any, NamedTuple

import typer

import nextword
from nextword.cli.console import print_note
from nextword.errors import did_you_mean
from nextword.presets import builtin_presets

HELP = (
    "List the models that are known by name: all families at a glance, or the models of whatever "
    "is searched for.\n\n"
    "A model that is not on the list loads as well, from a hub, a directory or a .gguf file: "
    "'nextword generate --help' shows how to name it."
    """

[bold]Examples[/bold]
  nextword presets
  nextword presets gemma
  nextword presets chat math
  nextword presets --all --json"""
)

_SUFFIXES = ("", "K", "M", "B", "T")
_NUMBERS = ("models", "parameters")
_SHOWN_NAMES = 3

Row = dict[str, Any]


class Line(NamedTuple):
    """A line of a table: its cells, and whether it is about something that is supported."""

    cells: tuple[str, ...]
    is_supported: bool


def presets(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Show the models with all of these in their name, family or description.",
            show_default=False,
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Show every model.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for other programs, with the handles.")
    ] = False,
) -> None:
    """List the built-in presets."""
    loadable = nextword.models.Task.presets
    rows: list[Row] = [
        {"name": name, "supported": name in loadable, **dataclasses.asdict(preset)}
        for name, preset in builtin_presets().items()
    ]
    rows = [row for row in rows if all(word.lower() in _searched(row) for word in words or ())]
    if not rows:
        known = {value for row in builtin_presets().items() for value in (row[0], row[1].family)}
        raise ValueError(
            f"No built-in preset has {' and '.join(map(repr, words or ()))} in its name, family or "
            f"description.{did_you_mean(' '.join(words or ()), sorted(known))}"
        )
    if as_json:
        print(json.dumps(rows, indent=2))
    elif words or everything:
        _print_models(rows)
    else:
        _print_families(rows)
        print_note("'nextword presets FAMILY' shows the models of a family, --all those of all.")


def _searched(row: Row) -> str:
    return f"{row['name']} {row['family']} {row['description']}".lower()


def _print_models(rows: list[Row]) -> None:
    lines = [
        Line(
            (
                row["name"],
                human_count(row["params"]),
                "yes" if row["supported"] else "not yet",
                row["description"],
            ),
            row["supported"],
        )
        for row in rows
    ]
    _print_table(("name", "parameters", "supported", "description"), lines)


def _print_families(rows: list[Row]) -> None:
    """Print a line for each family, those that are supported first."""
    lines = []
    for family, group in groupby(sorted(rows, key=itemgetter("family")), itemgetter("family")):
        models = list(group)
        sizes = [model["params"] for model in models]
        ends = human_count(min(sizes)), human_count(max(sizes))
        span = " to ".join(dict.fromkeys(ends))
        names = ", ".join(model["name"] for model in models[:_SHOWN_NAMES])
        if len(models) > _SHOWN_NAMES:
            names += ", …"
        is_supported = any(model["supported"] for model in models)
        shown = names if is_supported else "not supported yet"
        lines.append(Line((family, str(len(models)), span, shown), is_supported))
    lines.sort(key=lambda line: not line.is_supported)
    _print_table(("family", "models", "parameters", "names"), lines)


def _print_table(titles: Iterable[str], lines: Iterable[Line]) -> None:
    """Print a table. What is not supported is dim."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, justify="right" if title in _NUMBERS else "left", overflow="fold")
    for line in lines:
        table.add_row(*map(Text, line.cells), style=None if line.is_supported else "dim")
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
