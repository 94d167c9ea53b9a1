"""`nextword generate`: one prompt, one answer."""

import sys
from typing import Annotated

import typer

from nextword.cli import answer, console, options
from nextword.presets import DEFAULT_PRESET

HELP = (
    "Answer one prompt, shown while it is made.\n\n"
    "A model with a chat template receives PROMPT as a message and answers it; any other model, or "
    "any model with --raw, continues PROMPT as it stands. Only the answer goes to stdout. Ctrl-C "
    "ends it early."
    """

[bold]Examples[/bold]
  nextword generate "What is the capital of France?"
  nextword generate "Name a colour." --temperature 0.7 --top-p 0.9 --seed 1
  nextword generate --raw "Once upon a time" -n 64 --stop "The end"
  nextword generate --preset ./my-model --dtype bfloat16 "Hello"
  cat question.txt | nextword generate - > answer.txt"""
)


def generate(
    prompt: Annotated[
        str, typer.Argument(metavar="PROMPT", help="The prompt; '-' reads it from stdin.")
    ],
    preset: options.Preset = DEFAULT_PRESET,
    max_new_tokens: options.MaxNewTokens = options.DEFAULT_MAX_NEW_TOKENS,
    stop: options.Stop = None,
    system: options.System = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue PROMPT as it stands, without a chat template.")
    ] = False,
    dtype: options.DTypeOption = None,
    quantization: options.QuantizationOption = None,
    quiet: options.Quiet = False,
    sampler: options.SamplerOption = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
) -> None:
    """Answer one prompt.

    Raises:
        typer.BadParameter: an argument is not usable.
        typer.Exit: with status 130 after Ctrl-C.
        ValueError: the model refuses the prompt.
    """
    if raw and system is not None:
        raise typer.BadParameter("It cannot go with --raw.", param_hint="'--system'")
    stop = options.check_stop(stop)
    messages = options.system_message(system)
    text = _read(prompt)

    lm = answer.load_model(
        preset,
        dtype=dtype,
        quantization=quantization,
        sampler=options.SamplerOptions(sampler, temperature, top_k, top_p, seed),
        quiet=quiet,
    )
    if raw or not answer.has_chat_template(lm):
        if messages:
            raise ValueError(f"--system needs a chat template, and {preset} has none.")
        stream = lm.stream(text, max_new_tokens=max_new_tokens, stop=stop)
    else:
        messages.append({"role": "user", "content": text})
        stream = lm.chat(messages, stream=True, max_new_tokens=max_new_tokens, stop=stop)
    if answer.show_answer(stream, max_new_tokens=max_new_tokens, quiet=quiet):
        raise typer.Exit(console.INTERRUPTED)


def _read(prompt: str) -> str:
    """Return the prompt; from stdin without the line feed that editors and `echo` add."""
    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt
    if not text:
        raise typer.BadParameter("The prompt is empty.", param_hint="'PROMPT'")
    return options.check_text(text, "PROMPT")
