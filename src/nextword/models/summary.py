"""The table of a preprocessor that a model's `summary` shows above its layers."""

import io
from typing import Any

import rich.box
import rich.console
import rich.table


def preprocessor_summary(preprocessor: Any, *, width: int | None = None) -> str:
    """Return a table of a preprocessor and its tokenizer as text.

    Args:
        preprocessor: of a model.
        width: of the text, in characters; as the terminal's by default.
    """
    table = rich.table.Table("Preprocessor", "Settings", box=rich.box.HEAVY_HEAD, show_lines=True)
    tokenizer = getattr(preprocessor, "tokenizer", None)
    if tokenizer is not None:
        table.add_row(type(tokenizer).__name__, f"vocabulary size: {tokenizer.vocabulary_size():,}")
    settings = {
        name: value
        for name in ("sequence_length", "add_start_token", "add_end_token")
        if (value := getattr(preprocessor, name, None)) is not None
    }
    described = "\n".join(f"{name}: {value}" for name, value in settings.items())
    table.add_row(type(preprocessor).__name__, described)
    text = io.StringIO()
    console = rich.console.Console(file=text, width=width, color_system=None)
    console.print(table)
    return text.getvalue()
