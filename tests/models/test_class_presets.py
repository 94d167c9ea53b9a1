"""`presets` of every kind of class lists what it can load, and other names say why they cannot."""

from typing import Any

import pytest

import nextword
from nextword.presets import DEFAULT_PRESET, PresetError, builtin_presets

models, tokenizers = nextword.models, nextword.tokenizers

GPT2 = {name for name, preset in builtin_presets().items() if preset.family == "gpt2"}
LLAMA3 = {name for name, preset in builtin_presets().items() if preset.family == "llama3"}
LLAMA = {name for name, preset in builtin_presets().items() if preset.family == "llama"} | LLAMA3


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (models.GPT2CausalLM, GPT2),
        (models.GPT2Backbone, GPT2),
        (models.GPT2CausalLMPreprocessor, GPT2),
        (models.GPT2Tokenizer, GPT2),
        (models.LlamaCausalLM, LLAMA),
        (models.Llama3Backbone, LLAMA),
        (models.Llama3Tokenizer, LLAMA3),
        (models.LlamaTokenizer, LLAMA - LLAMA3),
        (tokenizers.UnigramTokenizer, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_family_has_its_own(cls: Any, expected: set[str]) -> None:
    assert cls.presets.keys() == expected


@pytest.mark.parametrize(
    "cls",
    [
        models.Task,
        models.CausalLM,
        models.Backbone,
        models.Preprocessor,
        models.CausalLMPreprocessor,
        tokenizers.Tokenizer,
        tokenizers.BytePairTokenizer,
    ],
    ids=lambda cls: cls.__name__,
)
def test_a_base_class_has_those_of_its_subclasses(cls: Any) -> None:
    assert cls.presets.keys() >= GPT2 | LLAMA3
    assert next(iter(cls.presets)) == DEFAULT_PRESET
    assert cls.presets.keys() <= builtin_presets().keys()


def test_a_preset_that_is_not_on_kaggle_says_where_it_is() -> None:
    preset = models.CausalLM.presets[DEFAULT_PRESET]
    assert preset["handle"] == builtin_presets()[DEFAULT_PRESET].handle
    assert "kaggle_handle" not in preset


def test_a_misspelt_name_gets_near_matches() -> None:
    with pytest.raises(PresetError, match=r"Did you mean 'gpt2_base_en'"):
        models.CausalLM.from_preset("gpt2_bas_en")
    with pytest.raises(PresetError, match=r"Did you mean .*'mistral_instruct_7b_en'"):
        models.CausalLM.from_preset("mistral_7b_instruct_en")
