"""Saving: whole or not at all, never mixed with something else, and loaded again at every level."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nextword
from keras_presets import MERGES, VOCABULARY
from nextword.models import Backbone, CausalLM, CausalLMPreprocessor
from nextword.presets import PresetError

SIZES = {"vocabulary_size": 23, "num_layers": 1, "hidden_dim": 8, "intermediate_dim": 12}
GPT2 = SIZES | {"num_heads": 2, "max_sequence_length": 16}
LLAMA = SIZES | {"num_query_heads": 2, "num_key_value_heads": 1}


def gpt2(seed: int = 0, **changes: Any) -> Any:
    keras.utils.set_random_seed(seed)
    tokenizer = nextword.models.GPT2Tokenizer(VOCABULARY, MERGES)
    preprocessor = nextword.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=9)
    return nextword.models.GPT2CausalLM(
        nextword.models.GPT2Backbone(**GPT2 | changes), preprocessor
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved")
    gpt2().save_to_preset(directory)
    return directory


@pytest.fixture
def preset(saved: Path, tmp_path: Path) -> Path:
    """A preset of `gpt2()`, to be changed at will."""
    return shutil.copytree(saved, tmp_path / "preset")


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def weights(model: Any) -> list[np.ndarray]:
    return [np.asarray(weight) for weight in model.weights]


def same(one: Any, other: Any) -> bool:
    return all(map(np.array_equal, weights(one), weights(other)))


def test_the_model_and_each_part_load_again(tmp_path: Path) -> None:
    lm = gpt2()
    lm.save_to_preset(tmp_path / "preset")
    assert not list(tmp_path.glob(".*"))  # nothing is left beside it
    again = CausalLM.from_preset(tmp_path / "preset")
    assert type(again) is type(lm)
    assert same(again, lm)
    assert again.backbone.get_config() | {"name": ""} == lm.backbone.get_config() | {"name": ""}

    backbone = Backbone.from_preset(tmp_path / "preset")
    assert type(backbone) is nextword.models.GPT2Backbone
    assert same(backbone, lm.backbone)
    preprocessor = CausalLMPreprocessor.from_preset(tmp_path / "preset")
    assert type(preprocessor) is nextword.models.GPT2CausalLMPreprocessor
    assert preprocessor.sequence_length == 9
    assert type(preprocessor.tokenizer) is nextword.models.GPT2Tokenizer


def test_weights_are_not_fetched_for_a_preprocessor(preset: Path) -> None:
    (preset / "model.weights.h5").unlink()
    preprocessor = CausalLMPreprocessor.from_preset(preset, add_end_token=False)
    assert (preprocessor.sequence_length, preprocessor.add_end_token) == (9, False)


def test_the_tokenizer_alone(preset: Path) -> None:
    (preset / "model.weights.h5").unlink()
    for cls in (nextword.tokenizers.Tokenizer, nextword.models.GPT2Tokenizer):
        tokenizer = cls.from_preset(preset, sequence_length=4)
        assert type(tokenizer) is nextword.models.GPT2Tokenizer
        assert tokenizer.tokenize("abcdab").tolist() == [18, 13, 16, 0]
    with pytest.raises(PresetError, match="holds a GPT2Tokenizer, which is no SentencePiece"):
        nextword.tokenizers.SentencePieceTokenizer.from_preset(preset)
    with pytest.raises(TypeError, match="Did you mean 'sequence_length'"):
        nextword.tokenizers.Tokenizer.from_preset(preset, sequence_len=3)


def test_arguments_of_from_preset(tmp_path: Path) -> None:
    gpt2(dtype="bfloat16").save_to_preset(tmp_path / "preset")
    assert CausalLM.from_preset(tmp_path / "preset").weights[0].dtype == "bfloat16"
    lm = CausalLM.from_preset(tmp_path / "preset", dtype="float32", sequence_length=4, name="mine")
    assert lm.weights[0].dtype == "float32"
    assert (lm.preprocessor.sequence_length, lm.name) == (4, "mine")
    assert CausalLM.from_preset(tmp_path / "preset", preprocessor=None).preprocessor is None
    backbone = nextword.models.GPT2Backbone.from_preset(
        tmp_path / "preset", load_weights=False, max_sequence_length=5
    )
    assert backbone.config.context_length == 5


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (CausalLM, {"load_weight": False}, "'load_weight'. Did you mean 'load_weights'"),
        (CausalLM, {"sequence_lenght": 4}, "Did you mean 'sequence_length'"),
        (CausalLM, {"load_weights": "no"}, "`load_weights` must be True or False"),
        (Backbone, {"dtpye": "float32"}, "Did you mean 'dtype'"),
        (Backbone, {"preprocessor": None}, "no argument 'preprocessor'"),
        (CausalLMPreprocessor, {"add_end_tokens": True}, "Did you mean 'add_end_token'"),
    ],
)
def test_unknown_arguments(tmp_path: Path, cls: Any, arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        cls.from_preset(tmp_path / "not there", **arguments)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LlamaCausalLM", "holds a GPT2CausalLM, which is no LlamaCausalLM"),
        ("LlamaBackbone", "holds a GPT2Backbone, which is no LlamaBackbone"),
        ("LlamaCausalLMPreprocessor", "which is no LlamaCausalLMPreprocessor"),
    ],
)
def test_a_preset_of_another_family(preset: Path, name: str, message: str) -> None:
    with pytest.raises(PresetError, match=message):
        getattr(nextword.models, name).from_preset(preset)


def test_keras_hub_has_two_names_for_one_family() -> None:
    for kind in ("Backbone", "CausalLM", "CausalLMPreprocessor"):
        models = nextword.models
        assert getattr(models, f"Llama3{kind}") is getattr(models, f"Llama{kind}")


def test_a_model_without_a_preprocessor(tmp_path: Path) -> None:
    lm = nextword.models.GPT2CausalLM(nextword.models.GPT2Backbone(**GPT2))
    lm.save_to_preset(tmp_path / "whole")
    assert CausalLM.from_preset(tmp_path / "whole").preprocessor is None
    with pytest.raises(PresetError, match="saved without a preprocessor"):
        CausalLMPreprocessor.from_preset(tmp_path / "whole")

    lm.backbone.save_to_preset(tmp_path / "backbone")
    with pytest.raises(PresetError, match="has no tokenizer.*`preprocessor=None`"):
        CausalLM.from_preset(tmp_path / "backbone")
    assert same(CausalLM.from_preset(tmp_path / "backbone", preprocessor=None), lm)


def test_parts_that_are_saved_one_by_one(tmp_path: Path) -> None:
    lm = gpt2()
    lm.preprocessor.save_to_preset(tmp_path)
    lm.backbone.save_to_preset(tmp_path)
    whole = CausalLM.from_preset(tmp_path)
    assert same(whole, lm)
    assert whole.preprocessor.sequence_length == 9

    lm.preprocessor.sequence_length = 5
    whole.save_to_preset(tmp_path)
    lm.preprocessor.save_to_preset(tmp_path)
    assert CausalLM.from_preset(tmp_path).preprocessor.sequence_length == 5


def test_saving_again_replaces_every_file(tmp_path: Path) -> None:
    gpt2(0).save_to_preset(tmp_path, max_shard_size=1e-6)
    assert list(tmp_path.glob("model_*.h5"))
    (tmp_path / "README.md").write_text("kept")
    lm = gpt2(1)
    lm.save_to_preset(tmp_path)
    assert not list(tmp_path.glob("model_*.h5"))
    assert not (tmp_path / "model.weights.json").exists()
    assert (tmp_path / "README.md").read_text() == "kept"
    assert same(CausalLM.from_preset(tmp_path), lm)


def other_size(directory: Path) -> None:
    gpt2(hidden_dim=16).save_to_preset(directory)


def other_family(directory: Path) -> None:
    nextword.models.LlamaBackbone(**LLAMA).save_to_preset(directory)


def notes(directory: Path) -> None:
    (directory / "notes.txt").write_text("mine")


def transformers_checkpoint(directory: Path) -> None:
    (directory / "config.json").write_text('{"model_type": "gpt2"}')


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (other_size, "holds a GPT2Backbone of another configuration"),
        (other_family, "holds a Llama3Backbone"),
        (notes, "holds 'notes.txt'"),
        (transformers_checkpoint, "holds a config.json that is not KerasHub's"),
    ],
)
def test_presets_are_not_mixed(tmp_path: Path, fill: Callable[[Path], None], message: str) -> None:
    fill(tmp_path)
    before = files(tmp_path)
    lm = gpt2()
    with pytest.raises(PresetError, match=f"{message}.*`overwrite=True`"):
        lm.save_to_preset(tmp_path)
    with pytest.raises(PresetError, match=message):
        lm.backbone.save_to_preset(tmp_path)
    assert files(tmp_path) == before
    lm.save_to_preset(tmp_path, overwrite=True)
    assert same(CausalLM.from_preset(tmp_path), lm)
    assert ("notes.txt" in files(tmp_path)) == ("notes.txt" in before)


def test_a_tokenizer_is_not_mixed_with_another_family(tmp_path: Path) -> None:
    other_family(tmp_path)
    with pytest.raises(PresetError, match="holds a Llama3Backbone"):
        gpt2().preprocessor.save_to_preset(tmp_path)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "preset").write_text("mine")
    with pytest.raises(PresetError, match="which is a file"):
        gpt2().save_to_preset(tmp_path / "preset", overwrite=True)
    assert (tmp_path / "preset").read_text() == "mine"


@pytest.mark.parametrize("moment", ["weights", "tokenizer", "rename"])
def test_an_interrupted_save_leaves_the_old_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    directory = tmp_path / "preset"
    gpt2(0).save_to_preset(directory)
    before = files(directory)

    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    lm = gpt2(1)
    if moment == "weights":
        monkeypatch.setattr("h5py.Group.create_dataset", interrupt)
    elif moment == "tokenizer":
        monkeypatch.setattr(lm.preprocessor.tokenizer, "save_assets", interrupt)
    else:
        rename = Path.rename

        def fails_for_the_new(path: Path, target: Path) -> Path:
            if path.name.endswith(".new"):
                raise KeyboardInterrupt
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", fails_for_the_new)
    with pytest.raises(KeyboardInterrupt):
        lm.save_to_preset(directory)
    assert files(directory) == before
    assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (0, ValueError, "`max_shard_size` must be positive"),
        (-1, ValueError, "`max_shard_size` must be positive"),
        (float("nan"), ValueError, "`max_shard_size` must be positive"),
        ("10", TypeError, "`max_shard_size` must be a number"),
        (True, TypeError, "`max_shard_size` must be a number"),
        (1e-9, ValueError, "at least the size of the largest tensor"),
    ],
)
def test_max_shard_size(tmp_path: Path, size: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gpt2().save_to_preset(tmp_path / "preset", max_shard_size=size)
    assert not (tmp_path / "preset").exists()


def test_what_keras_hub_cannot_express(tmp_path: Path) -> None:
    backbone = nextword.models.LlamaBackbone(
        **LLAMA, head_dim=6, attention_bias=True, context_length=64
    )
    with pytest.warns(UserWarning, match=r"does not know or heed head_dim, attention_bias: it"):
        backbone.save_to_preset(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["config"]
    assert (config["head_dim"], config["context_length"]) == (6, 64)
    assert "feed_forward_bias" not in config  # has its default
    again = Backbone.from_preset(tmp_path)
    assert again.config == backbone.config
    assert same(again, backbone)


def test_a_declared_context_makes_keras_hub_no_trouble(tmp_path: Path) -> None:
    keras_hub = pytest.importorskip("keras_hub")
    backbone = nextword.models.LlamaBackbone(**LLAMA, context_length=64)
    backbone.save_to_preset(tmp_path)  # warnings are errors
    theirs = keras_hub.models.Backbone.from_preset(str(tmp_path))
    assert theirs.count_params() == backbone.count_params()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_dim": 2**63}, "'hidden_dim'.*integer from 1 to"),
        ({"hidden_dim": -1}, "'hidden_dim'.*Received: -1"),
        ({"hidden_dim": "8"}, "'hidden_dim'.*Received: '8'"),
        ({"hidden_dim": None}, "lacks the key 'hidden_dim'"),
        ({"num_layers": 10**9}, "num_layers.*1000000000"),
        ({"num_layers": 2}, "lacks the tensors 'layers/transformer_decoder_1/"),
        ({"num_heads": 3}, "'layers/transformer_decoder/_self_attention_layer/"),
        ({"vocabulary_size": 24}, r"'layers/reversible_embedding/vars/0'.*\(24, 8\)"),
        ({"dropout": "os.system"}, "'dropout'.*a number in"),
        ({"dropout": 1.5}, "'dropout'.*a number in"),
        ({"attention_sinks": 4}, "does not know.*attention_sinks=4"),
        ({"weights_url": "http://127.0.0.1/x"}, "does not know.*weights_url"),
    ],
)
def test_the_stored_arguments_are_checked(
    preset: Path, changes: dict[str, Any], message: str
) -> None:
    path = preset / "config.json"
    stored = json.loads(path.read_text())
    stored["config"] |= changes
    path.write_text(json.dumps(stored))
    with pytest.raises(PresetError, match=message):
        CausalLM.from_preset(preset)


@pytest.mark.parametrize(
    ("filename", "changes", "message"),
    [
        ("config.json", {"registered_name": "keras_hub>AlbertBackbone"}, "'AlbertBackbone'"),
        ("tokenizer.json", {"registered_name": "keras_hub>GPT3Tokenizer"}, "GPT3Tokenizer, which"),
        ("tokenizer.json", {"registered_name": "os>system"}, "must have a 'registered_name'"),
        ("tokenizer.json", {"config": {"split": "qwen2"}}, "must have no key 'split'"),
        ("preprocessor.json", {"config": {"sequence_length": -3}}, "sequence_length.*-3"),
        ("preprocessor.json", {"config": {"add_end_token": "no"}}, "'add_end_token'.*'no'"),
    ],
)
def test_other_files_are_checked(
    preset: Path, filename: str, changes: dict[str, Any], message: str
) -> None:
    path = preset / filename
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(PresetError, match=message):
        CausalLM.from_preset(preset)


def test_a_tokenizer_that_knows_more_tokens_than_the_model(tmp_path: Path) -> None:
    lm = gpt2(vocabulary_size=20)
    lm.save_to_preset(tmp_path)
    with pytest.raises(PresetError, match="at most the 20 tokens.*Received: 21"):
        CausalLM.from_preset(tmp_path)


def test_a_tokenizer_whose_files_are_missing(preset: Path) -> None:
    for path in (preset / "assets" / "tokenizer").iterdir():
        path.unlink()
    with pytest.raises(PresetError, match="must have the files of its tokenizer"):
        CausalLM.from_preset(preset)


def test_task_weights(tmp_path: Path) -> None:
    assert not gpt2().has_task_weights()
    with pytest.raises(ValueError, match="no weights beside"):
        gpt2().save_task_weights(tmp_path / "task.weights.h5")
    with pytest.raises(ValueError, match=r"must end in '.weights.h5'"):
        gpt2().load_task_weights(tmp_path / "task.h5")


def test_a_trained_model_is_saved_as_it_is(tmp_path: Path) -> None:
    lm = gpt2()
    before = weights(lm)
    lm.compile(optimizer=keras.optimizers.SGD(0.1), sampler="greedy")
    lm.fit(["abc ab", "ab abcd"], batch_size=2, verbose=0)
    assert not all(map(np.array_equal, weights(lm), before))
    lm.save_to_preset(tmp_path)
    again = CausalLM.from_preset(tmp_path)
    assert same(again, lm)
    again.compile(sampler="greedy")
    assert again.generate("ab", max_length=6) == lm.generate("ab", max_length=6)


def opt(**changes: Any) -> Any:
    return nextword.models.OPTBackbone(**GPT2 | changes)


def test_an_activation_is_one_of_a_few_names() -> None:
    with pytest.raises(ValueError, match="`activation` must be one of 'gelu', .*'tanh'"):
        opt(activation="tanh")
