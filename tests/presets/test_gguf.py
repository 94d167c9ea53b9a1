"""GGUF files: what is in them comes out, in the names, shapes and dtypes that they have there."""

import time
from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import pytest

from ggml_blocks import FORMATS, meaning, random_rows
from gguf_files import Blocks, write_gguf
from nextword.presets import PresetError, open_checkpoint, resolve_preset
from nextword.presets.gguf import GGUFCheckpoint

METADATA = {
    "general.architecture": "llama",
    "general.name": "tïny",
    "general.languages": ["en", "日本語", ""],
    "llama.block_count": 2,
    "llama.rope.freq_base": 0.5,
    "llama.attention.head_count_kv": [3, -1, 2],
    "llama.rope.scaling.finetuned": True,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "Ġb", "", "<|im_end|>"],
    "tokenizer.ggml.token_type": [1, 1, 1, 3],
    "tokenizer.ggml.scores": [0.0, -1.5, 2.0, 0.25],
    "tokenizer.ggml.merges": ["a Ġb"],
    "tokenizer.ggml.add_bos_token": False,
}
RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.normal(size=(6, 64)).astype(np.float32)
QUANTIZERS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]


def open_gguf(path) -> GGUFCheckpoint:
    checkpoint = open_checkpoint(resolve_preset(path))
    assert isinstance(checkpoint, GGUFCheckpoint)
    return checkpoint


def test_metadata_is_plain_python(tmp_path):
    checkpoint = open_gguf(write_gguf(tmp_path / "m.gguf", METADATA, {"w": MATRIX}))
    assert checkpoint.format == "gguf"
    assert checkpoint.architecture == "llama"
    assert checkpoint.name == str(tmp_path / "m.gguf")
    read = {**checkpoint.config, **checkpoint.tokenizer_data}
    assert read == METADATA
    assert {key: type(value) for key, value in read.items()} == {
        key: type(value) for key, value in METADATA.items()
    }
    assert set(checkpoint.tokenizer_data) == {key for key in METADATA if key.startswith("token")}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_floats_come_as_stored(tmp_path, dtype):
    tensors = {
        "vector": np.arange(5).astype(dtype),
        "matrix": MATRIX.astype(dtype),
        "experts": RANDOM.normal(size=(2, 3, 4)).astype(dtype),
        "stack": RANDOM.normal(size=(2, 1, 3, 4)).astype(dtype),
    }
    checkpoint = open_gguf(write_gguf(tmp_path / "m.gguf", METADATA, tensors))
    assert checkpoint.tensor_names() == set(tensors)
    assert checkpoint.dtype == np.dtype(dtype).name
    for name, expected in tensors.items():
        tensor = checkpoint.tensor(name)
        assert tensor.dtype == expected.dtype
        assert checkpoint.shape(name) == tensor.shape == expected.shape
        assert tensor.flags.c_contiguous
        assert tensor.tobytes() == expected.tobytes()


