"""The split rules against the same rules in transformers, in `regex`, and in words."""

import pytest
import regex
from tokenizers import Regex
from tokenizers.pre_tokenizers import Split
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from nextword.errors import PresetError
from nextword.tokenizers.pre_tokenizers import SPLIT_RULES, split_rules


def pieces(name: str, text: str) -> list[str]:
    """Return the pieces into which the rules of a name cut a text."""
    spans = split_rules(name).pre_tokenizer().pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in spans]


@pytest.mark.parametrize("name", sorted(SPLIT_RULES.keys() & GGUF_PRE_TOKENIZER_SPLITS.keys()))
def test_rules_cut_as_those_of_transformers_do(name, corpus):
    # Another engine for the regular expressions, too; "I'LL" needs its case folding.
    pattern = regex.compile(GGUF_PRE_TOKENIZER_SPLITS[name])
    for text in corpus:
        assert pieces(name, text) == pattern.findall(text)


@pytest.mark.parametrize("name", ["gpt-2", "phi-2", "olmo", "mpt"])
def test_gpt_2_words(name, corpus):
    pattern = regex.compile(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    )
    for text in corpus:
        assert pieces(name, text) == pattern.findall(text)


TEXT = "It's 1234½ €5,000.00\n\n\tdef f_1(x):  return 你好ひら가나 Été! "
START = {
    "smollm": "It|'s| |1|2|3|4|½| €|5|,|0|0|0|.|0|0|\n\n|\t|def| f|_|1|(|x|):| ",
    "default": "It|'|s| |123|4½| €|5|,|000|.|00|\n\n|\t|def| f|_|1|(|x|):| ",
    # The euro sign is one of the characters that these two call Chinese.
    "deepseek-coder": "It|'|s| |1|2|3|4|½| |€|5|,|0|0|0|.|0|0|\n|\n|\tdef| f|_|1|(|x|):| ",
    "deepseek-llm": "It|'|s| |1|2|3|4|½| |€|5|,|0|0|0|.|0|0|\n|\n|\tdef| f|_|1|(|x|):| ",
    "deepseek-v3": "It|'s| |123|4½| €|5|,|000|.|00|\n\n|\tdef| f|_|1|(x|):| ",
    "glm4": "It|'s| |123|4½| €|5|,|000|.|00|\n\n|\tdef| f|_|1|(x|):| ",
}
END = {
    "smollm": "| return| 你好ひら가나| Été|!| ",
    "default": "| return| 你好ひら가나| Été|!| ",
    "deepseek-coder": "| return| |你好ひら가나| Été|!| ",
    # Its rule for punctuation has the range from ":" to "~", which cuts out letters of ASCII.
    "deepseek-llm": "| return| |你好ひら가나| É|t|é|!| ",
    "deepseek-v3": "| return| |你好ひら|가나| Été|!| ",
    "glm4": "| return| 你好ひら가나| Été|!| ",
    "bloom": "| return| 你好ひら가나| Été|! ",
}


@pytest.mark.parametrize("name", START)
def test_rules_in_examples(name):
    assert "|".join(pieces(name, TEXT)) == START[name] + END[name]


def test_bloom_cuts_at_punctuation_of_many_scripts(corpus):
    # The rule as it stands in BLOOM's tokenizer.json, with a set inside a set.
    marks = ".,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c"
    theirs = Split(Regex(rf" ?[^(\s|[{marks}])]+"), behavior="isolated")
    for text in [*corpus, "é ".join(f"{marks}(|)")]:
        assert pieces("bloom", text) == [piece for piece, _ in theirs.pre_tokenize_str(text)]


def test_falcon_looks_for_digits_among_the_characters_that_spell_bytes():
    # "好" has the byte that is spelled "½"; so it is in falcon's own tokenizer.json.
    spelled = split_rules("falcon").pre_tokenizer().pre_tokenize_str("It's 12345, 好")
    assert [piece for piece, _ in spelled] == [
        *("It", "'", "s", "Ġ", "123", "45", ","),
        *("Ġå¥", "½"),
    ]


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(PresetError, match="'smollm'.*Received: 'smolm'. Did you mean 'smollm'"):
        split_rules("smolm")


@pytest.mark.parametrize("name", ["", 3, ["gpt-2"], "x" * 10_000])
def test_names_of_other_kinds_are_refused(name):
    with pytest.raises(PresetError, match="must be one of") as caught:
        split_rules(name)
    assert len(str(caught.value)) < 1_000


def test_no_name_is_no_guess():
    with pytest.raises(PresetError, match=r"has no 'tokenizer\.ggml\.pre'"):
        split_rules(None)
