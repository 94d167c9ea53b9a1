"""The options that commands share, and the sampler that they describe."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nextword.samplers import Sampler

DEFAULT_MAX_NEW_TOKENS = 256

_SAMPLING = "Sampling"


class SamplerName(StrEnum):
    """The samplers that the command line offers."""

    GREEDY = "greedy"
    RANDOM = "random"
    TOP_K = "top_k"
    TOP_P = "top_p"


class DType(StrEnum):
    """The floating-point types a model can be loaded in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Quantization(StrEnum):
    """The formats that weights can be rounded to."""

    INT8 = "int8"
    INT4 = "int4"
    Q8_0 = "q8_0"
    Q4_1 = "q4_1"
    Q4_0 = "q4_0"


_TAKES_TEMPERATURE = (SamplerName.RANDOM, SamplerName.TOP_K, SamplerName.TOP_P)
_TAKES_TOP_K = (SamplerName.TOP_K, SamplerName.TOP_P)
_TAKES_TOP_P = (SamplerName.TOP_P,)

Preset = Annotated[
    str,
    typer.Option(
        "--preset",
        "-p",
        help="The model: a name from 'nextword presets', hf://ORG/NAME, "
        "kaggle://ORG/MODEL/keras/VARIANT, a directory or a .gguf file.",
    ),
]
DTypeOption = Annotated[
    DType | None,
    typer.Option(
        "--dtype",
        help="Floating-point type of weights and arithmetic.",
        show_default="the stored one",
    ),
]
QuantizationOption = Annotated[
    Quantization | None,
    typer.Option(
        "--quantization",
        help="Round the weights while they are read: to 8 or 4 bits, or to GGUF's formats.",
        show_default="as they are stored",
    ),
]
System = Annotated[
    str | None,
    typer.Option(
        "--system", metavar="TEXT", help="Instructions that come before the first message."
    ),
]
MaxNewTokens = Annotated[
    int,
    typer.Option("--max-new-tokens", "-n", min=1, help="Longest answer, in tokens."),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop",
        metavar="TEXT",
        help="End the answer where this text would begin, besides the model's own end. Repeatable.",
        show_default="none",
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no statistics on stderr.")
]
SamplerOption = Annotated[
    SamplerName | None,
    typer.Option(
        "--sampler",
        "-s",
        help="How each token is chosen from the model's probabilities.",
        show_default="greedy, or the one that the options below ask for",
        rich_help_panel=_SAMPLING,
    ),
]
Temperature = Annotated[
    float | None,
    typer.Option(
        "--temperature",
        "-t",
        min=0.0,
        help="Below 1 likely tokens grow likelier, above 1 less so. Alone: sampler random.",
        show_default="1.0",
        rich_help_panel=_SAMPLING,
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        min=1,
        help="Choose among this many likeliest tokens. Alone: sampler top_k.",
        show_default="5 with sampler top_k",
        rich_help_panel=_SAMPLING,
    ),
]
TopP = Annotated[
    float | None,
    typer.Option(
        "--top-p",
        min=0.0,
        max=1.0,
        help="Choose among the likeliest tokens that reach this probability together. "
        "Alone: sampler top_p.",
        show_default="0.1 with sampler top_p",
        rich_help_panel=_SAMPLING,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        min=0,
        help="The same seed gives the same answer again.",
        show_default="a new one each time",
        rich_help_panel=_SAMPLING,
    ),
]


@dataclass(frozen=True)
class SamplerOptions:
    """The sampling options of one command line; None where an option is not given."""

    name: SamplerName | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def choice(self) -> SamplerName:
        """Return the sampler asked for by name or, without a name, by the other options.

        Raises:
            typer.BadParameter: an option is given that the named sampler does not take.
        """
        if self.name is None:
            if self.top_p is not None:
                return SamplerName.TOP_P
            if self.top_k is not None:
                return SamplerName.TOP_K
            return SamplerName.GREEDY if self.temperature is None else SamplerName.RANDOM
        for option, value, takers in (
            ("--temperature", self.temperature, _TAKES_TEMPERATURE),
            ("--top-k", self.top_k, _TAKES_TOP_K),
            ("--top-p", self.top_p, _TAKES_TOP_P),
        ):
            if value is not None and self.name not in takers:
                raise typer.BadParameter(
                    f"{option} has no effect on {self.name}, only on {', '.join(takers)}.",
                    param_hint="'--sampler'",
                )
        return self.name

    def build(self) -> "Sampler":
        """Build the sampler; what is not given is left to the sampler's own defaults.

        Raises:
            typer.BadParameter: an option is given that the named sampler does not take.
            ValueError: the sampler refuses a value.
        """
        choice = self.choice()

        from nextword import samplers

        drawing = _given(temperature=self.temperature, seed=self.seed)
        match choice:
            case SamplerName.GREEDY:
                return samplers.GreedySampler()
            case SamplerName.RANDOM:
                return samplers.RandomSampler(**drawing)
            case SamplerName.TOP_K:
                return samplers.TopKSampler(**_given(k=self.top_k), **drawing)
            case SamplerName.TOP_P:
                return samplers.TopPSampler(**_given(p=self.top_p, k=self.top_k), **drawing)


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def check_text(text: str, option: str) -> str:
    """Return `text` if it is Unicode text that a tokenizer can take.

    Raises:
        typer.BadParameter: it holds bytes that are not UTF-8, which Python passes on as surrogates.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("The text is not valid UTF-8.", param_hint=f"'{option}'") from None
    return text


def check_stop(stop: list[str] | None) -> list[str] | None:
    """Return the stop texts, or None where there are none.

    Raises:
        typer.BadParameter: one of them is empty or is not Unicode text.
    """
    for text in stop or ():
        if not check_text(text, "--stop"):
            raise typer.BadParameter("The text is empty.", param_hint="'--stop'")
    return stop or None


def system_message(text: str | None) -> list[dict[str, str]]:
    """Return the messages that a conversation begins with: the instructions, if there are any.

    Raises:
        typer.BadParameter: the instructions are not Unicode text.
    """
    if text is None:
        return []
    return [{"role": "system", "content": check_text(text, "--system")}]
