"""Load a model, and show an answer while it is made."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from nextword.cli import console
from nextword.cli.options import DType, Quantization, SamplerOptions
from nextword.cli.report import describe

if TYPE_CHECKING:
    from nextword.models import CausalLM, TextStream


def load_model(
    preset: str,
    *,
    dtype: DType | None,
    quantization: Quantization | None,
    sampler: SamplerOptions,
    quiet: bool,
) -> "CausalLM":
    """Load the model `preset` and give it its sampler.

    Raises:
        typer.BadParameter: the sampling options contradict each other; raised before any work.
        ValueError: the preset or the value of an option is refused.
        ImportError: no Keras backend is installed.
    """
    sampler.choice()
    if not quiet:
        # No spinner here: a download draws the progress bar of its hub's client.
        console.print_note(f"Loading {preset}", only_terminal=True)

    import nextword

    built = sampler.build()
    given = {"dtype": dtype, "quantization": quantization}
    arguments: Any = {name: each.value for name, each in given.items() if each is not None}
    lm = nextword.models.CausalLM.from_preset(preset, **arguments)
    lm.compile(sampler=built)
    return lm


def has_chat_template(lm: "CausalLM") -> bool:
    """Whether the model says how messages are laid out, as instruct models do."""
    return lm.preprocessor.tokenizer.chat_template is not None


def show_answer(stream: "TextStream", *, max_new_tokens: int, quiet: bool) -> bool:
    """Write an answer to stdout as it is made, then what it cost to stderr.

    Ctrl-C ends the answer at its next piece; a second one ends it at once.

    Args:
        stream: what `CausalLM.stream` and `CausalLM.chat` return; closed on return.
        max_new_tokens: the limit that the stream was given, for the report.
        quiet: whether to leave stderr empty.

    Returns:
        Whether Ctrl-C ended the answer.

    Raises:
        BrokenPipeError: the reader of stdout has gone.
    """
    with _interrupts() as interrupted:
        try:
            _write_pieces(stream, interrupted, quiet=quiet)
            stopped = interrupted()
        except KeyboardInterrupt:
            stopped = True
        finally:
            stream.close()
    if not stream.text.endswith("\n"):
        console.write("\n")
    if not quiet:
        reason = "cancelled" if stopped else stream.finish_reason
        console.print_note(describe(stream.statistics, reason, max_new_tokens))
    return stopped


def _write_pieces(stream: "TextStream", interrupted: Callable[[], bool], *, quiet: bool) -> None:
    pieces = iter(stream)
    with console.spinner("Reading the prompt", quiet=quiet):
        piece = next(pieces, None)
    while piece is not None:
        console.write(piece)
        if interrupted():
            return
        piece = next(pieces, None)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Note the first Ctrl-C instead of raising it; the block asks for it where it is safe to stop.

    An exception out of nowhere could strike between a donated cache and its replacement, or in a
    callback of the backend that swallows it.
    """
    pressed = False

    def note(signal_number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    # A parent that ignores Ctrl-C (nohup, a background job) or handles it keeps its way.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
