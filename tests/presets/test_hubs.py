"""Presets on model hubs: the real client libraries against a local server in the hubs' place."""

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from hub_server import GOOD_TOKEN, Fault
from nextword.presets import PresetError, resolve_preset

CONFIG = b'{"model_type": "llama"}'
WEIGHTS = bytes(range(256)) * 400
FILES = {"config.json": CONFIG, "sub/config.json": b"{}", "sub/m.gguf": b"GGUF", "w.bin": WEIGHTS}
KAGGLE = "keras/gpt2/keras/gpt2_base_en"


def one_sentence(error: BaseException) -> bool:
    return str(error).isprintable() and str(error).endswith(".") and len(str(error)) < 500


# ---- Hugging Face


def test_hf_download_and_cache_hit(hub, home):
    hub.add_huggingface("org/name", FILES)
    path = resolve_preset("hf://org/name").path("config.json")
    assert path.read_bytes() == CONFIG
    assert path.is_relative_to(home)
    assert hub.count("GET", "config.json") == 1
    again = resolve_preset("hf://org/name")
    assert again.path("config.json") == again.path("config.json") == path
    assert hub.count("GET", "config.json") == 1


def test_hf_nothing_is_asked_before_a_file_is_needed(hub):
    source = resolve_preset("hf://org/name")
    assert (source.name, source.filenames(), source.gguf_path()) == ("hf://org/name", None, None)
    assert hub.requests == []


def test_hf_missing_file_is_none(hub):
    hub.add_huggingface("org/name", FILES)
    source = resolve_preset("hf://org/name")
    assert source.find("tokenizer.json") is None
    with pytest.raises(PresetError, match=r"'hf://org/name' has no file 'tokenizer.json'"):
        source.path("tokenizer.json")
    assert hub.count("HEAD", "tokenizer.json") == 1


def test_hf_revision(hub):
    hub.add_huggingface("org/name", {"config.json": b"old"}, revision="v1")
    commit = hub.add_huggingface("org/name", {"config.json": b"pull"}, revision="refs/pr/7")
    hub.add_huggingface("org/name", {"config.json": b"new"})

    def content(suffix):
        return resolve_preset(f"hf://org/name{suffix}").path("config.json").read_bytes()

    assert content("@v1") == b"old"
    assert content("@refs/pr/7") == content(f"@{commit}") == b"pull"
    assert content("") == content("@main") == b"new"


def test_hf_subfolder(hub):
    hub.add_huggingface("org/name", FILES)
    source = resolve_preset("hf://org/name@main/sub")
    assert source.path("config.json").read_bytes() == b"{}"
    assert source.find("w.bin") is None
    assert source.gguf_path() is None


def test_hf_single_gguf_file(hub):
    hub.add_huggingface("org/name", FILES)
    source = resolve_preset("hf://org/name/sub/m.gguf")
    assert source.filenames() == ["m.gguf"]
    assert source.find("config.json") is None
    assert hub.requests == []
    assert source.gguf_path().read_bytes() == b"GGUF"
    assert source.gguf_path() == source.find("m.gguf")


def test_hf_all_files_come_from_one_commit(hub):
    hub.add_huggingface("org/name", {"config.json": b"1", "w.bin": b"1"})
    source = resolve_preset("hf://org/name")
    source.path("config.json")
    hub.add_huggingface("org/name", {"config.json": b"2", "w.bin": b"2"})
    assert source.path("w.bin").read_bytes() == b"1"
    assert resolve_preset("hf://org/name").path("w.bin").read_bytes() == b"2"


def test_hf_second_start_makes_one_request(hub):
    hub.add_huggingface("org/name", FILES)
    for _ in range(2):
        before = len(hub.requests)
        source = resolve_preset("hf://org/name")
        found = [source.find(name) for name in ("config.json", "generation_config.json", "w.bin")]
    assert [path is None for path in found] == [False, True, False]
    assert len(hub.requests) - before == 1


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\\b", "a\nb", "..", ""])
def test_names_cannot_leave_a_hub_preset(hub, name):
    for handle in ("hf://org/name", "hf://org/name/m.gguf", f"kaggle://{KAGGLE}/1"):
        with pytest.raises(PresetError, match="relative path"):
            resolve_preset(handle).find(name)
    assert hub.requests == []


