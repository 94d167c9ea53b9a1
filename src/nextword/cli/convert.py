"""`nextword convert`: a model in another file format."""

import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from nextword.cli import console, options

HELP = (
    "Write a model in another file format, for llama.cpp, for transformers or for KerasHub.\n\n"
    "SRC is whatever 'nextword generate --preset' takes. A .gguf file is one file with everything "
    "in it, which llama.cpp and its kin run; a Keras preset is a directory that KerasHub loads. "
    "A conversion that fails or is interrupted leaves DST as it was."
    """

[bold]Examples[/bold]
  nextword convert hf://Qwen/Qwen2.5-0.5B-Instruct qwen.gguf --to gguf --dtype q8_0
  nextword convert ./my-preset my-model.gguf --to gguf --dtype q4_1
  nextword convert model.gguf ./my-preset --to keras --dtype bfloat16
  nextword convert ./my-preset ./my-checkpoint --to transformers"""
)


class Format(StrEnum):
    """The file formats that models are written in."""

    KERAS = "keras"
    GGUF = "gguf"
    TRANSFORMERS = "transformers"


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC",
            help="The model: a name from 'nextword presets', hf://ORG/NAME, "
            "kaggle://ORG/MODEL/keras/VARIANT, a directory or a .gguf file.",
        ),
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DST", help="The .gguf file, or the directory.")
    ],
    to: Annotated[Format, typer.Option("--to", help="The file format of DST.")],
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            help="How weights are stored. In gguf: f32, f16, bf16, or in blocks q8_0 (nearly as "
            "exact as f16), q4_1 or q4_0 (the smallest). Else: float32, bfloat16 or float16.",
            show_default="as SRC is held in memory",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model that is at DST already.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model in another file format.

    Raises:
        typer.BadParameter: an argument is not usable; raised before any work.
        ValueError: the model cannot be loaded, or the format cannot store it.
    """
    _check_destination(destination, to, overwrite=overwrite)
    start = time.perf_counter()
    if not quiet:
        console.print_note(f"Loading {source}", only_terminal=True)

    import nextword
    from nextword.models.gguf_export import GGUF_DTYPES

    known = GGUF_DTYPES if to is Format.GGUF else tuple(each.value for each in options.DType)
    if dtype not in (None, *known):
        raise typer.BadParameter(
            f"It must be one of {', '.join(known)} for {to.value}. Received: {dtype}.",
            param_hint="'--dtype'",
        )
    loading: dict[str, Any] = (
        {"dtype": dtype} if dtype is not None and to is not Format.GGUF else {}
    )
    # GGUF stores models that generate text, and the others are for every kind.
    task_cls = nextword.models.CausalLM if to is Format.GGUF else nextword.models.Task
    model = task_cls.from_preset(source, **loading)
    if not quiet:
        console.print_note(f"Writing {destination}", only_terminal=True)
    _WRITERS[to](model, destination, dtype, overwrite)
    if not quiet:
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in _files(destination))
        console.print_note(f"{destination}: {size / 1e6:,.1f} MB, in {seconds:,.1f} s")


def _check_destination(destination: Path, to: Format, *, overwrite: bool) -> None:
    if to is not Format.GGUF:  # a directory is looked into when it is saved
        return
    if destination.is_dir():
        raise typer.BadParameter(
            f"It must be a file for gguf. Received: the directory {destination}.",
            param_hint="'DST'",
        )
    if destination.exists() and not overwrite:
        raise typer.BadParameter(
            f"{destination} is there already. Choose another name, or pass --overwrite.",
            param_hint="'DST'",
        )


def _write_keras(model: Any, destination: Path, dtype: str | None, overwrite: bool) -> None:
    model.save_to_preset(destination, overwrite=overwrite)


def _write_transformers(model: Any, destination: Path, dtype: str | None, overwrite: bool) -> None:
    model.export_to_transformers(destination, overwrite=overwrite)


def _write_gguf(model: Any, destination: Path, dtype: str | None, overwrite: bool) -> None:
    model.export_to_gguf(destination, dtype=dtype)


_WRITERS: dict[Format, Callable[[Any, Path, str | None, bool], None]] = {
    Format.KERAS: _write_keras,
    Format.GGUF: _write_gguf,
    Format.TRANSFORMERS: _write_transformers,
}


def _files(destination: Path) -> list[Path]:
    if destination.is_dir():
        return [path for path in destination.rglob("*") if path.is_file()]
    return [destination]
