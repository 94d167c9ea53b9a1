"""`nextword chat`: a conversation with a model, line by line."""

import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import typer

from nextword.cli import answer, console, options
from nextword.errors import did_you_mean
from nextword.presets import DEFAULT_PRESET

if TYPE_CHECKING:
    from nextword.models import CausalLM

HELP = (
    "Talk with a model that remembers what was said.\n\n"
    "Each line is a message. /reset forgets the conversation, /exit or Ctrl-D leaves. Ctrl-C "
    "during an answer ends that answer and keeps what was said of it; at the prompt it leaves. "
    "Only the answers go to stdout."
    """

[bold]Examples[/bold]
  nextword chat
  nextword chat --system "You are a patient teacher." --temperature 0.7
  nextword chat --preset ./model.gguf --max-new-tokens 1000"""
)

COMMANDS = ("/exit", "/reset")


def chat(
    preset: options.Preset = DEFAULT_PRESET,
    max_new_tokens: options.MaxNewTokens = options.DEFAULT_MAX_NEW_TOKENS,
    stop: options.Stop = None,
    system: options.System = None,
    dtype: options.DTypeOption = None,
    quantization: options.QuantizationOption = None,
    quiet: options.Quiet = False,
    sampler: options.SamplerOption = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
) -> None:
    """Talk with a model.

    Raises:
        typer.BadParameter: an argument is not usable.
        ValueError: the model has no chat template, or cannot be loaded.
    """
    stop = options.check_stop(stop)
    instructions = options.system_message(system)
    lm = answer.load_model(
        preset,
        dtype=dtype,
        quantization=quantization,
        sampler=options.SamplerOptions(sampler, temperature, top_k, top_p, seed),
        quiet=quiet,
    )
    if not answer.has_chat_template(lm):
        raise ValueError(
            f"chat needs a model with a chat template, and {preset} has none: "
            "`nextword generate --raw` continues a text with it."
        )
    if sys.stdin.isatty() and not quiet:
        console.print_note(
            f"{preset} · /exit or Ctrl-D leaves · /reset forgets · Ctrl-C ends an answer"
        )
    conversation = Conversation(lm, instructions, max_new_tokens, stop, quiet=quiet)
    while (line := _next_line()) is not None:
        if line == "/exit":
            return
        if line == "/reset":
            conversation.reset()
        elif line.startswith("/") and line[1:].isalpha():
            console.print_error(
                f"There is no command {line}, only {' and '.join(COMMANDS)}."
                f"{did_you_mean(line, COMMANDS)}"
            )
        elif line:
            conversation.say(line)


class Conversation:
    """The messages so far, and the model that answers them.

    Args:
        lm: the model; it has a chat template.
        instructions: the messages that a conversation begins with, none or one of role "system".
        max_new_tokens: longest answer, in tokens.
        stop: texts that end an answer.
        quiet: whether to leave out the statistics.
    """

    def __init__(
        self,
        lm: "CausalLM",
        instructions: list[dict[str, str]],
        max_new_tokens: int,
        stop: list[str] | None,
        *,
        quiet: bool,
    ) -> None:
        self.messages = list(instructions)
        self._lm = lm
        self._instructions = instructions
        self._max_new_tokens = max_new_tokens
        self._stop = stop
        self._quiet = quiet

    def reset(self) -> None:
        """Forget everything but the instructions."""
        self.messages = list(self._instructions)

    def say(self, text: str) -> None:
        """Show the model's answer to `text`, and remember both.

        A message that got no answer, because the model refuses it (often a conversation that has
        outgrown the context) or because Ctrl-C came first, is forgotten: the next one would
        otherwise stand after it as a second message in a row, which chat templates refuse.
        """
        messages = [*self.messages, {"role": "user", "content": text}]
        try:
            options.check_text(text, "message")
            stream = self._lm.chat(
                messages, stream=True, max_new_tokens=self._max_new_tokens, stop=self._stop
            )
            interrupted = answer.show_answer(
                stream, max_new_tokens=self._max_new_tokens, quiet=self._quiet
            )
        except (ValueError, typer.BadParameter) as error:
            console.print_error(str(error))
            return
        if stream.text or not interrupted:
            self.messages = [*messages, {"role": "assistant", "content": stream.text}]


def _next_line() -> str | None:
    """Return the next message without the blanks around it; None at the end of input or Ctrl-C."""
    try:
        return _ask().strip()
    except (EOFError, KeyboardInterrupt):
        if sys.stdin.isatty():
            console.stderr_console().print()  # the shell's prompt belongs on a line of its own
        return None


def _ask() -> str:
    if not sys.stdin.isatty():
        return input()
    with suppress(ImportError):
        import readline  # noqa: F401  once it is imported, `input` edits and recalls lines
    if sys.stdout.isatty():
        return input("> ")
    sys.stderr.write("> ")  # the answers go to a file: the prompt must not go with them
    sys.stderr.flush()
    return input()
