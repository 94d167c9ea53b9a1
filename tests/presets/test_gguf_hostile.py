"""GGUF files that lie: one sentence of error each, before anything large is allocated or read."""

import os
import pickle
import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFValueType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggml_blocks import random_rows
from gguf_files import ARCHITECTURE, Blocks, gguf_bytes, info, pair, string, write_gguf
from nextword.presets import PresetError
from nextword.presets.gguf import GGUFCheckpoint

U8, U32, F32, BOOL, STRING, ARRAY, U64 = (
    GGUFValueType[name]
    for name in ("UINT8", "UINT32", "FLOAT32", "BOOL", "STRING", "ARRAY", "UINT64")
)
ROW = np.zeros(8, np.float32).tobytes()


def array(kind: int, length: int, payload: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, length) + payload


def with_key(key, kind, payload) -> bytes:
    return gguf_bytes([ARCHITECTURE, pair(key, kind, payload)])


def with_alignment(alignment: int, kind: int = U32, code: str = "<I") -> bytes:
    payload = struct.pack(code, alignment)
    return gguf_bytes([ARCHITECTURE, pair("general.alignment", kind, payload)], [info("t", [8])])


def nested(depth: int) -> bytes:
    return b"".join([array(ARRAY, 1)] * depth) + array(U8, 0)


