"""Presets move between KerasHub and nextword, in both directions, with the same logits."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nextword
from families.cases import CASES as TRANSFORMERS_CASES
from keras_presets import (
    CASES,
    TINY_SHARDS,
    assert_close,
    assert_same_weights,
    save,
)

pytest.importorskip("keras_hub")
# KerasHub leaves the file of a SentencePiece model open.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in.*vocabulary\.spm:pytest.PytestUnraisableExceptionWarning"
)


def theirs_loads(name: str, directory: Path, dtype: str = "float32") -> Any:
    # Without `dtype` KerasHub loads every preset in float32.
    return CASES[name].cls("CausalLM").from_preset(str(directory), dtype=dtype)


@dataclass(frozen=True)
class Journey:
    """A model on its way through both libraries."""

    name: str
    dtype: str
    directory: Path
    theirs: Any
    """Made by KerasHub, and saved in `directory / "theirs"`."""
    ours: Any
    """Loaded from there by nextword, and saved in `directory / "ours"`."""
    back: Any
    """Loaded from there by KerasHub."""
    again: Any
    """Loaded from there by nextword."""


JOURNEYS = [
    ("gpt2", "float32"),
    ("gpt2", "bfloat16"),
    ("llama", "float32"),
    ("llama3-tied", "bfloat16"),
    ("llama3-scaled", "float32"),
    *itertools.product(["mistral", "mixtral", "qwen3", "phi3"], ["float32", "bfloat16"]),
    ("mistral-tekken", "float32"),
    ("phi3-long", "float32"),
    ("qwen", "float32"),
    ("qwen-head", "bfloat16"),
    *itertools.product(["gemma2", "opt", "bloom", "gpt-neox", "falcon"], ["float32", "bfloat16"]),
    ("gemma", "float32"),
    *itertools.product(["gemma3", "qwen-moe", "qwen3-moe", "gpt-oss"], ["float32", "bfloat16"]),
    ("smollm3", "float32"),  # its dtype KerasHub does not heed
]


@pytest.fixture(scope="module", params=JOURNEYS, ids="-".join)
def journey(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Journey:
    name, dtype = request.param
    directory = tmp_path_factory.mktemp(f"{name}-{dtype}")
    theirs = save(directory / "theirs", name, dtype)
    load = nextword.models.CausalLM.from_preset
    ours = load(directory / "theirs")
    ours.save_to_preset(directory / "ours")
    back = theirs_loads(name, directory / "ours", dtype)
    return Journey(name, dtype, directory, theirs, ours, back, load(directory / "ours"))


def test_logits_are_the_same_everywhere(journey: Journey) -> None:
    assert {weight.dtype for weight in journey.ours.weights} == {journey.dtype}
    if journey.dtype == "float32":
        assert_close(journey.ours, journey.theirs)
    else:  # the order of additions differs, so compare what the same weights give in float32
        precise = nextword.models.CausalLM.from_preset(
            journey.directory / "theirs", dtype="float32", preprocessor=None
        )
        assert_close(precise, theirs_loads(journey.name, journey.directory / "ours"))
    assert_same_weights(journey.back, journey.theirs)
    assert_same_weights(journey.again, journey.ours)
    assert journey.again.backbone.config == journey.ours.backbone.config


def test_our_files_hold_what_theirs_do(journey: Journey) -> None:
    for filename in ("config.json", "task.json", "preprocessor.json", "tokenizer.json"):
        expected = json.loads((journey.directory / "theirs" / filename).read_text())
        found = json.loads((journey.directory / "ours" / filename).read_text())
        _assert_holds(found, expected, filename)
    metadata = json.loads((journey.directory / "ours" / "metadata.json").read_text())
    assert metadata["parameter_count"] == journey.theirs.backbone.count_params()


def _assert_holds(found: Any, expected: Any, where: str) -> None:
    if isinstance(expected, dict):
        assert expected.keys() <= found.keys(), where
        for key in expected.keys() - {"name", "unsplittable_tokens"}:
            _assert_holds(found[key], expected[key], f"{where}/{key}")
    else:
        assert found == expected, where


def test_the_tokenizer_and_the_preprocessor_come_along(journey: Journey) -> None:
    models = (journey.theirs, journey.ours, journey.back, journey.again)
    expected = list(journey.theirs.preprocessor.tokenizer.tokenize("abcdab"))
    start_token_id = journey.theirs.preprocessor.tokenizer.start_token_id
    assert len(expected) < 6
    for model in models:
        preprocessor = model.preprocessor
        assert preprocessor.sequence_length == 12
        assert preprocessor.add_end_token is False
        assert preprocessor.add_start_token is True
        # One word, since KerasHub does not split text into words.
        assert list(preprocessor.tokenizer.tokenize("abcdab")) == expected
        assert preprocessor.tokenizer.start_token_id == start_token_id
    assert type(journey.again.preprocessor.tokenizer) is type(journey.ours.preprocessor.tokenizer)


def test_sharded_both_ways(tmp_path: Path) -> None:
    theirs = save(tmp_path / "theirs", "llama3", "bfloat16", max_shard_size=TINY_SHARDS)
    assert len(list((tmp_path / "theirs").glob("model_*.weights.h5"))) > 2
    ours = nextword.models.CausalLM.from_preset(tmp_path / "theirs")
    expected = theirs_loads("llama3", tmp_path / "theirs")
    precise = nextword.models.CausalLM.from_preset(tmp_path / "theirs", dtype="float32")
    assert_close(precise, expected)

    ours.save_to_preset(tmp_path / "ours", max_shard_size=TINY_SHARDS)
    shards = list((tmp_path / "ours").glob("model_*.weights.h5"))
    assert len(shards) > 2
    assert not (tmp_path / "ours" / "model.weights.h5").exists()
    again = nextword.models.CausalLM.from_preset(tmp_path / "ours")
    assert_same_weights(again, ours)
    back = theirs_loads("llama3", tmp_path / "ours", "bfloat16")
    assert_same_weights(back, theirs)


def test_a_group_of_tensors_that_straddles_shards(tmp_path: Path) -> None:
    theirs = save(tmp_path / "theirs", "llama3")
    embedding = 23 * 16 * 4
    ours = nextword.models.CausalLM.from_preset(tmp_path / "theirs")
    ours.save_to_preset(tmp_path / "ours", max_shard_size=1.5 * embedding / 2**30)
    index = json.loads((tmp_path / "ours" / "model.weights.json").read_text())
    assert len(index["weight_map"]["/layers/reversible_embedding/vars"]) == 2
    assert_close(nextword.models.CausalLM.from_preset(tmp_path / "ours"), theirs)
    assert_close(theirs_loads("llama3", tmp_path / "ours"), theirs)


# KerasHub warns, and then fails.
@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_tied_weights_survive_here_and_not_in_keras_hub(tmp_path: Path) -> None:
    theirs = save(tmp_path, "llama3-tied")
    assert "tie_word_embeddings" not in (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match="token_embedding"):
        theirs_loads("llama3-tied", tmp_path)
    ours = nextword.models.CausalLM.from_preset(tmp_path)
    assert ours.backbone.config.tie_word_embeddings
    assert_close(ours, theirs)


def test_presets_from_the_time_of_keras_nlp(tmp_path: Path) -> None:
    theirs = save(tmp_path, "gpt2")
    for path in tmp_path.glob("*.json"):
        path.write_text(path.read_text().replace("keras_hub", "keras_nlp"))
    assert_close(nextword.models.CausalLM.from_preset(tmp_path), theirs)


def test_linear_scaling_that_keras_hub_does_not_heed(tmp_path: Path) -> None:
    backbone = nextword.models.LlamaBackbone(
        **CASES["llama"].arguments, rope_position_scaling_factor=2.0
    )
    with pytest.warns(UserWarning, match="Llama3Backbone.*rope_position_scaling_factor"):
        backbone.save_to_preset(tmp_path / "preset")
    again = nextword.models.Backbone.from_preset(tmp_path / "preset")
    assert again.config == backbone.config


@pytest.mark.parametrize(
    "name",
    [
        *("llama", "gpt2", "mistral", "qwen2", "qwen3", "phi3"),
        *("gemma", "gemma2", "opt", "bloom", "falcon-1b", "smollm3", "qwen2-moe"),
    ],
)
def test_a_checkpoint_of_transformers_becomes_a_preset(tmp_path: Path, name: str) -> None:
    import keras_hub

    next(case for case in TRANSFORMERS_CASES if case.name == name).make(tmp_path / "checkpoint")
    ours = nextword.models.CausalLM.from_preset(tmp_path / "checkpoint", preprocessor=None)
    ours.save_to_preset(tmp_path / "preset")  # warnings are errors
    backbone = keras_hub.models.Backbone.from_preset(str(tmp_path / "preset"))
    case = {"llama": "llama3", "qwen2": "qwen", "falcon-1b": "falcon"}.get(name, name)
    case = "qwen-moe" if name == "qwen2-moe" else case
    theirs = CASES[case].cls("CausalLM")(backbone=backbone, preprocessor=None)
    assert_close(ours, theirs)
