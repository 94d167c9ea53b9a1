"""The guard itself sees what it must, or the tests that rely on it would say nothing."""

import contextlib
import importlib
import os
import pickle
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import nextword
from attacks.guard import watched
from hostile_h5 import external_link

FORBIDDEN: dict[str, Callable[[Path], object]] = {
    "a file beside the preset": lambda bait: (bait / "secret.json").read_text(),
    "a file that is written": lambda bait: (bait.parent / "checkpoint" / "x").write_text(""),
    "a file that is removed": lambda bait: (bait.parent / "checkpoint" / "config.json").unlink(),
    "a directory": lambda bait: (bait / "x").mkdir(),
    "a process": lambda bait: subprocess.run([sys.executable, "--version"], check=True),
    "a shell": lambda bait: os.system("true"),  # what is tested
    "a connection": lambda bait: socket.create_connection(("127.0.0.1", 9), 1),
    "a name of a host": lambda bait: socket.getaddrinfo("localhost", 9),
    "a download": lambda bait: urllib.request.urlopen("http://127.0.0.1:9/"),
    "a pickle": lambda bait: pickle.loads(b"cbuiltins\neval\n."),
    "code": lambda bait: exec("1"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_python_does(checkpoint: Path, bait: Path, what: str) -> None:
    with pytest.raises(AssertionError, match="forbidden"), watched(checkpoint):
        FORBIDDEN[what](bait)
    # It is seen also where the error is swallowed.
    with (
        pytest.raises(AssertionError),
        watched(checkpoint),
        contextlib.suppress(AssertionError),
    ):
        FORBIDDEN[what](bait)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not tell who opens a file")
def test_what_native_code_opens(checkpoint: Path, bait: Path) -> None:
    path = checkpoint / "links.h5"
    with h5py.File(path, "w") as file:
        file.create_group("layers")
        external_link(file, bait)
    with (
        pytest.raises(AssertionError, match="other.h5"),
        watched(checkpoint, bait=bait),
        h5py.File(path) as file,
    ):
        file["layers/link"][...]


def test_packages(bait: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bait / "harmless_package.py").write_text("")
    monkeypatch.syspath_prepend(bait)
    with pytest.raises(AssertionError, match="harmless_package"), watched(bait):
        importlib.import_module("harmless_package")


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is not kept")
def test_memory() -> None:
    with pytest.raises(MemoryError), watched(memory=2**28):
        np.ones(2**28)
    np.ones(2**20)


def test_a_sound_preset_passes(sound: dict[str, Path], bait: Path) -> None:
    for directory in sound.values():
        with watched(directory, bait=bait):
            nextword.models.CausalLM.from_preset(directory)
