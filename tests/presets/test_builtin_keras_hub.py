"""The table of built-in presets agrees with KerasHub's, in all but its words."""

import json
import re
from collections.abc import Iterator

import pytest

import nextword
from nextword.models.family import all_families
from nextword.models.formats.keras import KerasFormat
from nextword.presets import DEFAULT_PRESET, builtin_presets

keras_hub = pytest.importorskip("keras_hub")

# Families whose models see or hear, or read more than text.
NO_TEXT_FAMILIES = {
    "blip2",
    "gemma3n",
    "gemma4",
    "moonshine",
    "pali_gemma",
    "parseq",
    "qwen3_5",
    "t5gemma2",
}
# Models that see, of families that have others, too.
NO_TEXT_MODELS = {
    *(f"gemma3_{kind}{size}" for kind in ("", "instruct_") for size in ("4b", "12b", "27b")),
    *("medgemma_4b", "medgemma_instruct_4b", "medgemma_instruct_27b", "medgemma_1.5_instruct_4b"),
    *(f"translategemma_{size}_it" for size in ("4b", "12b", "27b")),
    *("qwen3_5_moe_35b_a3b_base", "qwen3_5_moe_35b_a3b", "qwen3_6_moe_35b_a3b"),
}


@pytest.fixture(scope="module")
def theirs() -> dict[str, dict]:
    models = keras_hub.models
    presets = models.CausalLM.presets | models.BertTextClassifier.presets
    return {
        name: preset
        for name, preset in presets.items()
        if preset["metadata"]["path"] not in NO_TEXT_FAMILIES and name not in NO_TEXT_MODELS
    }


def test_every_text_model_has_its_name(theirs: dict) -> None:
    assert keras_hub.models.CausalLM.presets.keys() >= NO_TEXT_MODELS
    assert builtin_presets().keys() == {DEFAULT_PRESET, *theirs}
    assert next(iter(builtin_presets())) == DEFAULT_PRESET
    page = {"gpt2_base_en", "mistral_instruct_7b_en", "gemma_2b_en", "bert_base_en"}
    assert page <= builtin_presets().keys()


def test_handles_parameters_and_families_are_theirs(theirs: dict) -> None:
    ours = {
        name: (preset.handle, preset.params, preset.family)
        for name, preset in builtin_presets().items()
        if name != DEFAULT_PRESET
    }
    assert ours == {
        name: (
            preset["kaggle_handle"],
            preset["metadata"]["params"],
            preset["metadata"]["path"],
        )
        for name, preset in theirs.items()
    }


def word_runs(text: str, length: int = 5) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"[\w.]+", text.lower())
    return (tuple(words[i : i + length]) for i in range(len(words) - length + 1))


def test_descriptions_are_our_own_words(theirs: dict) -> None:
    written = {run for p in theirs.values() for run in word_runs(p["metadata"]["description"])}
    assert len(written) > 1000
    for name, preset in builtin_presets().items():
        assert not written & set(word_runs(preset.description)), name
    descriptions = [preset.description for preset in builtin_presets().values()]
    assert len(set(descriptions)) == len(descriptions)


def test_families_of_ours_that_store_their_presets_have_their_names() -> None:
    for family in all_families().values():
        stored = family.formats.get("keras")
        for classes in stored.classes if isinstance(stored, KerasFormat) else ():
            backbone_cls = getattr(keras_hub.models, f"{classes.prefix}Backbone")
            assert backbone_cls.__module__ == classes.module_of("Backbone")
            listed = {p["metadata"]["path"] for p in vars_of(backbone_cls).values()}
            assert listed <= {classes.module}


def vars_of(backbone_cls: type) -> dict[str, dict]:
    """Return the presets of a backbone without those of its subclasses."""
    inherited = {
        name
        for other in vars(keras_hub.models).values()
        if isinstance(other, type) and issubclass(other, backbone_cls) and other != backbone_cls
        for name in other.presets
    }
    return {name: p for name, p in backbone_cls.presets.items() if name not in inherited}


@pytest.mark.parametrize(
    "name",
    [
        "GPT2CausalLM",
        "GPT2Backbone",
        "GPT2CausalLMPreprocessor",
        "GPT2Tokenizer",
        "Llama3Tokenizer",
        "BertTextClassifier",
        "BertTokenizer",
        "GemmaCausalLM",
        "MistralCausalLM",
        "Phi3Backbone",
        "QwenTokenizer",
        "Qwen3CausalLMPreprocessor",
        *("Gemma3CausalLM", "SmolLM3Tokenizer", "GptOssBackbone"),
        *("QwenMoeCausalLM", "Qwen3MoeCausalLMPreprocessor"),
        "LlamaBackbone",  # of which Llama3Backbone is a subclass there
    ],
)
def test_presets_of_a_class_have_their_names_and_shape(name: str) -> None:
    ours = getattr(nextword.models, name).presets
    theirs = getattr(keras_hub.models, name).presets
    assert ours.keys() - {DEFAULT_PRESET} == theirs.keys() - NO_TEXT_MODELS
    for preset, expected in theirs.items():
        if preset in NO_TEXT_MODELS:
            continue
        assert ours[preset]["kaggle_handle"] == expected["kaggle_handle"]
        assert ours[preset]["metadata"] == expected["metadata"] | {
            "description": builtin_presets()[preset].description
        }
    json.dumps(ours)