def test_hf_gated(hub, monkeypatch):
    hub.add_huggingface("org/name", FILES, gated=True)
    with pytest.raises(PresetError, match=r"accept its terms .*HF_TOKEN") as caught:
        resolve_preset("hf://org/name").find("config.json")
    assert one_sentence(caught.value)
    assert f"{hub.url}/org/name" in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    with pytest.raises(PresetError, match="did not accept the token"):
        resolve_preset("hf://org/name").find("config.json")
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    hub.repositories["org/name"].accepted = False
    with pytest.raises(PresetError, match="accept its terms on that page") as caught:
        resolve_preset("hf://org/name").find("config.json")
    assert one_sentence(caught.value)
    hub.repositories["org/name"].accepted = True
    assert resolve_preset("hf://org/name").path("config.json").read_bytes() == CONFIG


@pytest.mark.parametrize("token", [None, GOOD_TOKEN])
def test_hf_missing_repository(hub, monkeypatch, token):
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PresetError, match="does not exist, or is private") as caught:
        resolve_preset("hf://org/none").find("config.json")
    assert one_sentence(caught.value)


def test_hf_missing_revision(hub):
    hub.add_huggingface("org/name", FILES)
    with pytest.raises(PresetError, match=r"org/name has no revision 'v9'\.") as caught:
        resolve_preset("hf://org/name@v9").find("config.json")
    assert one_sentence(caught.value)


def test_hf_offline_serves_what_was_learned_online(hub, monkeypatch):
    from huggingface_hub import close_session, constants

    hub.add_huggingface("org/name", FILES)
    online = resolve_preset("hf://org/name")
    online.path("config.json")
    assert online.find("tokenizer.json") is None
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    before = len(hub.requests)
    offline = resolve_preset("hf://org/name")
    assert offline.find("tokenizer.json") is None
    assert offline.path("config.json").read_bytes() == CONFIG
    with pytest.raises(PresetError, match=r"offline \(HF_HUB_OFFLINE\)") as caught:
        offline.find("w.bin")
    assert one_sentence(caught.value)
    with pytest.raises(PresetError, match="offline"):
        resolve_preset("hf://org/other").find("config.json")
    assert len(hub.requests) == before


def test_hf_unreachable(hub, monkeypatch):
    from huggingface_hub import constants

    # Port 9 discards; nothing listens there.
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(PresetError, match=r"download from http://127.0.0.1:9 failed") as caught:
        resolve_preset("hf://org/name").find("config.json")
    assert one_sentence(caught.value)


