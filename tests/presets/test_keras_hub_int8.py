"""Models that nextword and KerasHub round to 8 bits are the same, and so are their presets."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nextword
from keras_presets import CASES, assert_close, logits, save

pytest.importorskip("keras_hub")
pytestmark = [
    # KerasHub leaves the file of a SentencePiece model open.
    pytest.mark.filterwarnings(
        r"ignore:Exception ignored in.*vocabulary\.spm:pytest.PytestUnraisableExceptionWarning"
    ),
    # Keras warns of every layer that it cannot round.
    pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize:UserWarning"),
]

NAMES = ["gpt2", "llama3", "llama3-tied", "mixtral", "phi3", "gemma2"]
NAMES += ["gemma3", "qwen-moe", "qwen3-moe", "gpt-oss", "opt", "bloom", "gpt-neox", "falcon"]


@dataclass(frozen=True)
class Pair:
    """One model in both libraries, each rounded there from the same floats."""

    name: str
    directory: Path
    floats: np.ndarray
    theirs: Any
    ours: Any

    def theirs_loads(self, directory: Path) -> Any:
        return CASES[self.name].cls("CausalLM").from_preset(str(directory))


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    directory = tmp_path_factory.mktemp(request.param)
    theirs = save(directory / "floats", request.param)
    ours = nextword.models.CausalLM.from_preset(directory / "floats")
    floats = logits(ours)
    # Keras refuses layers that it has not built, which have nothing to round.
    theirs.backbone.quantize("int8", filters=lambda layer: layer.built)
    ours.quantize("int8")
    return Pair(request.param, directory, floats, theirs, ours)


def assert_int8(model: Any) -> None:
    """Check that the kernels are held in 8 bits."""
    kernels = [weight for weight in model.backbone.weights if weight.path.endswith("/kernel")]
    assert {weight.dtype for weight in kernels} == {"int8"}


def test_the_same_floats_become_the_same_integers(pair: Pair) -> None:
    expected = logits(pair.theirs)
    assert np.abs(expected - pair.floats).max() > 1e-3 * np.abs(expected).max()
    assert_close(pair.ours, pair.theirs)


def test_keras_hub_s_preset(pair: Pair) -> None:
    pair.theirs.save_to_preset(str(pair.directory / "theirs"))
    ours = nextword.models.CausalLM.from_preset(pair.directory / "theirs")
    assert_int8(ours)
    assert_close(ours, pair.theirs)
    np.testing.assert_array_equal(logits(ours), logits(pair.ours))


def test_a_preset_of_weights_alone(pair: Pair) -> None:
    ours = nextword.models.CausalLM.from_preset(pair.directory / "floats", quantization="int8")
    with pytest.warns(UserWarning, match="KerasHub rounds the inputs of int8 weights"):
        ours.save_to_preset(pair.directory / "weight-only")
    theirs = pair.theirs_loads(pair.directory / "weight-only")
    np.testing.assert_array_equal(logits(theirs), logits(pair.theirs))
    again = nextword.models.CausalLM.from_preset(pair.directory / "weight-only")
    np.testing.assert_array_equal(logits(again), logits(ours))
    assert not np.array_equal(logits(ours), logits(pair.ours))


def test_a_preset_for_keras_hub(pair: Pair) -> None:
    pair.ours.save_to_preset(pair.directory / "ours")
    theirs = pair.theirs_loads(pair.directory / "ours")
    assert_int8(theirs)
    assert_close(pair.ours, theirs)
    np.testing.assert_array_equal(logits(theirs), logits(pair.theirs))


def test_a_bfloat16_model(tmp_path: Path) -> None:
    theirs = save(tmp_path / "floats", "llama3", "bfloat16")
    theirs.backbone.quantize("int8")
    theirs.save_to_preset(str(tmp_path / "theirs"))
    ours = nextword.models.CausalLM.from_preset(tmp_path / "theirs")
    assert_int8(ours)
    assert ours.compute_dtype == "bfloat16"
    assert_close(
        nextword.models.CausalLM.from_preset(tmp_path / "theirs", dtype="float32"),
        CASES["llama3"].cls("CausalLM").from_preset(str(tmp_path / "theirs")),  # in float32
    )
    # KerasHub saves no dtype of its own, and loads float32. What is saved here says bfloat16.
    ours.save_to_preset(tmp_path / "ours")
    back = CASES["llama3"].cls("CausalLM").from_preset(str(tmp_path / "ours"))
    assert_int8(back)
    assert back.backbone.layers[-1].compute_dtype == "bfloat16"


@pytest.mark.parametrize("pair", ["gpt2", "llama3"], indirect=True)
def test_lora_of_keras_hub_on_top(pair: Pair, tmp_path: Path) -> None:
    pair.ours.save_to_preset(tmp_path / "preset")
    theirs = pair.theirs_loads(tmp_path / "preset")
    theirs.backbone.enable_lora(2)
    random = np.random.default_rng(7)
    for variable in theirs.backbone.trainable_variables:
        if "lora" in variable.path:
            variable.assign(random.normal(scale=0.1, size=variable.shape))
    theirs.backbone.save_lora_weights(str(tmp_path / "task.lora.h5"))
    ours = nextword.models.CausalLM.from_preset(tmp_path / "preset")
    ours.backbone.load_lora_weights(tmp_path / "task.lora.h5")
    assert_close(ours, theirs)


def test_what_config_json_says(pair: Pair) -> None:
    """Every layer that KerasHub rounds is named in our preset, and no other."""
    for directory in ("theirs", "ours"):
        model = pair.theirs if directory == "theirs" else pair.ours
        if not (pair.directory / directory).exists():
            model.save_to_preset(str(pair.directory / directory))
    theirs, ours = (
        json.loads((pair.directory / name / "config.json").read_text())["config"]["dtype"]
        for name in ("theirs", "ours")
    )
    if pair.name in ("mixtral", "qwen-moe", "qwen3-moe"):  # whose numbered layers are patterns here
        keys = keras.dtype_policies.get(ours)
        assert all(keys[path].quantization_mode for path in theirs["config"]["policy_map"])
    else:
        assert ours == theirs