HOSTILE = {
    "empty": (b"", "empty file"),
    "two bytes of magic": (b"GG", "ends after 2 bytes"),
    "magic only": (b"GGUF", "ends after 4 bytes"),
    "other magic": (gguf_bytes(magic=b"GGML"), "does not begin with 'GGUF'"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS pointer"),
    "HTML": (b"\n<!doctype HTML><html>404</html>", "HTML page"),
    "pickle": (pickle.dumps({"w": ROW}), "Python pickle"),
    "zip": (b"PK\x03\x04" + b"\0" * 100, "zip archive"),
    "version 1": (gguf_bytes(version=1), "version=1"),
    "version 4": (gguf_bytes(version=4), "version=4"),
    "version 0": (gguf_bytes(version=0), "not supported"),
    "big-endian": (gguf_bytes(order=">"), "big-endian"),
    "2^60 keys": (gguf_bytes(num_pairs=2**60), f"{2**60} keys"),
    "2^60 tensors": (gguf_bytes(num_tensors=2**60), f"{2**60} tensors"),
    "more keys than there are": (gguf_bytes(num_pairs=3), "the key '' occurs twice"),
    "more tensors than there are": (gguf_bytes(num_tensors=2), "cut short or damaged"),
    "key of 2^63 bytes": (gguf_bytes([struct.pack("<Q", 2**63) + b"k"]), "cut short or damaged"),
    "key of 2^64-1 bytes": (gguf_bytes([struct.pack("<Q", 2**64 - 1)]), "cut short or damaged"),
    "string of 2^63 bytes": (with_key("k", STRING, struct.pack("<Q", 2**63)), "cut short"),
    "array of 2^60 bytes": (with_key("k", ARRAY, array(U8, 2**60)), "cut short or damaged"),
    "array of 2^61 numbers": (with_key("k", ARRAY, array(U64, 2**61)), "cut short or damaged"),
    "array of 2^60 strings": (with_key("k", ARRAY, array(STRING, 2**60)), "cut short or damaged"),
    "array with a huge string": (
        with_key("k", ARRAY, array(STRING, 2, string("a") + struct.pack("<Q", 2**64 - 1))),
        "cut short or damaged",
    ),
    "array of arrays": (with_key("k", ARRAY, nested(2)), "array of arrays"),
    "100,000 nested arrays": (with_key("k", ARRAY, nested(100_000)), "array of arrays"),
    "array of unknown type": (with_key("k", ARRAY, array(99, 1)), "99"),
    "value of unknown type": (with_key("k", 99, b""), "99"),
    "key twice": (
        with_key("general.architecture", STRING, string("b")),
        "'general.architecture' occurs twice",
    ),
    "key not UTF-8": (with_key(b"\xff", U8, b"\0"), "utf-8"),
    "value not UTF-8": (with_key("k", STRING, string(b"\xff")), "'k' is not UTF-8"),
    "array not UTF-8": (with_key("k", ARRAY, array(STRING, 1, string(b"\xff"))), "not UTF-8"),
    "token not UTF-8": (
        with_key("tokenizer.ggml.tokens", ARRAY, array(STRING, 1, string(b"\xc3"))),
        "'tokenizer.ggml.tokens' is not UTF-8",
    ),
    "no architecture": (gguf_bytes([]), "general.architecture"),
    "empty architecture": (
        gguf_bytes([pair("general.architecture", STRING, string(""))]),
        "general.architecture",
    ),
    "numeric architecture": (
        gguf_bytes([pair("general.architecture", U8, b"\1")]),
        "general.architecture",
    ),
    "alignment 0": (with_alignment(0), "alignment"),
    "alignment 24": (with_alignment(24), "alignment"),
    "alignment beyond the file": (with_alignment(2**31), "'t' would take bytes"),
    "alignment of another type": (with_alignment(32, U64, "<Q"), "general.alignment"),
    "part of several": (with_key("split.count", U32, struct.pack("<I", 3)), "one of 3 parts"),
}
F16, Q4_K, I32, IQ1_S = (GGMLQuantizationType[name] for name in ("F16", "Q4_K", "I32", "IQ1_S"))
HOSTILE_TENSORS = {
    "beyond the file": ([info("t", [9])], "'t' would take bytes"),
    "far beyond the file": ([info("t", [2**40])], "'t' would take bytes"),
    "offset beyond the file": ([info("t", [8], offset=2**20)], "'t' would take bytes"),
    "offset overflowing": ([info("t", [8], offset=2**64 - 32)], "'t' would take bytes"),
    "offset not aligned": ([info("t", [1], offset=4)], "offset=4"),
    "product overflowing to 0": ([info("t", [2**32, 2**32])], "'t' would take bytes"),
    "product overflowing to 8": ([info("t", [2**61 + 1, 8])], "'t' would take bytes"),
    "bytes overflowing": ([info("t", [2**62 + 2])], "'t' would take bytes"),
    "negative dimension": ([info("t", [2**64 - 1])], "'t' would take bytes"),
    "zero dimension": ([info("t", [0])], r"'t' has no elements"),
    "zero beside a huge one": ([info("t", [2**63, 0])], r"'t' has no elements"),
    "no dimensions": ([info("t", [])], "1 to 4 dimensions. Received: 0"),
    "five dimensions": ([info("t", [1] * 5)], "1 to 4 dimensions. Received: 5"),
    "2^32-1 dimensions": ([info("t", [1], rank=2**32 - 1)], "cut short or damaged"),
    "unknown type": ([info("t", [8], 4242)], "'t' has the unknown type 4242"),
    "removed type": ([info("t", [8], 4)], "'t' has the unknown type 4"),
    "integers": ([info("t", [8], I32)], "Received: I32"),
    "unsupported quantisation": ([info("t", [256], IQ1_S)], "Received: IQ1_S"),
    "row not of whole blocks": ([info("t", [8], Q4_K)], "multiple of 256"),
    "same name": ([info("t", [8]), info("t", [8], offset=32)], "two tensors have the name 't'"),
    "overlapping": ([info("a", [8], F16), info("b", [8])], "'a' and 'b' overlap"),
    "name not UTF-8": ([info(b"\xff", [8])], "utf-8"),
}
TWO_ROWS = {"same name", "unsupported quantisation"}
HOSTILE |= {
    f"tensor: {case}": (gguf_bytes(infos=infos, data=ROW * (2 if case in TWO_ROWS else 1)), words)
    for case, (infos, words) in HOSTILE_TENSORS.items()
}


def check_sentence(error: PresetError) -> None:
    message = str(error)
    assert message.isprintable()
    assert message.endswith(".")
    assert len(message) < 700


@pytest.mark.parametrize("case", HOSTILE)
def test_each_lie_is_one_sentence(tmp_path, case):
    content, words = HOSTILE[case]
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(PresetError, match=words) as caught:
            GGUFCheckpoint(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    check_sentence(caught.value)
    assert "m.gguf" in str(caught.value)
    assert peak < 16 * 2**20


def test_the_crafted_files_differ_from_good_ones_by_their_lie_only(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(
        gguf_bytes(
            [
                ARCHITECTURE,
                pair("k", ARRAY, array(STRING, 2, string("a") + string(""))),
                pair("none", ARRAY, array(STRING, 0)),
                pair("nothing", ARRAY, array(U8, 0)),
                pair("general.alignment", U32, struct.pack("<I", 8)),
            ],
            [info("t", [4, 2]), info("h", [8], F16, offset=32)],
            ROW + ROW[:16],
        )
    )
    checkpoint = GGUFCheckpoint(path)
    assert checkpoint.config["k"] == ["a", ""]
    assert checkpoint.config["none"] == checkpoint.config["nothing"] == []
    assert checkpoint.tensor("t").shape == (2, 4)
    assert checkpoint.tensor("h").dtype == np.float16


def test_a_header_without_end(tmp_path):
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:  # sparse: nothing of this size is ever written
        file.write(gguf_bytes([ARCHITECTURE, pair("k", ARRAY, array(U8, 2**27))]))
        file.truncate(2**28)
    with pytest.raises(PresetError, match=r"header must have at most 67,108,864 bytes"):
        GGUFCheckpoint(path)


def test_an_array_of_strings_without_end(tmp_path):
    path = tmp_path / "m.gguf"
    with path.open("wb") as file:
        file.write(gguf_bytes([ARCHITECTURE, pair("k", ARRAY, array(STRING, 2**60))]))
        file.truncate(2**27)
    with pytest.raises(PresetError, match=r"header must have at most 67,108,864 bytes"):
        GGUFCheckpoint(path)


def test_what_is_not_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.gguf")
    cases = {"absent.gguf": "No such file", "pipe.gguf": "must be a file", ".": "must be a file"}
    for name, words in cases.items():
        with pytest.raises(PresetError, match=words):
            GGUFCheckpoint(tmp_path / name)


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "m.gguf"
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.rope.freq_base": 10000.0,
        "tokenizer.ggml.tokens": ["a", "b", "<|end|>"],
        "tokenizer.ggml.token_type": [1, 1, 3],
        "tokenizer.ggml.add_bos_token": True,
    }
    tensors = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.ones((2, 2), ml_dtypes.bfloat16),
        "c": Blocks(random_rows("Q4_K", 1, 1, seed=0), "Q4_K"),
        "d": np.ones(3, np.float16),
    }
    return write_gguf(path, metadata, tensors).read_bytes()


@pytest.fixture(scope="module")
def scratch_file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "m.gguf"


def opens_or_refuses(path, content: bytes) -> bool:
    """Whether all of it could be read; anything but `PresetError` fails the test."""
    path.write_bytes(content)
    try:
        checkpoint = GGUFCheckpoint(path)
        assert checkpoint.tokenizer_data.keys().isdisjoint(checkpoint.config)
        for name in checkpoint.tensor_names():
            assert checkpoint.tensor(name).shape == checkpoint.shape(name)
        assert checkpoint.dtype in ("float32", "float16", "bfloat16")
    except PresetError as error:
        check_sentence(error)
        return False
    return True


many = settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def test_every_truncation_is_refused(valid, scratch_file):
    # The writer pads the last tensor; without that padding the file is whole.
    whole = len(valid) - 26
    assert opens_or_refuses(scratch_file, valid[:whole])
    for length in range(0, whole, 3):
        assert not opens_or_refuses(scratch_file, valid[:length]), length
    assert not opens_or_refuses(scratch_file, valid[: whole - 1])


@many
@given(data=st.data())
def test_flipped_bytes_open_or_are_refused(valid, scratch_file, data):
    content = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    opens_or_refuses(scratch_file, bytes(content))


@many
@given(data=st.data())
def test_words_of_the_extremes_open_or_are_refused(valid, scratch_file, data):
    extremes = [0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]
    content = bytearray(valid)
    at = data.draw(st.integers(4, len(content) - 8))
    content[at : at + 8] = struct.pack("<Q", data.draw(st.sampled_from(extremes)))
    opens_or_refuses(scratch_file, bytes(content))


@many
@given(tail=st.binary(max_size=300))
def test_noise_behind_a_good_preamble_opens_or_is_refused(scratch_file, tail):
    opens_or_refuses(scratch_file, b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + tail)