def test_hf_interrupted_download_is_not_trusted(hub, home, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.add_huggingface("org/name", FILES)
    hub.faults = [Fault("w.bin", after=1000), Fault("w.bin", status=500)]
    source = resolve_preset("hf://org/name")
    with pytest.raises(PresetError, match="HTTP status 500") as caught:
        source.find("w.bin")
    assert one_sentence(caught.value)
    assert source.path("w.bin").read_bytes() == WEIGHTS


def test_hf_connection_lost_for_a_moment_is_resumed(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    # What is received is kept by the chunk, which is 10 MB.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100)
    hub.add_huggingface("org/name", FILES)
    hub.faults = [Fault("w.bin", after=1000)]
    assert resolve_preset("hf://org/name").path("w.bin").read_bytes() == WEIGHTS
    assert [offset for _, offset in hub.resumed] == [1000]


# ---- Kaggle


def test_kaggle_download_and_cache_hit(hub, home):
    hub.add_kaggle(KAGGLE, {"config.json": CONFIG, "assets/tokenizer/merges.txt": b"a b"})
    source = resolve_preset(f"kaggle://{KAGGLE}/1")
    path = source.path("config.json")
    assert path.read_bytes() == CONFIG
    assert path.is_relative_to(home)
    assert source.path("assets/tokenizer/merges.txt").read_bytes() == b"a b"
    assert source.gguf_path() is source.filenames() is None
    before = len(hub.requests)
    assert resolve_preset(f"kaggle://{KAGGLE}/1").path("config.json") == path
    assert len(hub.requests) == before


def test_kaggle_versions(hub):
    hub.add_kaggle(KAGGLE, {"config.json": b"1", "w.bin": b"1"})
    newest = resolve_preset(f"kaggle://{KAGGLE}")
    assert newest.path("config.json").read_bytes() == b"1"
    hub.add_kaggle(KAGGLE, {"config.json": b"2", "w.bin": b"2"})
    assert newest.path("w.bin").read_bytes() == b"1", "files of two versions were mixed"
    assert resolve_preset(f"kaggle://{KAGGLE}").path("config.json").read_bytes() == b"2"
    assert resolve_preset(f"kaggle://{KAGGLE}/1").path("config.json").read_bytes() == b"1"


@pytest.mark.parametrize("version", ["", "/1"])
def test_kaggle_missing_file_is_none(hub, version):
    hub.add_kaggle(KAGGLE, {"config.json": CONFIG})
    source = resolve_preset(f"kaggle://{KAGGLE}{version}")
    assert source.find("tokenizer.json") is None
    assert source.path("config.json").read_bytes() == CONFIG
    assert source.find("task.json") is None
    with pytest.raises(PresetError, match=r"has no file 'task.json'"):
        source.path("task.json")


@pytest.mark.parametrize("version", ["", "/1"])
def test_kaggle_missing_model(hub, version):
    with pytest.raises(
        PresetError, match=r"no such model; see https://www.kaggle.com/mod"
    ) as caught:
        resolve_preset(f"kaggle://{KAGGLE}{version}").find("config.json")
    assert one_sentence(caught.value)


def test_kaggle_missing_version(hub):
    hub.add_kaggle(KAGGLE, {"config.json": CONFIG})
    with pytest.raises(PresetError, match=r"does not exist: the newest version of .* is 1\."):
        resolve_preset(f"kaggle://{KAGGLE}/2").find("config.json")
    hub.add_kaggle(KAGGLE, {"config.json": CONFIG})
    assert resolve_preset(f"kaggle://{KAGGLE}/2").find("config.json") is not None


def test_kaggle_unknown_framework(hub):
    with pytest.raises(PresetError, match="failed") as caught:
        resolve_preset("kaggle://keras/gpt2/nosuch/gpt2_base_en/1").find("config.json")
    assert one_sentence(caught.value)


@pytest.mark.parametrize("version", ["", "/1"])
def test_kaggle_gated(hub, monkeypatch, version):
    hub.add_kaggle(KAGGLE, {"config.json": CONFIG}, restricted=True)
    source = resolve_preset(f"kaggle://{KAGGLE}{version}")
    with pytest.raises(PresetError, match=r"refused access.*terms.*KAGGLE_API_TOKEN") as caught:
        source.find("config.json")
    assert one_sentence(caught.value)
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    assert source.path("config.json").read_bytes() == CONFIG


def test_kaggle_offline_serves_what_was_learned_online(hub, monkeypatch):
    hub.add_kaggle(KAGGLE, {"config.json": CONFIG, "w.bin": WEIGHTS})
    online = resolve_preset(f"kaggle://{KAGGLE}/1")
    online.path("config.json")
    assert online.find("tokenizer.json") is None
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    offline = resolve_preset(f"kaggle://{KAGGLE}/1")
    assert offline.find("tokenizer.json") is None
    assert offline.path("config.json").read_bytes() == CONFIG
    with pytest.raises(PresetError, match="download from Kaggle failed") as caught:
        offline.find("w.bin")
    assert one_sentence(caught.value)
    with pytest.raises(PresetError, match="a handle that ends in a version"):
        resolve_preset(f"kaggle://{KAGGLE}").find("config.json")


def test_kaggle_interrupted_download_is_resumed_and_not_trusted_before(hub, monkeypatch):
    monkeypatch.setattr("kagglehub.clients.CHUNK_SIZE", 100)  # what is kept at a time
    hub.add_kaggle(KAGGLE, {"w.bin": WEIGHTS})
    hub.faults = [Fault("w.bin", after=1000)]
    source = resolve_preset(f"kaggle://{KAGGLE}/1")
    with pytest.raises(PresetError, match="download from Kaggle failed") as caught:
        source.find("w.bin")
    assert one_sentence(caught.value)
    assert source.path("w.bin").read_bytes() == WEIGHTS
    assert [offset for _, offset in hub.resumed] == [1000]


@pytest.mark.parametrize("version", ["", "/1"])
def test_kaggle_notebook_where_models_are_mounted(hub, tmp_path, monkeypatch, version):
    hub.add_kaggle(KAGGLE, {})
    mounted = tmp_path / KAGGLE.removeprefix("keras/") / "1" / "config.json"
    mounted.parent.mkdir(parents=True)
    mounted.write_bytes(CONFIG)
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    monkeypatch.setenv("KAGGLE_DATA_PROXY_URL", hub.url)
    monkeypatch.setenv("KAGGLE_CACHE_MOUNT_FOLDER", str(tmp_path))
    for name in ("KAGGLE_USER_SECRETS_TOKEN", "KAGGLE_DATA_PROXY_TOKEN"):
        monkeypatch.setenv(name, "token")
    source = resolve_preset(f"kaggle://{KAGGLE}{version}")
    assert source.find("tokenizer.json") is None
    assert source.path("config.json") == mounted


def test_kaggle_keeps_stdout_clean(hub, home):
    hub.add_kaggle(KAGGLE, {"config.json": CONFIG})
    result = in_new_process(hub, home, f"kaggle://{KAGGLE}", "config.json")
    assert result.communicate(timeout=60)[0] == f"{len(CONFIG)}\n"


# ---- both, in a process of their own, with nothing but environment variables


def in_new_process(hub, home, preset: str, filename: str) -> subprocess.Popen:
    code = (
        "import sys; from nextword.presets import resolve_preset;"
        "print(len(resolve_preset(sys.argv[1]).path(sys.argv[2]).read_bytes()))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, preset, filename],
        env={**os.environ, **hub.environment(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize("preset", ["hf://org/name", f"kaggle://{KAGGLE}/1"])
def test_killed_download_is_not_trusted(hub, home, preset):
    hub.add_huggingface("org/name", FILES)
    hub.add_kaggle(KAGGLE, {"w.bin": WEIGHTS})
    hub.faults = [Fault("w.bin", after=50_000, stall=True)]
    process = in_new_process(hub, home, preset, "w.bin")
    assert hub.stalled.wait(timeout=60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = in_new_process(hub, home, preset, "w.bin")
    assert process.communicate(timeout=60)[0] == f"{len(WEIGHTS)}\n"
    assert resolve_preset(preset).path("w.bin").read_bytes() == WEIGHTS


def test_server_saw_no_request_it_does_not_know(hub):
    """The stand-in covers all that the clients ask for a plain download."""
    hub.add_huggingface("org/name", FILES)
    hub.add_kaggle(KAGGLE, {"config.json": CONFIG})
    resolve_preset("hf://org/name").path("config.json")
    resolve_preset(f"kaggle://{KAGGLE}").path("config.json")
    service = "/api/v1/models.ModelApiService"
    assert Counter(hub.requests) == {
        ("HEAD", "/org/name/resolve/main/config.json"): 1,
        ("GET", "/org/name/resolve/main/config.json"): 1,
        ("POST", f"{service}/GetModelInstance"): 1,
        ("POST", f"{service}/DownloadModelInstanceVersion"): 1,
        ("GET", f"/kaggle-storage/{KAGGLE}/1/config.json"): 1,
    }
