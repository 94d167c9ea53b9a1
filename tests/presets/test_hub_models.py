"""Models on hubs: only what is needed is fetched, and only once."""

from pathlib import Path
from typing import Any

import pytest

import nextword
from hub_server import HubServer
from nextword.presets import PresetError, builtin_presets


def publish(hub: HubServer, directory: Path, name: str = "gpt2_base_en") -> None:
    """Serve a directory as the Kaggle model of a built-in preset."""
    files = {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }
    variant, _, version = builtin_presets()[name].handle.removeprefix("kaggle://").rpartition("/")
    for _ in range(int(version)):
        hub.add_kaggle(variant, files)


def fetched(hub: HubServer) -> list[str]:
    """Return the names of the files that were downloaded."""
    return [Path(path).name for method, path in hub.requests if method == "GET"]


def test_without_weights_none_are_fetched(hub: HubServer, saved: Path) -> None:
    publish(hub, saved)
    lm = nextword.models.CausalLM.from_preset("gpt2_base_en", load_weights=False)
    assert "model.weights.h5" not in fetched(hub)
    assert {weight.dtype for weight in lm.weights} == {"bfloat16"}
    nextword.models.Backbone.from_preset("gpt2_base_en", load_weights=False)
    nextword.tokenizers.Tokenizer.from_preset("gpt2_base_en")
    assert "model.weights.h5" not in fetched(hub)
    nextword.models.Backbone.from_preset("gpt2_base_en")
    assert "model.weights.h5" in fetched(hub)


@pytest.mark.parametrize(
    "load",
    [
        nextword.models.CausalLM.from_preset,
        nextword.models.Backbone.from_preset,
        nextword.models.CausalLMPreprocessor.from_preset,
        nextword.tokenizers.Tokenizer.from_preset,
    ],
)
def test_a_family_that_is_not_supported_is_refused_before_its_weights_are_fetched(
    hub: HubServer, tmp_path: Path, load: Any
) -> None:
    (tmp_path / "model.weights.h5").write_bytes(b"weights")
    config = '{"registered_name": "keras_hub>RWKV7Backbone", "config": {"num_layers": 2}}'
    (tmp_path / "config.json").write_text(config)
    publish(hub, tmp_path, "rwkv7_g1a_0.1b_en")
    message = r"^rwkv7_g1a_0.1b_en has the architecture 'RWKV7Backbone', which is not supported yet"
    with pytest.raises(PresetError, match=message):
        load("rwkv7_g1a_0.1b_en")
    assert fetched(hub) == ["config.json"]


def test_a_model_of_another_class_is_refused_before_its_weights_are_fetched(
    hub: HubServer, saved: Path
) -> None:
    publish(hub, saved)
    with pytest.raises(PresetError, match="holds a GPT2CausalLM, which is no LlamaCausalLM"):
        nextword.models.LlamaCausalLM.from_preset("gpt2_base_en")
    assert fetched(hub) == ["config.json"]
