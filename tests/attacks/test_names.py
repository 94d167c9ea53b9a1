"""Names of presets that lead somewhere else."""

from pathlib import Path

import pytest

from attacks.faces import FACES
from attacks.guard import refused

NOTHING_THERE = "No preset"
HUGGING_FACE = "has the form hf://"
KAGGLE = "has the form kaggle://"
PYPI = "has the form pypi://"
CONTROL = "none of them control characters"
NAMES = {
    "../../etc": NOTHING_THERE,
    "../bait/none": NOTHING_THERE,
    "/etc/none": NOTHING_THERE,
    "~root/none": "preset",
    "~nobody-at-all/none": "preset",
    "/dev/zero": "not a device, pipe or socket",
    "file:///etc": "not a place that presets come from",
    "https://127.0.0.1/preset": "not a place that presets come from",
    "hf://a/b/../../c": HUGGING_FACE,
    "hf://../../etc": HUGGING_FACE,
    "hf://a/b@../../c": HUGGING_FACE,
    "hf://a/b/..\\c": HUGGING_FACE,
    "hf://user:secret@127.0.0.1/b": HUGGING_FACE,
    "kaggle://a/../keras/c": KAGGLE,
    "kaggle://a/b/keras/../1": KAGGLE,
    "kaggle://a/b/keras/c/../../1": KAGGLE,
    "pypi://a==1.0/../c.gguf": PYPI,
    "pypi://--index-url==1.0/c.gguf": PYPI,
    "pypi://a @ http://127.0.0.1/a.whl==1.0/c.gguf": PYPI,
    "preset\0": CONTROL,
    "preset\n": CONTROL,
    "\x1b[31mpreset": CONTROL,
    "hf://a/b\nc": CONTROL,
    "C:\\preset": NOTHING_THERE,
    "C:/preset": NOTHING_THERE,
    "\\\\server\\share": NOTHING_THERE,
    "preset\ud800": NOTHING_THERE,
    "x" * 300: "File name too long",
    "x/" * 2000: NOTHING_THERE,
    "x" * 100_000: CONTROL,
    "": CONTROL,
}


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:24])
def test_names(bait: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(bait)
    for face in FACES.values():
        refused(lambda _, face=face: face.from_preset(name), bait, NAMES[name], bait=bait)


@pytest.mark.parametrize("name", ["secret.json", "./evil.py", "../bait/secret.bin"])
def test_files_that_are_no_preset(bait: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(bait)
    for face in FACES.values():
        refused(lambda _, face=face: face.from_preset(name), bait, "A preset that is a single file")


def test_a_link_that_does_not_end(bait: Path) -> None:
    (bait / "config.json").symlink_to(bait / "config.json")
    for face in FACES.values():
        refused(face.from_preset, bait, r"config\.json")
