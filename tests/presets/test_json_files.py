"""JSON that is not trusted: what is read has one meaning, and all else is one sentence of error."""

import json
import os
import sys
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_json import HOSTILE
from nextword.presets import PresetError
from nextword.presets.json_files import parse_json, read_json


@pytest.mark.parametrize("case", HOSTILE)
def test_each_lie_is_one_sentence(tmp_path, case):
    content, words = HOSTILE[case]
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(PresetError, match=words) as caught:
        read_json(path)
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith(".")
    assert "config.json" in message
    assert len(message) < 500


def test_reads_an_object(tmp_path):
    value = {"model_type": "llama", "eps": 1e-5, "ids": [1, -2], "more": {"é": None, "😀": True}}
    path = tmp_path / "config.json"
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2)):
        path.write_text(text, encoding="utf-8")
        assert read_json(path) == value
        path.write_text(text, encoding="utf-8-sig")
        assert read_json(path) == value


def test_size_is_bounded_before_anything_is_read(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:  # sparse
        file.truncate(2**30)
    tracemalloc.start()
    with pytest.raises(PresetError, match=r"at most 16,777,216 bytes.*1,073,741,824 bytes"):
        read_json(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    path.write_text('{"a": 1}')
    assert read_json(path, max_bytes=8) == {"a": 1}
    with pytest.raises(PresetError, match="at most 7 bytes"):
        read_json(path, max_bytes=7)


def test_what_is_not_a_file(tmp_path):
    with pytest.raises(PresetError, match=r"Cannot read .*config\.json': No such file"):
        read_json(tmp_path / "config.json")
    with pytest.raises(PresetError, match="must be a file"):
        read_json(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes in the file system")
def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(PresetError, match="must be a file"):
        read_json(tmp_path / "config.json")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(), VALUES), st.booleans())
def test_agrees_with_the_standard_library(value, ascii_only):
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=40) | st.text(r'{}[]":,0123456789.eE+-\ud8f truefalsn', max_size=40))
def test_noise_is_refused_or_means_what_the_standard_library_says(content):
    data = content if isinstance(content, bytes) else content.encode()
    try:
        value = parse_json(b'{"a":' + data + b"}")
    except ValueError:
        return
    assert value == json.loads(b'{"a":' + data + b"}")
