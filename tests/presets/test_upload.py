"""`upload_preset`: the real client libraries against a local server in the hubs' place."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nextword
from families.cases import CASES
from hub_server import HubServer, directory_files
from hub_uploads import GOOD_TOKEN
from nextword.presets import PresetError
from tiny_bert import classifier

# From within the Hugging Face client, which hands a file to httpx by an old name.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

HF, KAGGLE = "hf://me/tiny", "kaggle://me/tiny/keras/base"


@pytest.fixture
def preset(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "preset")


@pytest.fixture
def logged_in(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    monkeypatch.setenv("HF_TOKEN", GOOD_TOKEN)
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    return hub


def repository_files(hub: HubServer, name: str = "me/tiny") -> dict[str, bytes]:
    repository = hub.repositories[name]
    return repository.commits[repository.references["main"]]


def assert_same_model(one: Any, other: Any) -> None:
    for weight, expected in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(expected))
    assert one.preprocessor.get_config() == other.preprocessor.get_config()


@pytest.mark.parametrize("uri", [HF, "hf://org/tiny", KAGGLE])
def test_what_is_uploaded_loads_again(
    logged_in: HubServer, preset: Path, lm: Any, uri: str
) -> None:
    before = directory_files(preset)
    nextword.upload_preset(uri, preset)
    assert directory_files(preset) == before
    assert_same_model(nextword.models.CausalLM.from_preset(uri), lm)


def test_a_repository_without_a_user_is_the_user_s_own(logged_in: HubServer, preset: Path) -> None:
    nextword.upload_preset("hf://tiny", str(preset))
    assert directory_files(preset).items() <= repository_files(logged_in, "me/tiny").items()


def test_a_model_card_is_written_if_there_is_none(
    logged_in: HubServer, preset: Path, lm: Any
) -> None:
    nextword.upload_preset(HF, preset)
    assert repository_files(logged_in).keys() == {
        ".gitattributes",
        "README.md",
        *directory_files(preset),
    }
    card = repository_files(logged_in)["README.md"].decode()
    assert card.startswith("---\nlibrary_name: keras-hub\npipeline_tag: text-generation\n")
    assert "# tiny\n" in card
    parameters = lm.backbone.count_params()
    assert f"`GPT2Backbone` with {parameters:,} parameters in bfloat16, as a KerasHub" in card
    assert 'nextword.models.CausalLM.from_preset("hf://me/tiny")' in card


def test_a_model_card_that_is_there_stays(logged_in: HubServer, preset: Path) -> None:
    logged_in.add_huggingface("me/tiny", {"README.md": b"---\na: b\n---\nTheirs."})
    nextword.upload_preset(HF, preset)
    assert repository_files(logged_in)["README.md"].endswith(b"Theirs.")
    (preset / "README.md").write_text("---\na: b\n---\nMine.")
    nextword.upload_preset(HF, preset)
    assert repository_files(logged_in)["README.md"].endswith(b"Mine.")


def test_of_an_earlier_preset_nothing_remains(
    logged_in: HubServer, preset: Path, lm: Any, tmp_path: Path
) -> None:
    nextword.upload_preset(HF, preset)
    logged_in.add_huggingface("me/tiny", {**repository_files(logged_in), "LICENSE": b"Mine."})
    lm.save_to_preset(tmp_path / "sharded", max_shard_size=17000 / 2**30)
    nextword.upload_preset(HF, tmp_path / "sharded")
    stored = repository_files(logged_in)
    assert stored.keys() >= {"LICENSE", "README.md", "model_00001.weights.h5"}
    assert "model.weights.h5" not in stored
    assert_same_model(nextword.models.CausalLM.from_preset(HF), lm)


def test_an_upload_is_one_commit(logged_in: HubServer, preset: Path) -> None:
    nextword.upload_preset(HF, preset)
    assert logged_in.count("POST", "/commit/main") == 1
    nextword.upload_preset(HF, preset)
    assert logged_in.count("POST", "/commit/main") == 2


def test_kaggle_gets_a_new_version_every_time(logged_in: HubServer, preset: Path, lm: Any) -> None:
    for version in (1, 2):
        nextword.upload_preset(KAGGLE, preset)
        assert len(logged_in.models["me/tiny/keras/base"].versions) == version
    assert logged_in.models["me/tiny/keras/base"].versions == [directory_files(preset)] * 2
    assert_same_model(nextword.models.CausalLM.from_preset(f"{KAGGLE}/2"), lm)


@pytest.mark.parametrize("uri", [HF, KAGGLE])
def test_a_classifier_comes_back_with_its_head(
    logged_in: HubServer, tmp_path: Path, uri: str
) -> None:
    model = classifier()
    model.save_to_preset(tmp_path / "preset")
    nextword.upload_preset(uri, tmp_path / "preset")
    assert_same_model(nextword.models.TextClassifier.from_preset(uri), model)
    if uri == HF:
        card = repository_files(logged_in)["README.md"].decode()
        assert "pipeline_tag: text-classification\n" in card
        assert "nextword.models.TextClassifier.from_preset(" in card


def test_a_checkpoint_of_transformers(logged_in: HubServer, tmp_path: Path) -> None:
    next(case for case in CASES if case.name == "gpt2").make(tmp_path / "checkpoint")
    nextword.upload_preset(HF, tmp_path / "checkpoint")
    card = repository_files(logged_in)["README.md"].decode()
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\n")
    ours = nextword.models.CausalLM.from_preset(tmp_path / "checkpoint", preprocessor=None)
    theirs = nextword.models.CausalLM.from_preset(HF, preprocessor=None)
    for weight, expected in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(expected))


# ---- refused before anything is sent


@pytest.mark.parametrize(
    "uri",
    [
        "hf://me/tiny@main",
        "hf://me/tiny/folder",
        "hf://",
        "hf:///tiny",
        "hf://me/..",
        "hf://me/tiny.git",
        "kaggle://me/tiny/keras",
        "kaggle://me/tiny/keras/base/1",
        "pypi://tiny==1/folder",
        "s3://me/tiny",
        "me/tiny",
        "./tiny",
        "",
    ],
)
def test_a_bad_uri(logged_in: HubServer, preset: Path, uri: str) -> None:
    with pytest.raises(PresetError, match=r"`uri` must be hf://\[user/\]model or kaggle://"):
        nextword.upload_preset(uri, preset)
    assert logged_in.requests == []


@pytest.mark.parametrize(
    ("uri", "preset", "message"), [(3, "x", "`uri` must be a string"), (HF, 3, "`preset` must be")]
)
def test_a_wrong_type(uri: Any, preset: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        nextword.upload_preset(uri, preset)


def remove(name: str) -> Any:
    return lambda directory: (directory / name).unlink()


def write(name: str, data: bytes = b"x") -> Any:
    return lambda directory: (directory / name).write_bytes(data)


@pytest.mark.parametrize("uri", [HF, KAGGLE])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "does not exist"),
        (remove("config.json"), "it has no config.json"),
        (remove("model.weights.h5"), "has no weights"),
        (write("model.weights.h5"), "HDF5"),
        (write("config.json", b"{}"), "no model that nextword can read"),
        (write("task.json", b'{"registered_name": "os>system"}'), "'registered_name' such as"),
        (write(".env"), r"'\.env', which is no part of a preset"),
        (write(".DS_Store.json"), "no part of a preset"),
        (write("model.py"), r"'model\.py', which is no part of a preset"),
        (write("assets/tokenizer/run.sh"), r"'assets/tokenizer/run\.sh', which is no part"),
        (write("weights.pkl"), "no part of a preset"),
        (lambda directory: (directory / ".git").mkdir(), r"'\.git', which is no part of a preset"),
        (lambda directory: os.mkfifo(directory / "pipe.json"), "no file that can be read"),
        (lambda directory: os.mkfifo(directory / "LICENSE"), "no file that can be read"),
        (
            lambda directory: (directory / "passwd.txt").symlink_to("/etc/passwd"),
            "a link that leads out of it",
        ),
        (lambda directory: (directory / "etc").symlink_to("/etc"), "a link that leads out of it"),
        (lambda directory: (directory / "x.txt").symlink_to("nowhere"), "no file that can be read"),
    ],
)
def test_a_directory_that_is_no_clean_preset(
    logged_in: HubServer, preset: Path, uri: str, spoil: Any, message: str
) -> None:
    spoil(preset)
    with pytest.raises(PresetError, match=message):
        nextword.upload_preset(uri, preset)
    assert logged_in.requests == []


def test_a_file_is_no_preset(preset: Path) -> None:
    with pytest.raises(PresetError, match="`preset` must be the directory .* which is a file"):
        nextword.upload_preset(HF, preset / "config.json")
    with pytest.raises(PresetError, match="'~nosuchuser/preset', which does not exist"):
        nextword.upload_preset(HF, "~nosuchuser/preset")


def test_a_folder_that_cannot_be_read_is_not_skipped(
    logged_in: HubServer, preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refuse(path: str) -> Any:  # as the operating system does, but for its administrator
        if Path(path).name == "assets":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PresetError, match="Cannot read .*assets': Permission denied"):
        nextword.upload_preset(HF, preset)
    assert logged_in.requests == []


def test_links_within_the_directory_and_the_home_directory(
    logged_in: HubServer, preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (preset / "model.weights.h5").rename(preset / "original.h5")
    (preset / "model.weights.h5").symlink_to("original.h5")
    monkeypatch.setenv("HOME", str(preset.parent))
    nextword.upload_preset(HF, "~/preset/")
    stored = repository_files(logged_in)
    assert stored["model.weights.h5"] == (preset / "original.h5").read_bytes()


# ---- refused by the hub


@pytest.mark.parametrize("token", [None, "hf_bad"])
def test_hf_not_logged_in(
    hub: HubServer, preset: Path, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(PresetError, match=r"valid token: set HF_TOKEN or run `hf auth login`\.$"):
        nextword.upload_preset(HF, preset)
    assert hub.repositories == {}


@pytest.mark.parametrize("exists", [False, True])
def test_hf_no_permission(logged_in: HubServer, preset: Path, exists: bool) -> None:
    if exists:
        logged_in.add_huggingface("other/tiny", {"config.json": b"theirs"})
    with pytest.raises(PresetError, match=r"'hf://other/tiny': .* may not write there\.$"):
        nextword.upload_preset("hf://other/tiny", preset)
    if exists:
        assert repository_files(logged_in, "other/tiny") == {"config.json": b"theirs"}


def test_hf_offline(logged_in: HubServer, preset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()
    with pytest.raises(PresetError, match=r"the client is offline \(HF_HUB_OFFLINE\)"):
        nextword.upload_preset(HF, preset)


def test_hf_refuses_a_model_card(logged_in: HubServer, preset: Path) -> None:
    (preset / "README.md").write_text("no metadata")
    with pytest.raises(PresetError, match=r"the upload failed \(ValueError: Invalid metadata"):
        nextword.upload_preset(HF, preset)
    assert repository_files(logged_in).keys() == {".gitattributes"}


def test_kaggle_not_logged_in(hub: HubServer, preset: Path) -> None:
    with pytest.raises(PresetError, match=r"refused access: set KAGGLE_API_TOKEN.* of 'me'"):
        nextword.upload_preset(KAGGLE, preset)
    assert hub.models == {}


def test_kaggle_no_permission(logged_in: HubServer, preset: Path) -> None:
    with pytest.raises(PresetError, match=r"refused access: .* of 'other' or of one who may write"):
        nextword.upload_preset("kaggle://other/tiny/keras/base", preset)


def test_kaggle_unknown_framework(logged_in: HubServer, preset: Path) -> None:
    with pytest.raises(PresetError, match=r"the upload failed \(.*nosuch"):
        nextword.upload_preset("kaggle://me/tiny/nosuch/base", preset)
