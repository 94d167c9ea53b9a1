"""Models on hubs: only what is needed is fetched, and only once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nextword
from hub_server import Fault, HubServer, directory_files
from nextword.presets import PresetError

HF, KAGGLE = "hf://me/tiny", "kaggle://me/tiny/keras/base"


def fetched(hub: HubServer) -> list[str]:
    """Return the names of the files that were downloaded."""
    return [Path(path).name for method, path in hub.requests if method == "GET"]


def test_without_weights_none_are_fetched(hub: HubServer, publish: Any, saved: Path) -> None:
    publish(saved)
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
    hub: HubServer, publish: Any, tmp_path: Path, load: Any
) -> None:
    (tmp_path / "model.weights.h5").write_bytes(b"weights")
    config = '{"registered_name": "keras_hub>RWKV7Backbone", "config": {"num_layers": 2}}'
    (tmp_path / "config.json").write_text(config)
    publish(tmp_path, "rwkv7_g1a_0.1b_en")
    message = r"^rwkv7_g1a_0.1b_en has the architecture 'RWKV7Backbone', which is not supported yet"
    with pytest.raises(PresetError, match=message):
        load("rwkv7_g1a_0.1b_en")
    assert fetched(hub) == ["config.json"]


def test_a_model_of_another_class_is_refused_before_its_weights_are_fetched(
    hub: HubServer, publish: Any, saved: Path
) -> None:
    publish(saved)
    with pytest.raises(PresetError, match="holds a GPT2CausalLM, which is no LlamaCausalLM"):
        nextword.models.LlamaCausalLM.from_preset("gpt2_base_en")
    assert fetched(hub) == ["config.json"]


def serve(hub: HubServer, files: dict[str, bytes], **options: bool) -> None:
    hub.add_huggingface("me/tiny", files, gated=options.get("refused", False))
    hub.add_kaggle("me/tiny/keras/base", files, restricted=options.get("refused", False))


def assert_is(model: Any, expected: Any) -> None:
    for weight, other in zip(model.weights, expected.weights, strict=True):
        assert np.array_equal(np.asarray(weight), np.asarray(other))


@pytest.fixture
def load() -> Any:
    return nextword.models.CausalLM.from_preset


@pytest.mark.parametrize("preset", [HF, KAGGLE, f"{KAGGLE}/1"])
def test_the_second_load_downloads_nothing(
    hub: HubServer, saved: Path, lm: Any, load: Any, preset: str
) -> None:
    serve(hub, directory_files(saved))
    assert_is(load(preset), lm)
    downloads = [path for method, path in hub.requests if method == "GET"]
    assert len(downloads) == len(set(downloads)) > 5
    assert_is(load(preset), lm)
    assert len(fetched(hub)) == len(downloads)


@pytest.mark.parametrize(("old", "new"), [(f"{HF}@v1", HF), (f"{KAGGLE}/1", KAGGLE)])
def test_revisions_and_versions(
    hub: HubServer, saved: Path, lm: Any, load: Any, tmp_path: Path, old: str, new: str
) -> None:
    hub.add_huggingface("me/tiny", directory_files(saved), revision="v1")
    hub.add_kaggle("me/tiny/keras/base", directory_files(saved))
    other = load(saved, load_weights=False)
    other.save_to_preset(tmp_path / "other")
    serve(hub, directory_files(tmp_path / "other"))
    assert_is(load(old), lm)
    assert_is(load(new), other)


@pytest.mark.parametrize("preset", [HF, KAGGLE])
def test_an_interrupted_download_is_completed(
    hub: HubServer, saved: Path, lm: Any, load: Any, monkeypatch: Any, preset: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    serve(hub, directory_files(saved))
    hub.faults = [Fault("model.weights.h5", 3000), Fault("model.weights.h5", status=503)]
    with pytest.raises(PresetError, match=r"Cannot get 'model\.weights\.h5' of preset"):
        load(preset)
    hub.faults.clear()
    assert_is(load(preset), lm)


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("hf://me/none", "does not exist, or is private"),
        (f"{HF}@v9", "has no revision 'v9'"),
        ("kaggle://me/none/keras/base", "Kaggle has no such model"),
        (f"{KAGGLE}/9", "the newest version of 'kaggle://me/tiny/keras/base' is 1"),
    ],
)
def test_what_is_missing_is_named(
    hub: HubServer, saved: Path, load: Any, preset: str, message: str
) -> None:
    serve(hub, directory_files(saved))
    with pytest.raises(PresetError, match=message):
        load(preset)


@pytest.mark.parametrize(
    ("preset", "message"), [(HF, "accept its terms .*HF_TOKEN"), (KAGGLE, "terms .*KAGGLE_API")]
)
def test_gated(hub: HubServer, saved: Path, load: Any, preset: str, message: str) -> None:
    serve(hub, directory_files(saved), refused=True)
    with pytest.raises(PresetError, match=message):
        load(preset)


def test_offline(hub: HubServer, saved: Path, lm: Any, load: Any, monkeypatch: Any) -> None:
    from huggingface_hub import close_session, constants

    serve(hub, directory_files(saved))
    load(HF)
    load(f"{KAGGLE}/1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("HTTP_PROXY", "http_proxy"):  # by which Kaggle is reached
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    close_session()
    before = len(hub.requests)
    assert_is(load(HF), lm)
    assert_is(load(f"{KAGGLE}/1"), lm)
    with pytest.raises(PresetError, match=r"offline \(HF_HUB_OFFLINE\) and the file is not in"):
        load("hf://me/other")
    assert len(hub.requests) == before


def test_the_spellings_of_a_local_directory(
    saved: Path, lm: Any, load: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("HOME", str(saved.parent))
    monkeypatch.chdir(saved.parent)
    name = saved.name
    for preset in (saved, Path(name), f"{saved}/", f"~/{name}", Path("~", name), f"./{name}//"):
        assert_is(load(preset, preprocessor=None), lm)
