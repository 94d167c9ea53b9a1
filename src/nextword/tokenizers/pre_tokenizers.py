"""How text is cut into pieces before byte-pair merging, for each name that a GGUF file may give.

A GGUF file stores no splitting rule, only its name (`tokenizer.ggml.pre`). The rules here are those
of the tokenizer.json of the models that the names stand for, which is what their vocabularies were
trained with. A name that is not here is refused: another rule would load, and give wrong ids.
"""

from dataclasses import dataclass
from enum import Enum

from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from nextword.errors import PresetError, did_you_mean


class Step(Enum):
    """Splits that are not a regular expression."""

    SINGLE_DIGITS = "every numeric character is a piece"
    DIGIT_RUNS = "every run of numeric characters is a piece"
    PUNCTUATION_RUNS = "every run of punctuation is a piece"
    BYTE_LEVEL_WORDS = "the words of GPT-2, then every byte is spelled as a character"


@dataclass(frozen=True)
class SplitRules:
    """The way from text to the pieces in which byte pairs are merged.

    Attributes:
        steps: applied in turn, each to the pieces of the one before. A string is a regular
            expression in Oniguruma's syntax: what it matches, and what lies between, are pieces.
            The bytes are spelled as characters at `BYTE_LEVEL_WORDS`, or else after the last step.
        compose: whether text is first brought to Unicode's normal form C.
        ignore_merges: whether a piece that is itself a token stays whole, whatever the merges say.
        add_start_token: whether a prompt begins with the start token where the file does not say.
    """

    steps: tuple[Step | str, ...]
    compose: bool = False
    ignore_merges: bool = False
    add_start_token: bool = False

    def normalizer(self) -> Normalizer | None:
        """Return the normalizer for the `tokenizers` library."""
        return normalizers.NFC() if self.compose else None

    def pre_tokenizer(self, *, add_prefix_space: bool = False) -> PreTokenizer:
        """Return the pre-tokenizer for the `tokenizers` library.

        Args:
            add_prefix_space: whether a space is put in front of a text that begins with none.

        Raises:
            PresetError: the library has no such space for these rules.
        """
        steps = [_library_step(step) for step in self.steps]
        if add_prefix_space:
            if self.steps[0] is not Step.BYTE_LEVEL_WORDS:
                raise PresetError(
                    "add_prefix_space is supported only where text is split as GPT-2 does. "
                    "Received: add_prefix_space=True."
                )
            steps[0] = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
        if Step.BYTE_LEVEL_WORDS not in self.steps:
            steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        return pre_tokenizers.Sequence(steps)


def _library_step(step: Step | str) -> PreTokenizer:
    match step:
        case Step.SINGLE_DIGITS:
            return pre_tokenizers.Digits(individual_digits=True)
        case Step.DIGIT_RUNS:
            return pre_tokenizers.Digits(individual_digits=False)
        case Step.PUNCTUATION_RUNS:
            return pre_tokenizers.Punctuation(behavior="contiguous")
        case Step.BYTE_LEVEL_WORDS:
            return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return pre_tokenizers.Split(Regex(step), behavior="isolated")


_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"

_GPT_2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA_3_WORDS = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_QWEN_2_WORDS = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_QWEN_35_WORDS = (
    rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}"
)

# Words that change from upper to lower case once: "HelloWorld" is two of them.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_1 = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+"
_CASED_2 = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
_TEKKEN_WORDS = rf"{_CASED_1}|{_CASED_2}|\p{{N}}|{_SYMBOLS}|{_SPACES}"
_GPT_4O_WORDS = (
    rf"{_CASED_1}{_CONTRACTION}?|{_CASED_2}{_CONTRACTION}?|\p{{N}}{{1,3}}|{_SYMBOLS}|{_SPACES}"
)

