"""What KerasHub calls a class of a family that is here, it is called here, with its arguments."""

import inspect

import pytest

import nextword
from keras_presets import CASES
from nextword.models.family import all_families
from nextword.models.formats.keras import KerasFormat

keras_hub = pytest.importorskip("keras_hub")

STORED = [family.formats.get("keras") for family in all_families().values()]
BACKBONES = {
    classes.name_of("Backbone"): stored.backbone_cls
    for stored in STORED
    if isinstance(stored, KerasFormat)
    for classes in stored.classes
}

KINDS = ("Backbone", "CausalLM", "CausalLMPreprocessor", "Tokenizer")
PREFIXES = (
    *("GPT2", "Llama", "Llama3", "Mistral", "Mixtral", "Phi3", "Qwen", "Qwen2", "Qwen3"),
    *("Gemma", "OPT", "Bloom", "GPTNeoX", "Falcon"),
    *("Gemma3", "SmolLM3", "SmolLM", "QwenMoe", "Qwen3Moe", "GptOss"),
)
EXPORTS = {f"{prefix}{kind}" for prefix in PREFIXES for kind in KINDS} | {"MistralTekkenTokenizer"}


def exports_for_our_backbones() -> set[str]:
    """Return all names of KerasHub's for what belongs to a backbone that is here."""
    backbones = [getattr(keras_hub.models, name) for name in BACKBONES]
    kinds = tuple(getattr(keras_hub.models, kind) for kind in KINDS)
    exports = {name: getattr(keras_hub.models, name) for name in dir(keras_hub.models)}
    return {
        name
        for name, cls in exports.items()
        if isinstance(cls, type)
        and issubclass(cls, kinds)
        and (cls in backbones or vars(cls).get("backbone_cls") in backbones)
    }


OF_KERAS = ("dtype", "kwargs")


def immutable(default: object) -> object:
    return tuple(default) if isinstance(default, list) else default


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_backbones_take_the_arguments_of_keras_hub_in_their_order(name: str) -> None:
    theirs = inspect.signature(getattr(keras_hub.models, name)).parameters
    ours = inspect.signature(BACKBONES[name].describe).parameters
    # KerasHub puts `dtype` anywhere; here, where it can only be given by name, it is everywhere.
    expected = [(n, immutable(p.default)) for n, p in theirs.items() if n not in OF_KERAS]
    found = [(n, p.default) for n, p in ours.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert found == expected
    assert {p.kind for p in ours.values()} <= {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }
    assert "dtype" in inspect.signature(BACKBONES[name]).parameters


@pytest.mark.parametrize("name", sorted(exports_for_our_backbones() | EXPORTS))
def test_keras_hub_s_names_are_here(name: str) -> None:
    assert isinstance(getattr(keras_hub.models, name), type)
    assert isinstance(getattr(nextword.models, name), type)
    if name.endswith("Tokenizer"):
        assert getattr(nextword.tokenizers, name) is getattr(nextword.models, name)
        assert name in dir(nextword.tokenizers)


@pytest.mark.parametrize("name", sorted(name for name in EXPORTS if name.endswith("CausalLM")))
def test_compile_takes_the_arguments_of_keras_hub_and_their_defaults(name: str) -> None:
    theirs, ours = (
        inspect.signature(getattr(models, name).compile).parameters.values()
        for models in (keras_hub.models, nextword.models)
    )
    assert [(p.name, p.default, p.kind) for p in ours] == [
        (p.name, p.default, p.kind) for p in theirs
    ]


CAUSAL_LMS = sorted(name for name in exports_for_our_backbones() if name.endswith("CausalLM"))
ARGUMENTS = {f"{case.prefix}Backbone": case.arguments for case in CASES.values()}


@pytest.mark.parametrize("name", CAUSAL_LMS)
def test_models_take_their_parts_as_keras_hub_does(name: str) -> None:
    theirs = inspect.signature(getattr(keras_hub.models, name)).parameters.values()
    order = [p.name for p in theirs if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert sorted(order) == ["backbone", "preprocessor"]
    cls = getattr(nextword.models, name)
    their_backbone = getattr(keras_hub.models, name).backbone_cls.__name__
    backbone = BACKBONES[their_backbone](**ARGUMENTS[their_backbone])

    def preprocessor(x: object) -> object:
        return x

    parts = {"backbone": backbone, "preprocessor": preprocessor}
    model = cls(*(parts[part] for part in order))
    assert (model.backbone, model.preprocessor) == (backbone, preprocessor)
    model = cls(*({**parts, "preprocessor": None}[part] for part in order))
    assert (model.backbone, model.preprocessor) == (backbone, None)
    with pytest.raises(TypeError, match=r"`backbone` must be a Backbone\. .* type function"):
        cls(preprocessor, None)


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_mean_the_same_there_mean_the_same_here(kind: str) -> None:
    for one, other in (("Qwen", "Qwen2"), ("SmolLM3", "SmolLM")):
        for models in (keras_hub.models, nextword.models):
            assert getattr(models, f"{one}{kind}") is getattr(models, f"{other}{kind}")


def test_a_tokenizer_that_no_family_has() -> None:
    for name in ("NoSuchTokenizer", "QwenBackbone", "_QwenTokenizer"):
        with pytest.raises(AttributeError, match=f"'nextword.tokenizers' has no .*'{name}'"):
            getattr(nextword.tokenizers, name)
