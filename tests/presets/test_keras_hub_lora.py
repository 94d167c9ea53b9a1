"""Files of LoRA weights move between KerasHub and nextword, in both directions."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import nextword
from keras_presets import CASES, assert_close, save
from nextword.models.formats.keras_layers import counted_layers, layer_of
from nextword.models.lora import adaptable_matrices, keras_format_of

pytest.importorskip("keras_hub")
# KerasHub leaves the file of a SentencePiece model open.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in.*vocabulary\.spm:pytest.PytestUnraisableExceptionWarning"
)


# Heads before their inputs, behind them, and (but not among KerasHub's default targets) all in one.
OLDER = ["gemma2", "gpt2", "llama3"]
NAMES = [*OLDER, "gemma3", "gpt-oss"]
# Routers, experts that all tokens share, and names that are no defaults in KerasHub.
ALL_NAMES = [*OLDER, "gpt-neox", "smollm3", "qwen-moe", "qwen3-moe"]


@pytest.fixture(scope="module", params=NAMES)
def preset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A case and where KerasHub has saved it."""
    directory = tmp_path_factory.mktemp(request.param)
    save(directory, request.param)
    return CASES[request.param], directory


def randomize(variables: Any) -> None:
    """Give factors values, as training does; those that are zero, too."""
    random = np.random.default_rng(7)
    for variable in variables:
        variable.assign(random.normal(scale=0.15, size=variable.shape))


def theirs_of(preset: Any) -> Any:
    case, directory = preset
    return case.cls("CausalLM").from_preset(str(directory))


def with_weights(backbone: Any) -> list[Any]:
    return [layer for layer in backbone._flatten_layers(include_self=False) if layer.weights]


@pytest.mark.parametrize("name", CASES)
def test_layers_are_counted_as_keras_hub_counts_them(name: str, tmp_path: Path) -> None:
    theirs = with_weights(save(tmp_path, name).backbone)
    ours = nextword.models.Backbone.from_preset(tmp_path)
    table = keras_format_of(ours).table(ours.config)
    layers = counted_layers(table)
    assert len(layers) == len(theirs)
    for path, matrix in adaptable_matrices(ours).items():
        layer = theirs[layers.index(layer_of(table[path].name))]
        kernel = table[path].read(np.asarray(layer.weights[0]))
        np.testing.assert_array_equal(kernel, matrix.variables["values"])


@pytest.mark.parametrize(
    ("preset", "is_all", "rank"),
    [
        *((name, False, 2) for name in NAMES),
        *((name, False, 40) for name in OLDER),  # more than the matrices themselves have
        *((name, True, 2) for name in ALL_NAMES),
    ],
    indirect=["preset"],
)
def test_from_keras_hub(preset: Any, is_all: bool, rank: int, tmp_path: Path) -> None:
    theirs = theirs_of(preset)
    layers = with_weights(theirs.backbone)
    names = sorted({layer.name for layer in layers if hasattr(layer, "kernel")})
    theirs.backbone.enable_lora(rank, names if is_all else None)
    randomize(w for w in theirs.backbone.trainable_variables if "lora" in w.path)
    theirs.backbone.save_lora_weights(str(tmp_path / "theirs.lora.h5"))

    ours = nextword.models.CausalLM.from_preset(preset[1])
    ours.backbone.load_lora_weights(tmp_path / "theirs.lora.h5")
    assert_close(ours, theirs)
    # What was read is a file of our own from then on.
    ours.backbone.save_lora_weights(tmp_path / "ours.lora.h5", for_keras_hub=False)
    again = nextword.models.CausalLM.from_preset(preset[1])
    again.backbone.load_lora_weights(tmp_path / "ours.lora.h5")
    assert_close(again, theirs)


def test_to_keras_hub(preset: Any, tmp_path: Path) -> None:
    ours = nextword.models.CausalLM.from_preset(preset[1])
    ours.backbone.enable_lora(5, alpha=7.5)
    randomize(w for w in ours.backbone.trainable_variables if "lora" in w.path)
    ours.backbone.save_lora_weights(tmp_path / "ours.lora.h5")

    theirs = theirs_of(preset)
    theirs.backbone.load_lora_weights(str(tmp_path / "ours.lora.h5"))
    assert_close(ours, theirs)
    theirs.backbone.save_lora_weights(str(tmp_path / "theirs.lora.h5"))
    again = nextword.models.CausalLM.from_preset(preset[1])
    again.backbone.load_lora_weights(tmp_path / "theirs.lora.h5")
    assert_close(again, theirs)


@pytest.mark.parametrize("preset", ALL_NAMES, indirect=True)
def test_all_layers_to_keras_hub(preset: Any, tmp_path: Path) -> None:
    ours = nextword.models.CausalLM.from_preset(preset[1])
    paths = keras_format_of(ours.backbone).paths
    targets = sorted({path.rpartition("/")[2] for ours, path in paths.items() if "/" in ours})
    known = {layer.name for layer in with_weights(theirs_of(preset).backbone)}
    targets = [target for target in targets if target in known]
    assert len(targets) > 2
    ours.backbone.enable_lora(2, targets)
    randomize(w for w in ours.backbone.trainable_variables if "lora" in w.path)
    ours.backbone.save_lora_weights(tmp_path / "ours.lora.h5")

    theirs = theirs_of(preset)
    theirs.backbone.enable_lora(file_rank(tmp_path / "ours.lora.h5"), targets)
    theirs.backbone.load_lora_weights(str(tmp_path / "ours.lora.h5"))
    assert_close(ours, theirs)


def file_rank(path: Path) -> int:
    with h5py.File(path) as file:
        return int(file["lora/vars/rank"][()])


def test_a_preset_with_the_updates_merged(tmp_path: Path) -> None:
    save(tmp_path / "preset", "gpt2")
    ours = nextword.models.CausalLM.from_preset(tmp_path / "preset")
    ours.backbone.enable_lora(3)
    randomize(ours.backbone.trainable_variables)  # biases, too
    ours.save_to_preset(tmp_path / "merged")
    assert_close(ours, CASES["gpt2"].cls("CausalLM").from_preset(str(tmp_path / "merged")))
