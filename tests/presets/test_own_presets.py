"""Families that KerasHub does not have are saved, too, in its files, and come back as they were."""

import json
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import keras
import numpy as np
import pytest
import tokenizers
from tokenizers import models as library_models

import nextword
from families.cases import CASES
from keras_presets import MERGES, TINY_SHARDS, VOCABULARY, logits, sentence_piece_proto
from nextword.errors import PresetError
from nextword.models import Backbone, CausalLM, CausalLMPreprocessor
from nextword.models.family import all_families
from nextword.presets import resolve_preset
from nextword.presets.checkpoint import open_checkpoint
from nextword.presets.model_card import ModelCard
from nextword.tokenizers import (
    BytePairTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    UnigramTokenizer,
    WordPieceTokenizer,
)

FAMILIES = {
    architecture: family
    for family in all_families().values()
    if "keras" not in family.formats
    for stored in family.stored_in("transformers")
    for architecture in stored.architectures
}
MODELS = {case.name: case for case in CASES if case.config().model_type in FAMILIES}
# The first of each architecture.
FIRST = {case.config().model_type: name for name, case in reversed(MODELS.items())}


def files(directory: Path) -> set[str]:
    return {p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file()}


def assert_same(one: Any, other: Any) -> None:
    """Check that two models have the same configuration and the same weights, bit by bit."""
    assert type(one.backbone) is type(other.backbone)
    assert one.backbone.config == other.backbone.config
    assert one.backbone.dtype_policy == other.backbone.dtype_policy
    ignored = {"name"}
    configs = [model.backbone.get_config() for model in (one, other)]
    first, second = ({k: v for k, v in c.items() if k not in ignored} for c in configs)
    assert first == second
    for weight, expected in zip(one.weights, other.weights, strict=True):
        assert (weight.path, weight.dtype) == (expected.path, expected.dtype)
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(expected))


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a model of one of the cases, with a tokenizer."""

    def load(name: str, dtype: str = "float32") -> Any:
        directory = tmp_path_factory.mktemp(name)
        MODELS[name].make(directory)
        backbone = Backbone.from_preset(directory, dtype=dtype)
        task = FAMILIES[MODELS[name].config().model_type].task
        tokenizer = BytePairTokenizer(VOCABULARY, MERGES, split="qwen2")
        preprocessor = task.preprocessor_cls(tokenizer, sequence_length=9, add_end_token=False)
        return task(backbone, preprocessor)

    return load


def test_every_family_without_keras_hub_s_format_is_tested() -> None:
    assert FIRST.keys() == FAMILIES.keys()
    assert len(FIRST) >= 14


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float32") for name in MODELS),
        *((name, "bfloat16") for name in FIRST.values()),
    ],
)
def test_a_model_comes_back_as_it_was(load: Any, tmp_path: Path, name: str, dtype: str) -> None:
    lm = load(name, dtype)
    lm.save_to_preset(tmp_path)
    again = CausalLM.from_preset(tmp_path)
    assert type(again) is type(lm)
    assert_same(again, lm)
    tokenizer, expected = again.preprocessor.tokenizer, lm.preprocessor.tokenizer
    assert type(tokenizer) is type(expected) is BytePairTokenizer
    assert tokenizer.get_config() == expected.get_config()
    assert tokenizer.get_vocabulary() == expected.get_vocabulary()
    assert tokenizer.tokenize("abcd ab") == expected.tokenize("abcd ab")
    assert tokenizer.end_token_ids == expected.end_token_ids
    assert (again.preprocessor.sequence_length, again.preprocessor.add_end_token) == (9, False)


@pytest.mark.parametrize("name", FIRST.values())
def test_logits_are_the_same_to_the_bit(load: Any, tmp_path: Path, name: str) -> None:
    lm = load(name)
    lm.save_to_preset(tmp_path)
    found = logits(type(lm).from_preset(tmp_path, preprocessor=None))
    np.testing.assert_array_equal(found, logits(lm))
    assert np.abs(found).max() > 0.1


def test_the_files(load: Any, tmp_path: Path) -> None:
    load("olmo2").save_to_preset(tmp_path)
    assert files(tmp_path) >= {
        *("config.json", "metadata.json", "preprocessor.json", "task.json", "tokenizer.json"),
        *("model.weights.h5", "assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"),
    }
    for filename, class_name in (
        ("config.json", "Olmo2Backbone"),
        ("task.json", "Olmo2CausalLM"),
        ("preprocessor.json", "Olmo2CausalLMPreprocessor"),
        ("tokenizer.json", "BytePairTokenizer"),
    ):
        stored = json.loads((tmp_path / filename).read_text())
        assert stored["registered_name"] == f"nextword>{class_name}"
        assert stored["class_name"] == class_name
        module = getattr(nextword, stored["module"].removeprefix("nextword."))
        assert getattr(module, class_name).__name__ == class_name
    # Keras itself knows what is registered so.
    backbone = keras.saving.deserialize_keras_object(
        json.loads((tmp_path / "config.json").read_text())
    )
    assert backbone.config == Backbone.from_preset(tmp_path, load_weights=False).config


def test_parts(load: Any, tmp_path: Path) -> None:
    lm = load("stablelm")
    lm.backbone.save_to_preset(tmp_path)
    with pytest.raises(PresetError, match="has no tokenizer"):
        CausalLM.from_preset(tmp_path)
    lm.preprocessor.save_to_preset(tmp_path)
    assert type(CausalLMPreprocessor.from_preset(tmp_path)) is type(lm.preprocessor)
    assert type(Tokenizer.from_preset(tmp_path)) is BytePairTokenizer
    assert_same(CausalLM.from_preset(tmp_path), lm)


def test_sharded(load: Any, tmp_path: Path) -> None:
    lm = load("granite-moe")
    lm.save_to_preset(tmp_path, max_shard_size=20 * TINY_SHARDS)
    assert len(list(tmp_path.glob("model_*.weights.h5"))) > 2
    assert_same(CausalLM.from_preset(tmp_path), lm)


def test_int8(load: Any, tmp_path: Path) -> None:
    lm = load("deepseek-v2", "bfloat16")
    lm.quantize("int8")
    lm.save_to_preset(tmp_path)
    again = CausalLM.from_preset(tmp_path)
    assert "int8" in {weight.dtype for weight in again.weights}
    assert_same(again, lm)


def test_lora(load: Any, tmp_path: Path) -> None:
    lm = load("starcoder2")
    lm.save_to_preset(tmp_path / "preset")
    lm.backbone.enable_lora(2)
    random = np.random.default_rng(0)
    for variable in lm.trainable_variables:
        variable.assign(random.normal(size=variable.shape))
    lm.backbone.save_lora_weights(tmp_path / "task.lora.h5")
    again = CausalLM.from_preset(tmp_path / "preset")
    again.backbone.load_lora_weights(tmp_path / "task.lora.h5")
    assert_same(again, lm)
    # In a preset, the updates are merged into the weights.
    lm.save_to_preset(tmp_path / "merged")
    merged = logits(CausalLM.from_preset(tmp_path / "merged"))
    np.testing.assert_allclose(merged, logits(lm), atol=1e-4 * np.abs(merged).max())


def unigram(path: Path) -> Tokenizer:
    pieces = [("<unk>", 0.0), ("▁", -1.0), *((letter, -2.0) for letter in "abcde"), ("▁ab", -1.5)]
    library = tokenizers.Tokenizer(library_models.Unigram(pieces, unk_id=0))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    library.decoder = tokenizers.decoders.Metaspace()
    library.save(str(path))
    return UnigramTokenizer.from_tokenizer_json(path)


def test_every_kind_of_tokenizer(load: Any, tmp_path: Path) -> None:
    lm = load("glm")
    word_pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ab", "abc", "##d"]
    for tokenizer in (
        unigram(tmp_path / "unigram.json"),
        SentencePieceTokenizer(sentence_piece_proto()),
        WordPieceTokenizer(word_pieces, lowercase=True),
        BytePairTokenizer(VOCABULARY, MERGES, split="tekken"),
    ):
        preprocessor = type(lm.preprocessor)(tokenizer)
        type(lm)(lm.backbone, preprocessor).save_to_preset(tmp_path / "preset", overwrite=True)
        again = CausalLM.from_preset(tmp_path / "preset").preprocessor.tokenizer
        assert type(again) is type(tokenizer)
        assert again.get_vocabulary() == tokenizer.get_vocabulary()
        assert again.get_config() == tokenizer.get_config()
        text = "abc abd\n\nab"
        assert again.tokenize(text) == tokenizer.tokenize(text) != []


def test_a_tokenizer_of_another_family(load: Any, tmp_path: Path) -> None:
    lm = load("glm")
    tokenizer = nextword.models.GPT2Tokenizer(VOCABULARY, MERGES)
    type(lm)(lm.backbone, type(lm.preprocessor)(tokenizer)).save_to_preset(tmp_path)
    again = CausalLM.from_preset(tmp_path).preprocessor.tokenizer
    assert type(again) is BytePairTokenizer
    assert again.tokenize("abcd ab") == tokenizer.tokenize("abcd ab")
    assert again.end_token_id == tokenizer.end_token_id


def test_a_tokenizer_of_no_kind(load: Any, tmp_path: Path) -> None:
    preprocessor = type(load("glm").preprocessor)(mock.Mock(spec=Tokenizer))
    with pytest.raises(PresetError, match="can hold a tokenizer of the classes BytePairTokenizer"):
        preprocessor.save_to_preset(tmp_path / "preset")
    assert not list(tmp_path.iterdir())


def test_the_card_of_an_upload(load: Any, tmp_path: Path) -> None:
    load("cohere").save_to_preset(tmp_path)
    source = resolve_preset(tmp_path)
    card = ModelCard.of(source, open_checkpoint(source)).markdown("me/mine")
    assert "library_name: nextword\npipeline_tag: text-generation" in card
    assert "`CohereBackbone`" in card
    assert "as a preset of nextword." in card


def test_classes_that_do_not_match(load: Any, tmp_path: Path) -> None:
    lm = load("phi")
    lm.save_to_preset(tmp_path / "preset")
    for cls in (nextword.models.GPT2CausalLM, nextword.models.Olmo2CausalLM):
        with pytest.raises(PresetError, match=f"holds a PhiCausalLM, which is no {cls.__name__}"):
            cls.from_preset(tmp_path / "preset")
    with pytest.raises(PresetError, match=r"holds a PhiBackbone\. Pass `overwrite=True`"):
        load("olmo2").save_to_preset(tmp_path / "preset")


@pytest.mark.parametrize(
    ("filename", "registered_name", "message"),
    [
        ("config.json", "keras_hub>PhiBackbone", "'PhiBackbone', which is not supported"),
        ("config.json", "nextword>GPT2Backbone", "'GPT2Backbone', which is not supported"),
        ("config.json", "nextword>Engine", "'Engine', which is not supported"),
        ("config.json", "nextword>os.system", "must have a 'registered_name'"),
        ("config.json", "builtins>exec", "must have a 'registered_name'"),
        ("tokenizer.json", "keras_hub>BytePairTokenizer", r"not supported\.$"),
        ("tokenizer.json", "nextword>GPT2Tokenizer", "not supported"),
    ],
)
def test_names_that_are_no_model_s(
    load: Any, tmp_path: Path, filename: str, registered_name: str, message: str
) -> None:
    load("phi").save_to_preset(tmp_path)
    path = tmp_path / filename
    stored = json.loads(path.read_text()) | {"registered_name": registered_name}
    path.write_text(json.dumps(stored))
    with pytest.raises(PresetError, match=message):
        CausalLM.from_preset(tmp_path)


QUERY = "transformer_layer_0/self_attention/query/kernel"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({QUERY: None}, f"lacks the tensor '{QUERY}'"),
        ({"transformer_layer_0/self_attention/gate": np.zeros(4)}, "holds the tensor '.*/gate'"),
        ({f"{QUERY}_scale": np.ones(32)}, "holds the tensor '.*/kernel_scale'"),
        (
            {QUERY: np.zeros((2, 2), "float32")},
            r"the shape .* \(2, 2\)",
        ),
        ({QUERY: np.zeros((32, 32), "int8")}, "lacks the tensor '.*/kernel_scale'"),
        ({"output_norm/scale": np.zeros(32, "int8")}, "in float32. Received: int8"),
    ],
)
def test_weights_that_are_no_model_s(
    load: Any, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    load("olmo2").save_to_preset(tmp_path)
    with h5py.File(tmp_path / "model.weights.h5", "a") as file:
        for name, value in values.items():
            if name in file:
                del file[name]
            if value is not None:
                file[name] = value
    with pytest.raises(PresetError, match=message):
        CausalLM.from_preset(tmp_path)


def test_more_layers_than_are_stored(load: Any, tmp_path: Path) -> None:
    load("olmo2").save_to_preset(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    stored["config"]["num_layers"] = 4000
    path.write_text(json.dumps(stored))
    with pytest.raises(PresetError, match="lacks the tensors .* and .* more"):
        CausalLM.from_preset(tmp_path)
