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
    settings = getattr(preprocessor, "config_keys", ("sequence_length",))
    described = "\n".join(
        f"{name}: {getattr(preprocessor, name)}" for name in settings if hasattr(preprocessor, name)
    )
    table.add_row(type(preprocessor).__name__, described)
    text = io.StringIO()
    console = rich.console.Console(file=text, width=width, color_system=None)
    console.print(table)
    return text.getvalue()