# Han, kana and Hangul in the ranges that DeepSeek's tokenizers name.
_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
# The letters with case that deepseek-llm's tokenizer names, one by one.
_CASED_LETTERS = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293"
    "\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c"
    "\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5"
    "\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59"
    "\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc"
    "\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107"
    "\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    "\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee"
    "\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e"
    "\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f"
    "\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2"
    "\U000118a0-\U000118df\U0001e900-\U0001e943"
)
_HAN_AND_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
_DEEPSEEK_V3_WORDS = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"""
    r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    rf"|{_SPACES}"
)

# Of Chinese, Hindi and Arabic, and the ellipsis.
_FULL_STOPS_AND_COMMAS = "\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c"

_GPT_2 = SplitRules((Step.BYTE_LEVEL_WORDS,))
_DIGITS_THEN_GPT_2 = SplitRules((Step.SINGLE_DIGITS, Step.BYTE_LEVEL_WORDS))
_LLAMA_3 = SplitRules((_LLAMA_3_WORDS,), ignore_merges=True, add_start_token=True)
_GPT_4 = SplitRules((_LLAMA_3_WORDS,))
_QWEN_2 = SplitRules((_QWEN_2_WORDS,), compose=True)
_GPT_4O = SplitRules((_GPT_4O_WORDS,))

SPLIT_RULES: dict[str, SplitRules] = {
    # llama.cpp's rule for files that name no other; it belongs to no model.
    "default": SplitRules((r"[\p{P}\$\+<=>\^~\|]+", _GPT_2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]")),
    "gpt-2": _GPT_2,
    "phi-2": _GPT_2,
    "olmo": SplitRules((Step.BYTE_LEVEL_WORDS,), compose=True),
    "mpt": SplitRules((Step.BYTE_LEVEL_WORDS,), compose=True),
    "smollm": _DIGITS_THEN_GPT_2,
    "starcoder": _DIGITS_THEN_GPT_2,
    "refact": _DIGITS_THEN_GPT_2,
    "command-r": SplitRules((Step.SINGLE_DIGITS, Step.BYTE_LEVEL_WORDS), compose=True),
    "falcon": SplitRules(
        (Step.PUNCTUATION_RUNS, Step.BYTE_LEVEL_WORDS, Step.DIGIT_RUNS, "[0-9][0-9][0-9]")
    ),
    "llama-bpe": _LLAMA_3,
    "llama3": _LLAMA_3,
    "llama-v3": _LLAMA_3,
    "smaug-bpe": _GPT_4,
    "dbrx": _GPT_4,
    "glm4": SplitRules((_LLAMA_3_WORDS,), ignore_merges=True),
    "qwen2": _QWEN_2,
    "deepseek-r1-qwen": _QWEN_2,
    "stablelm2": _QWEN_2,
    "qwen35": SplitRules((_QWEN_35_WORDS,), compose=True),
    "tekken": SplitRules((_TEKKEN_WORDS,), ignore_merges=True, add_start_token=True),
    "bloom": SplitRules((rf" ?[^\s()|.,!?{_FULL_STOPS_AND_COMMAS}]+",)),
    "gpt-4o": _GPT_4O,
    "llama4": _GPT_4O,
    "deepseek-coder": SplitRules(("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, Step.SINGLE_DIGITS)),
    "deepseek-llm": SplitRules(
        (
            "[\r\n]",
            rf"\s?[{_CASED_LETTERS}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"(?<!\s)\s+$",  # as `\s+$`, which reads a run of spaces once for each space in it
            _CJK,
            Step.SINGLE_DIGITS,
        )
    ),
    "deepseek-v3": SplitRules((r"\p{N}{1,3}", _HAN_AND_KANA, _DEEPSEEK_V3_WORDS)),
}

# None of them takes more than a time in proportion to the length of a text.
KNOWN_PATTERNS = frozenset(
    step for rules in SPLIT_RULES.values() for step in rules.steps if isinstance(step, str)
)


def split_rules(name: object) -> SplitRules:
    """Return the rules that a GGUF file names in `tokenizer.ggml.pre`.

    Args:
        name: the value in the file, `None` if it has none.

    Returns:
        The rules.

    Raises:
        PresetError: the name is missing or unknown.

    Example:
    >>> split_rules("qwen2").compose
    True
    """
    if name is None:
        raise PresetError(
            "The GGUF file does not say how text is split into words (it has no "
            "'tokenizer.ggml.pre'), so any token ids would be guesses; convert the model again "
            "with a current converter."
        )
    if isinstance(name, str) and name in SPLIT_RULES:
        return SPLIT_RULES[name]
    raise PresetError(
        "The GGUF file's pre-tokenizer ('tokenizer.ggml.pre') must be one of "
        f"{', '.join(map(repr, SPLIT_RULES))}. Received: {str(name)[:80]!r}."
        f"{did_you_mean(str(name)[:80], SPLIT_RULES)}"
    )
