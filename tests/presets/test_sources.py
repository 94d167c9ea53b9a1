"""Presets on the local disk, and how `resolve_preset` tells the kinds of preset apart."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.presets import DEFAULT_PRESET, PresetError, resolve_preset
from nextword.presets.sources import LocalDirectory, LocalFile
from nextword.presets.wheels import WheelSource

GGUF = b"GGUF\x03\x00\x00\x00"


@pytest.fixture
def directory(tmp_path) -> Path:
    preset = tmp_path / "preset"
    (preset / "assets" / "tokenizer").mkdir(parents=True)
    (preset / "config.json").write_text("{}")
    (preset / "assets" / "tokenizer" / "merges.txt").write_text("a b")
    (preset / ".git").mkdir()
    (preset / ".git" / "HEAD").write_text("ref")
    (tmp_path / "secret").write_text("secret")
    return preset


@pytest.mark.parametrize("kind", [str, Path])
def test_directory(directory, kind):
    source = resolve_preset(kind(directory))
    assert source.name == str(directory)
    assert source.find("config.json") == directory / "config.json"
    assert source.path("assets/tokenizer/merges.txt").read_text() == "a b"
    assert source.find("tokenizer.json") is None
    assert source.find("assets") is None
    assert source.gguf_path() is None
    assert source.filenames() == ["assets/tokenizer/merges.txt", "config.json"]


def test_missing_file_names_preset_file_and_near_match(directory):
    source = resolve_preset(directory)
    with pytest.raises(PresetError, match=r"preset' has no file 'confg.json'. Did you mean 'conf"):
        source.path("confg.json")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "assets/../../secret", "a\x00b", ""])
def test_names_cannot_leave_a_local_preset(directory, name):
    for source in (resolve_preset(directory), LocalFile(directory / "m.gguf")):
        with pytest.raises(PresetError, match="relative path"):
            source.find(name)
        with pytest.raises(PresetError, match="relative path"):
            source.path(name)


@given(st.text(st.sampled_from("ab./\\:\x00\n "), max_size=12))
def test_no_name_reaches_outside_a_directory(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp() / "outer"
    (root / "inner" / "a").mkdir(parents=True, exist_ok=True)
    (root / "inner" / "a" / "b").write_text("inside")
    (root / "b").write_text("outside")
    try:
        found = LocalDirectory(root / "inner").find(name)
    except PresetError:
        return
    assert found is None or found.read_text() == "inside"


def test_links_in_the_users_own_directory_are_followed(directory, tmp_path):
    (directory / "model.safetensors").symlink_to(tmp_path / "secret")
    (directory / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "link").symlink_to(directory)
    source = resolve_preset(tmp_path / "link")
    assert source.path("model.safetensors").read_text() == "secret"
    assert source.find("dangling") is None


def test_pipes_and_sockets_are_not_files(directory):
    os.mkfifo(directory / "tokenizer.json")
    assert resolve_preset(directory).find("tokenizer.json") is None
    with pytest.raises(PresetError, match="not a device, pipe or socket"):
        resolve_preset(directory / "tokenizer.json")


def test_socket_as_preset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(PresetError, match="not a device, pipe or socket"):
            resolve_preset("socket")


@pytest.mark.parametrize("name", ["model.gguf", "model.GGUF", "sha256-0123"])
def test_single_gguf_file(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(GGUF)
    source = resolve_preset(str(file))
    assert source.gguf_path() == file
    assert source.path(name) == file
    assert source.find("config.json") is None
    assert source.filenames() == [name]


def test_single_file_of_another_format_is_refused(directory):
    with pytest.raises(PresetError, match="pass the directory"):
        resolve_preset(directory / "config.json")


def test_path_is_relative_to_the_working_directory_and_home(directory, monkeypatch):
    monkeypatch.chdir(directory / "assets")
    assert resolve_preset("..").find("config.json") is not None
    monkeypatch.setenv("HOME", str(directory.parent))
    assert resolve_preset("~/preset").find("config.json") is not None


def test_builtin_name_comes_before_a_directory_of_that_name(directory, tmp_path, monkeypatch):
    (tmp_path / DEFAULT_PRESET).mkdir()
    monkeypatch.chdir(tmp_path)
    assert isinstance(resolve_preset(DEFAULT_PRESET), WheelSource)
    assert isinstance(resolve_preset(f"./{DEFAULT_PRESET}"), LocalDirectory)
    assert isinstance(resolve_preset(Path(DEFAULT_PRESET)), LocalDirectory)


@pytest.mark.parametrize("preset", [None, 3, b"gpt2", 1.5, ["gpt2"], object()])
def test_wrong_type(preset):
    with pytest.raises(TypeError, match=r"preset must be a string or a pathlib.Path.*Received"):
        resolve_preset(preset)


@pytest.mark.parametrize(
    ("preset", "hint"),
    [
        ("smollm2_135m_instruct", "Did you mean 'smollm2_135m_instruct_en'"),
        ("SmolLM2_135m_instruct_en", "Did you mean 'smollm2_135m_instruct_en'"),
        ("HuggingFaceTB/SmolLM2-135M", "write 'hf://HuggingFaceTB/SmolLM2-135M'"),
        ("hf:/org/name", "has '://' after its first word"),
        (Path("hf://org/name"), "has '://' after its first word"),
        ("./no/such/directory", "no such file or directory"),
        ("../../no-such", "no such file or directory"),
        (Path("/no/such.gguf"), "no such file or directory"),
        ("C:\\models\\gpt2", "no such file or directory"),
        ("x" * 4000, "Accepted are|File name too long"),
        ("\ud800", "no such file or directory"),
        ("~nosuchuser/preset", "."),
    ],
    ids=str,
)
def test_unknown_preset(preset, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PresetError, match=hint) as caught:
        resolve_preset(preset)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("preset", ["", "a\x00b", "gpt2\n", "a\rb", "\x1b[31mred", "x" * 5000])
def test_control_characters_and_absurd_length(preset):
    with pytest.raises(PresetError, match="none of them control characters") as caught:
        resolve_preset(preset)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@given(st.text(max_size=60))
def test_any_text_gives_a_source_or_a_preset_error(text):
    try:
        source = resolve_preset(text)
    except PresetError:
        return
    assert source.name == text
