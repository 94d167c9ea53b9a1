"""The command group: its commands, and how an error becomes one line and an exit status."""

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nextword import __version__
from nextword.cli import chat, console, convert, generate, info, presets

HELP = """\
Causal language models on this machine: ask one, talk to it, convert it, list what is built in,
see what computes here.

[bold]Examples[/bold]
  nextword generate "What is the capital of France?"
  nextword chat --system "You are a patient teacher."
  nextword convert ./my-preset my-model.gguf --to gguf --dtype q8_0
  nextword presets
  nextword info

NEXTWORD_DEBUG=1 shows the traceback behind an error."""


class CommandGroup(TyperGroup):
    """A group of commands that ends every foreseeable failure with one line and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for.

        Raises:
            typer.Exit: with status 1 after an error, 130 after Ctrl-C and 141 where the reader of
                stdout has gone, the statuses that shells give to SIGINT and SIGPIPE.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(console.INTERRUPTED) from None
        except BrokenPipeError:
            console.discard_stdout()
            raise typer.Exit(console.BROKEN_PIPE) from None
        except (ValueError, TypeError, ImportError, OSError, MemoryError) as error:
            if os.environ.get("NEXTWORD_DEBUG"):
                raise
            console.print_error(str(error) or type(error).__name__)
            raise typer.Exit(1) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nextword {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=CommandGroup,
    help=HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Hold the options of `nextword` itself."""


app.command("generate", help=generate.HELP)(generate.generate)
app.command("chat", help=chat.HELP)(chat.chat)
app.command("convert", help=convert.HELP)(convert.convert)
app.command("presets", help=presets.HELP)(presets.presets)
app.command("info", help=info.HELP)(info.info)
