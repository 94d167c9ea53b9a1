"""Keras' own ways to save a model: configurations, `.keras` files, weight files."""

import inspect
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nextword
from nextword.tokenizers import load_tokenizer
from trained_tokenizers import byte_level_library, checkpoint, save

TEXTS = ["hello world", "the quick brown fox"]


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("tokenizer")
    save(byte_level_library("gpt-2", TEXTS, size=270), directory, eos_token="<|im_end|>")
    tokenizer = load_tokenizer(checkpoint(directory))
    keras.utils.set_random_seed(4)
    backbone = nextword.models.LlamaBackbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=2,
        num_query_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
        num_key_value_heads=1,
        rope_max_wavelength=5000,
        name="the_backbone",
    )
    preprocessor = nextword.models.LlamaCausalLMPreprocessor(
        tokenizer, sequence_length=9, add_end_token=False
    )
    lm = nextword.models.LlamaCausalLM(backbone, preprocessor, name="my_model")
    lm.compile(
        optimizer=keras.optimizers.AdamW(1e-2, weight_decay=0.1),
        sampler=nextword.samplers.TopKSampler(k=3, temperature=0.5, seed=8),
    )
    lm.train_on_batch(TEXTS)
    return lm


def logits(lm: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(lm(inputs()))


def inputs() -> dict[str, np.ndarray]:
    return {"token_ids": np.array([[5, 6, 7]]), "padding_mask": np.ones((1, 3), "int32")}


def test_config_round_trip(lm: Any) -> None:
    config = lm.get_config()
    again = nextword.models.LlamaCausalLM.from_config(config)
    assert again.get_config() == config
    assert again.backbone.get_config() == lm.backbone.get_config()
    assert again.backbone.name == "the_backbone"
    assert again.preprocessor.sequence_length == 9
    again.set_weights(lm.get_weights())
    np.testing.assert_array_equal(logits(again), logits(lm))
    # The configuration is a copy: what is made from it does not change it.
    assert lm.get_config() == config


def test_arguments_are_attributes(lm: Any) -> None:
    config = lm.backbone.get_config()
    for name in inspect.signature(lm.backbone.describe).parameters:
        assert getattr(lm.backbone, name) == config[name]
    assert lm.backbone.hidden_dim == 8
    with pytest.raises(AttributeError, match="num_experts"):
        _ = lm.backbone.num_experts


class OwnSampler(nextword.samplers.Sampler):
    def get_next_token(self, probabilities: Any) -> Any:
        return keras.ops.argmin(probabilities, axis=-1)


@keras.saving.register_keras_serializable("tests")
class RegisteredSampler(OwnSampler):
    pass


@pytest.mark.parametrize(
    ("cls", "custom_objects"),
    [(OwnSampler, {"OwnSampler": OwnSampler}), (RegisteredSampler, None)],
)
def test_keras_file_with_a_users_sampler(
    lm: Any, tmp_path: Path, cls: type, custom_objects: dict[str, Any] | None
) -> None:
    model = nextword.models.LlamaCausalLM(lm.backbone, lm.preprocessor)
    model.compile(sampler=cls())
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="Unknown sampler") if custom_objects else nullcontext():
        keras.saving.load_model(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", custom_objects=custom_objects)
    assert type(again.sampler) is cls
    assert again.generate("hello", max_new_tokens=3) == model.generate("hello", max_new_tokens=3)


def test_config_without_a_preprocessor(lm: Any) -> None:
    bare = nextword.models.LlamaCausalLM(lm.backbone, name="bare")
    again = nextword.models.CausalLM.from_config(bare.get_config())
    assert again.preprocessor is None
    assert again.name == "bare"


def test_keras_file(lm: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    keras.saving.save_model(lm, path)
    again = keras.saving.load_model(path)
    assert type(again) is nextword.models.LlamaCausalLM
    np.testing.assert_array_equal(logits(again), logits(lm))
    assert again.preprocessor(TEXTS)[1].tolist() == lm.preprocessor(TEXTS)[1].tolist()
    # Training goes on where it was: the optimizer with its state, the sampler as it was given.
    assert again.optimizer.get_config() == lm.optimizer.get_config()
    for found, expected in zip(again.optimizer.variables, lm.optimizer.variables, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert nextword.samplers.serialize(again.sampler) == nextword.samplers.serialize(lm.sampler)
    assert again.generate("hello", max_length=8) == lm.generate("hello", max_length=8)


def test_keras_file_of_a_model_that_was_never_trained(lm: Any, tmp_path: Path) -> None:
    untrained = nextword.models.LlamaCausalLM.from_config(lm.get_config())
    untrained.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert not again.optimizer.built
    np.testing.assert_array_equal(logits(again), logits(untrained))


def test_keras_file_in_a_new_process(lm: Any, tmp_path: Path) -> None:
    lm.save(tmp_path / "model.keras")
    np.save(tmp_path / "logits.npy", logits(lm))
    code = (
        "import nextword, keras, numpy as np\n"
        "nextword.models.LlamaCausalLM  # imports the class, and so registers it\n"
        "lm = keras.saving.load_model('model.keras')\n"
        "inputs = {'token_ids': np.array([[5, 6, 7]]), 'padding_mask': np.ones((1, 3), 'int32')}\n"
        "np.testing.assert_allclose(lm(inputs), np.load('logits.npy'), atol=1e-6)\n"
        "assert lm.preprocessor.sequence_length == 9\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)


# The file holds the optimizer's state, too, which a model that was not trained has no place for.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_weights_file(lm: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.weights.h5"
    lm.save_weights(path)
    again = nextword.models.LlamaCausalLM.from_config(lm.get_config())
    assert (logits(again) != logits(lm)).any()
    again.load_weights(path)
    np.testing.assert_array_equal(logits(again), logits(lm))


def test_layers_and_summary(lm: Any) -> None:
    assert lm.backbone.get_layer("transformer_layer_1") is lm.backbone.transformer_layers[1]
    assert lm.get_layer("the_backbone") is lm.backbone
    assert lm.count_params() == sum(weights.size for weights in lm.get_weights())
    lines: list[str] = []
    lm.summary(print_fn=lambda text, **kwargs: lines.append(text))
    text = "\n".join(lines)
    for shown in [
        "LlamaCausalLMPreprocessor",
        "sequence_length: 9",
        "add_end_token: False",
        "BytePairTokenizer",
        f"vocabulary size: {lm.preprocessor.tokenizer.vocabulary_size():,}",
        "the_backbone",
        f"{lm.count_params():,}",
    ]:
        assert shown in text


def test_summary_is_printed(lm: Any, capsys: Any) -> None:
    lm.summary(line_length=60)
    printed = capsys.readouterr().out
    assert "Preprocessor" in printed
    assert max(map(len, printed.splitlines())) <= 60
    preprocessor, lm.preprocessor = lm.preprocessor, None
    lm.summary()
    lm.preprocessor = preprocessor
    assert "Preprocessor" not in capsys.readouterr().out