def test_arrays_are_writable_without_writing_to_the_file(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", METADATA, {"w": MATRIX})
    before = path.read_bytes()
    tensor = open_gguf(path).tensor("w")
    tensor[:] = 7
    assert path.read_bytes() == before


def test_arrays_outlive_the_checkpoint(tmp_path):
    checkpoint = open_gguf(write_gguf(tmp_path / "m.gguf", METADATA, {"w": MATRIX}))
    tensor = checkpoint.tensor("w")
    checkpoint.close()
    np.testing.assert_array_equal(tensor, MATRIX)


@pytest.mark.parametrize("kind", FORMATS)
def test_dequantised_values_are_what_the_format_means(tmp_path, kind):
    data = random_rows(kind, rows=5, blocks=3, seed=1)
    tensors = {"w": Blocks(data, kind), "experts": Blocks(data[:4].reshape(2, 2, -1), kind)}
    checkpoint = open_gguf(write_gguf(tmp_path / "m.gguf", METADATA, tensors))
    expected = meaning(kind, data)
    tensor = checkpoint.tensor("w")
    assert checkpoint.dtype == "float32"
    assert tensor.dtype == np.float32
    assert checkpoint.shape("w") == tensor.shape == expected.shape
    np.testing.assert_allclose(tensor, expected, rtol=1e-5, atol=1e-6)
    experts = checkpoint.tensor("experts")
    assert checkpoint.shape("experts") == experts.shape
    np.testing.assert_array_equal(experts.reshape(4, -1), tensor[:4])


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_quantising_loses_half_a_step_at_most(tmp_path, kind):
    matrix = RANDOM.normal(size=(300, 1024)).astype(np.float32)  # more than is read in one go
    checkpoint = open_gguf(write_gguf(tmp_path / "m.gguf", METADATA, {"w": matrix}, kind))
    groups = matrix.reshape(300, -1, 32)
    if kind in ("Q4_1", "Q5_1"):  # the range of a group in 2^bits - 1 steps
        step = np.ptp(groups, axis=-1) / (2 ** int(kind[1]) - 1)
    elif kind == "Q8_0":
        step = np.abs(groups).max(axis=-1) / 127
    else:  # the largest magnitude is 2^(bits - 1) steps, of which one side lacks the last
        step = 2 * np.abs(groups).max(axis=-1) / 2 ** (int(kind[1]) - 1)
    error = np.abs(checkpoint.tensor("w").reshape(groups.shape) - groups).max(axis=-1)
    assert np.all(error <= 0.5 * step + 3e-3)  # and the rounding of the scales to half precision
    assert np.all(error > 0)


def test_rows_longer_than_a_chunk(tmp_path):
    data = random_rows("Q8_0", rows=2, blocks=2**14, seed=2)
    checkpoint = open_gguf(write_gguf(tmp_path / "m.gguf", METADATA, {"w": Blocks(data, "Q8_0")}))
    np.testing.assert_allclose(checkpoint.tensor("w"), meaning("Q8_0", data), rtol=1e-6)


def test_scales_that_are_not_finite_give_what_they_say(tmp_path):
    data = random_rows("Q8_0", rows=1, blocks=2, seed=3)
    data[0, :2] = np.frombuffer(np.float16(np.inf).tobytes(), np.uint8)
    data[0, 2] = 0  # infinity times zero
    checkpoint = open_gguf(write_gguf(tmp_path / "m.gguf", METADATA, {"w": Blocks(data, "Q8_0")}))
    assert np.isnan(checkpoint.tensor("w")[0, 0])
    assert np.isfinite(checkpoint.tensor("w")[0, 32:]).all()


def test_dtype_is_that_of_most_matrix_elements(tmp_path):
    tensors = {
        "bias": np.zeros(1000, np.float32),
        "a": np.zeros((4, 32), np.float16),
        "b": np.zeros((5, 32), ml_dtypes.bfloat16),
    }
    assert open_gguf(write_gguf(tmp_path / "m.gguf", METADATA, tensors)).dtype == "bfloat16"
    del tensors["a"], tensors["b"]
    assert open_gguf(write_gguf(tmp_path / "v.gguf", METADATA, tensors)).dtype == "float32"


def test_reads_what_the_package_reads(tmp_path):
    tensors = {"a": MATRIX, "b": MATRIX.astype(np.float16), "c": MATRIX[:1]}
    path = write_gguf(tmp_path / "m.gguf", METADATA | {"general.alignment": 64}, tensors, "Q4_1")
    oracle = gguf.GGUFReader(path)
    checkpoint = open_gguf(path)
    read = {**checkpoint.config, **checkpoint.tokenizer_data}
    assert read == {
        key: field.contents() for key, field in oracle.fields.items() if not key.startswith("GGUF")
    }
    for tensor in oracle.tensors:
        assert checkpoint.shape(tensor.name) == tuple(reversed(tensor.shape.tolist()))
        np.testing.assert_array_equal(
            checkpoint.tensor(tensor.name), gguf.dequantize(tensor.data, tensor.tensor_type)
        )


def test_large_vocabularies_open_quickly(tmp_path):
    tokens = [f"token{i}" for i in range(60_000)]
    path = write_gguf(tmp_path / "m.gguf", METADATA | {"tokenizer.ggml.tokens": tokens}, {})
    start = time.process_time()
    checkpoint = open_gguf(path)
    assert time.process_time() - start < 0.5  # one array per string takes 1.5 s
    assert checkpoint.tokenizer_data["tokenizer.ggml.tokens"] == tokens


def test_unknown_tensor_names_the_nearest(tmp_path):
    checkpoint = open_gguf(write_gguf(tmp_path / "m.gguf", METADATA, {"output.weight": MATRIX}))
    for ask in (checkpoint.tensor, checkpoint.shape):
        with pytest.raises(PresetError, match=r"no tensor 'output\.weigt'.*'output\.weight'"):
            ask("output.weigt")


def test_a_file_that_was_cut_after_opening(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", METADATA, {"w": MATRIX})
    checkpoint = open_gguf(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(PresetError, match=r"m\.gguf' has been cut short or removed"):
        checkpoint.tensor("w")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mappings")
def test_nothing_stays_open(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", METADATA, {"w": MATRIX})
    mappings = Path("/proc/self/maps")
    checkpoint = open_gguf(path)
    assert str(path) not in mappings.read_text()
    tensor = checkpoint.tensor("w")
    assert str(path) in mappings.read_text()
    del tensor
    assert str(path) not in mappings.read_text()


def test_the_default_preset(smollm2_path):
    checkpoint = open_gguf(smollm2_path)
    assert checkpoint.architecture == "llama"
    assert checkpoint.dtype == "float32"
    assert len(checkpoint.tensor_names()) == 272
    assert checkpoint.config["llama.block_count"] == 30
    assert checkpoint.shape("blk.29.attn_k.weight") == (192, 576)
    tokens = checkpoint.tokenizer_data["tokenizer.ggml.tokens"]
    assert len(tokens) == 49152
    assert tokens[1:3] == ["<|im_start|>", "<|im_end|>"]
