"""Directories in the layout of transformers: config.json and safetensors, and what may be wrong."""

import json
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from nextword.presets import PresetError, open_checkpoint, resolve_preset
from nextword.presets.safetensors_files import read_safetensors_header
from nextword.presets.sources import LocalDirectory
from nextword.presets.stored_tensors import StoredTensors
from nextword.presets.transformers import TransformersCheckpoint

CONFIG = {"model_type": "llama", "hidden_size": 4, "auto_map": {"AutoModel": "evil.Model"}}
RANDOM = np.random.default_rng(0)
MATRIX = RANDOM.normal(size=(3, 4)).astype(np.float32)
INDEX = "model.safetensors.index.json"


def write_config(directory, config=CONFIG):
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def write_single(directory, tensors):
    save_file(tensors, write_config(directory) / "model.safetensors", metadata={"format": "pt"})
    return directory


def write_sharded(directory, shards, weight_map=None):
    write_config(directory)
    for file, tensors in shards.items():
        save_file(tensors, directory / file)
    if weight_map is None:
        weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return directory


def open_directory(directory) -> TransformersCheckpoint:
    checkpoint = open_checkpoint(resolve_preset(directory))
    assert isinstance(checkpoint, TransformersCheckpoint)
    return checkpoint


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_tensors_come_as_stored(tmp_path, dtype):
    tensors = {
        "matrix": MATRIX.astype(dtype),
        "vector": np.arange(3).astype(dtype),
        "scalar": np.array(2, dtype),
        "none": np.zeros((0, 4), dtype),
    }
    checkpoint = open_directory(write_single(tmp_path, tensors))
    assert checkpoint.format == "transformers"
    assert checkpoint.architecture == "llama"
    assert checkpoint.name == str(tmp_path)
    assert checkpoint.config == CONFIG
    assert checkpoint.dtype == np.dtype(dtype).name
    assert checkpoint.tensor_names() == set(tensors)
    for name, expected in tensors.items():
        tensor = checkpoint.tensor(name)
        assert tensor.dtype == expected.dtype
        assert checkpoint.shape(name) == tensor.shape == expected.shape
        assert tensor.tobytes() == expected.tobytes()


def test_tensors_are_mapped_and_files_never_written(tmp_path):
    checkpoint = open_directory(write_single(tmp_path, {"w": MATRIX}))
    before = (tmp_path / "model.safetensors").read_bytes()
    tensor = checkpoint.tensor("w")
    assert not tensor.flags.owndata
    tensor[:] = 7
    checkpoint.close()
    assert (tensor == 7).all()
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_tensors_at_odd_places_are_aligned(tmp_path):
    data = MATRIX.tobytes()
    entry = {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, len(data)]}
    header = json.dumps({"w": entry}).encode()
    for padding in range(4):
        padded = header + b" " * padding
        content = struct.pack("<Q", len(padded)) + padded + data
        (write_config(tmp_path) / "model.safetensors").write_bytes(content)
        tensor = open_directory(tmp_path).tensor("w")
        assert tensor.flags.aligned
        np.testing.assert_array_equal(tensor, MATRIX)


def test_what_transformers_itself_writes(tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=64,
        eos_token_id=[2, 3],
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    checkpoint = open_directory(tmp_path)
    expected = model.state_dict()
    assert checkpoint.tensor_names() == set(expected)
    assert checkpoint.dtype == "bfloat16"
    assert checkpoint.config["hidden_size"] == 16
    assert checkpoint.generation_config["eos_token_id"] == [2, 3]
    for name, weight in expected.items():
        np.testing.assert_array_equal(
            checkpoint.tensor(name).astype(np.float32), weight.float().numpy()
        )


def test_generation_config_is_optional(tmp_path):
    checkpoint = open_directory(write_single(tmp_path, {"w": MATRIX}))
    assert checkpoint.generation_config == {}


def test_dtype_is_that_of_most_matrix_elements(tmp_path):
    tensors = {
        "bias": np.zeros(100, np.float32),
        "a": np.zeros((4, 5), np.float16),
        "b": np.zeros((3, 7), ml_dtypes.bfloat16),
        "mask": np.zeros((9, 9), np.bool_),
    }
    assert open_directory(write_single(tmp_path, tensors)).dtype == "bfloat16"


def test_one_file_is_preferred_to_shards(tmp_path):
    write_sharded(tmp_path, {"model-1.safetensors": {"old": MATRIX}})
    assert open_directory(write_single(tmp_path, {"w": MATRIX})).tensor_names() == {"w"}


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, np.float64])
def test_tensors_that_are_no_weights_can_be_listed_but_not_read(tmp_path, dtype):
    checkpoint = open_directory(write_single(tmp_path, {"w": MATRIX, "mask": np.ones(3, dtype)}))
    assert checkpoint.shape("mask") == (3,)
    with pytest.raises(PresetError, match=r"'mask' of .*model\.safetensors' is stored as"):
        checkpoint.tensor("mask")


def test_unknown_tensor_names_the_nearest(tmp_path):
    checkpoint = open_directory(write_single(tmp_path, {"lm_head.weight": MATRIX}))
    with pytest.raises(PresetError, match=r"no tensor 'lm_head\.wait'.*'lm_head\.weight'"):
        checkpoint.tensor("lm_head.wait")


# Presets that lack something, or name what they must not.


def fails(directory, words) -> None:
    with pytest.raises(PresetError, match=words) as caught:
        open_checkpoint(resolve_preset(directory))
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith((".", "?"))


def test_directories_without_a_model(tmp_path):
    fails(tmp_path, r"not a GGUF file, and it has no config\.json")
    (tmp_path / "model.Q4_1.gguf").write_bytes(b"GGUF")
    fails(tmp_path, r"Name the GGUF file itself: it has 'model\.Q4_1\.gguf'")
    write_config(tmp_path, {"class_name": "LlamaBackbone"})
    fails(tmp_path, r"its config\.json has neither the 'model_type'")


@pytest.mark.parametrize("model_type", [None, 7, "", ["llama"]])
def test_model_type_must_be_a_name(tmp_path, model_type):
    fails(write_config(tmp_path, {"model_type": model_type}), "model_type=")


def test_directories_without_weights(tmp_path):
    fails(write_config(tmp_path), "neither model.safetensors nor model.safetensors.index.json")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "pytorch_model-00001.bin"])
def test_pickles_are_not_loaded(tmp_path, name):
    (write_config(tmp_path) / name).write_bytes(b"\x80\x04")
    fails(tmp_path, rf"'{name}', a pickle.*never loads.*safe_serialization=True")


def test_hubs_that_cannot_list_their_files(tmp_path):
    class Hub(LocalDirectory):
        def filenames(self) -> None:
            return None

    with pytest.raises(PresetError, match=r"neither model\.safetensors nor .*never loads"):
        open_checkpoint(Hub(write_config(tmp_path)))
    write_single(tmp_path, {"w": MATRIX})
    assert open_checkpoint(Hub(tmp_path)).tensor_names() == {"w"}


@pytest.mark.parametrize("quantization", [{"quant_method": "gptq"}, {}, "int4"])
def test_quantised_weights_are_not_taken_for_weights(tmp_path, quantization):
    write_single(tmp_path, {"w": MATRIX})
    write_config(tmp_path, CONFIG | {"quantization_config": quantization})
    fails(tmp_path, "weights quantised with")


@pytest.mark.parametrize(
    "shard",
    [
        "../secret.safetensors",
        "/etc/model.safetensors",
        "..",
        "sub/model.safetensors",
        "a\\b.safetensors",
        "C:model.safetensors",
        "a\x00.safetensors",
        "model.bin",
        "",
        7,
        None,
        ["model.safetensors"],
    ],
)
def test_shards_stay_beside_their_index(tmp_path, shard):
    directory = write_sharded(tmp_path / "preset", {}, {"w": shard})
    save_file({"w": MATRIX}, tmp_path / "secret.safetensors")
    (directory / "sub").mkdir()
    save_file({"w": MATRIX}, directory / "sub" / "model.safetensors")
    fails(directory, "Received: ")


@pytest.mark.parametrize("weight_map", [None, {}, [], "model.safetensors", 3])
def test_an_index_must_have_a_map(tmp_path, weight_map):
    write_config(tmp_path)
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    fails(tmp_path, "must have a 'weight_map'")


def test_shards_must_agree_with_their_index(tmp_path):
    one, two = "model-1.safetensors", "model-2.safetensors"
    shards = {one: {"a": MATRIX, "b": MATRIX}, two: {"c": MATRIX}}
    good = {"a": one, "b": one, "c": two}
    assert open_directory(write_sharded(tmp_path, shards)).tensor_names() == {"a", "b", "c"}
    write_sharded(tmp_path, shards, good | {"d": two})
    fails(tmp_path, r"puts the tensor 'd' in 'model-2\.safetensors', which does not hold it")
    write_sharded(tmp_path, shards, good | {"b": two})
    fails(tmp_path, r"puts the tensor 'b' in 'model-2\.safetensors', which does not hold it")
    write_sharded(tmp_path, shards, good | {"b": "model-3.safetensors"})
    fails(tmp_path, r"no file 'model-3\.safetensors'")
    write_sharded(tmp_path, shards | {two: {"c": MATRIX, "a": MATRIX}}, good)
    fails(tmp_path, r"'a' .* stored twice, in 'model-1\.safetensors' and in 'model-2\.safetensors'")
    (tmp_path / two).write_bytes(b"")
    fails(tmp_path, r"model-2\.safetensors' is not a safetensors file .* it is an empty file")


# Safetensors files that lie.


def safetensors_bytes(header, data=b"\0" * 48, length=None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape=(3, 4), dtype="F32", offsets=(0, 48)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


ONE = json.dumps(entry()).encode()


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('a pickle was loaded')",)


HOSTILE = {
    "empty": (b"", "empty file"),
    "five bytes": (b"\1\0\0\0\0", "header"),
    "header of 0 bytes": (safetensors_bytes(b""), "a header of 0 bytes"),
    "header beyond the file": (safetensors_bytes({"w": entry()}, length=2**20), "header"),
    "header of 2^63 bytes": (safetensors_bytes({"w": entry()}, length=2**63), f"{2**63} bytes"),
    "header of 2^64-1 bytes": (safetensors_bytes({}, length=2**64 - 1), f"{2**64 - 1} bytes"),
    "header cut short": (safetensors_bytes({"w": entry()}, length=20), "safetensors file"),
    "header not an object": (safetensors_bytes(b"[]"), "does not begin with '{'"),
    "header not UTF-8": (safetensors_bytes(b'{"\xff": 1}'), "UTF-8"),
    "header after a space": (safetensors_bytes(b' {"w": ' + ONE + b"}"), "does not begin with '{'"),
    "nested deeply": (safetensors_bytes(b'{"w":' * 50_000), "nested too deeply"),
    "data cut short": (safetensors_bytes({"w": entry()}, data=b"\0" * 47), "safetensors file"),
    "data too long": (safetensors_bytes({"w": entry()}, data=b"\0" * 49), "safetensors file"),
    "key twice": (safetensors_bytes(b'{"w":' + ONE + b',"w":' + ONE + b"}"), "occurs twice"),
    "overlap": (
        safetensors_bytes({"a": entry(), "b": entry((2, 4), offsets=(16, 48))}),
        "safetensors file",
    ),
    "gap": (
        safetensors_bytes({"a": entry((4,), offsets=(0, 16)), "b": entry((4,), offsets=(32, 48))}),
        "safetensors file",
    ),
    "reversed offsets": (safetensors_bytes({"w": entry(offsets=(48, 0))}), "safetensors file"),
    "negative offset": (safetensors_bytes({"w": entry(offsets=(-48, 0))}), "safetensors file"),
    "offsets out of range": (safetensors_bytes({"w": entry(offsets=(48, 96))}), "safetensors file"),
    "one offset": (safetensors_bytes({"w": entry(offsets=(0,))}), "safetensors file"),
    "too few bytes": (safetensors_bytes({"w": entry((3, 5))}), "safetensors file"),
    "too many bytes": (safetensors_bytes({"w": entry((3, 3))}), "safetensors file"),
    "overflowing product": (safetensors_bytes({"w": entry((2**33, 2**33))}), "safetensors file"),
    "negative dimensions": (safetensors_bytes({"w": entry((-3, -4))}), "safetensors file"),
    "fractional dimension": (safetensors_bytes({"w": entry((3, 4.0))}), "safetensors file"),
    "unknown dtype": (safetensors_bytes({"w": entry(dtype="F33")}), "safetensors file"),
    "no dtype": (safetensors_bytes({"w": {"shape": [3, 4]}}), "safetensors file"),
    "rank 10,000": (safetensors_bytes({"w": entry((3, 4) + (1,) * 9_998)}), "10000 dimensions"),
    "metadata not strings": (
        safetensors_bytes({"__metadata__": {"a": 1}, "w": entry()}),
        "safetensors file",
    ),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
    "HTML": (b"<!doctype html><html><body>404</body></html>", "it is an HTML page"),
    "pickle": (pickle.dumps(Malicious()), "it is a Python pickle"),
    "zipped pickle": (b"PK\x03\x04" + pickle.dumps(Malicious()), "it is a zip archive"),
    "GGUF": (b"GGUF" + b"\0" * 60, "it is a GGUF file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_each_lie_is_one_sentence(tmp_path, case):
    content, words = HOSTILE[case]
    (write_config(tmp_path) / "model.safetensors").write_bytes(content)
    with pytest.raises(PresetError, match=words) as caught:
        open_checkpoint(resolve_preset(tmp_path))
    message = str(caught.value)
    assert message.isprintable()
    assert message.endswith(".")
    assert r"model.safetensors' is not a safetensors file" in message
    assert len(message) < 600


def test_the_crafted_file_without_a_lie_opens(tmp_path):
    data = MATRIX.tobytes()
    (write_config(tmp_path) / "model.safetensors").write_bytes(
        safetensors_bytes({"__metadata__": {"format": "pt"}, "w": entry()}, data)
    )
    np.testing.assert_array_equal(open_directory(tmp_path).tensor("w"), MATRIX)


@pytest.fixture(scope="module")
def scratch_file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "model.safetensors"


@pytest.fixture(scope="module")
def valid(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("valid") / "model.safetensors"
    tensors = {"a": MATRIX, "b": MATRIX.astype(ml_dtypes.bfloat16), "c": np.ones(3, np.int64)}
    save_file(tensors, path, metadata={"format": "pt"})
    return path.read_bytes()


def opens_or_refuses(path, content: bytes) -> bool:
    """Whether the file could be read; anything but `PresetError` fails the test."""
    path.write_bytes(content)
    try:
        tensors = StoredTensors("fuzz", read_safetensors_header(path))
        for name in tensors.tensor_names():
            shape = tensors.shape(name)
            assert name == "c" or tensors.tensor(name).shape == shape
    except PresetError as error:
        assert str(error).isprintable()
        return False
    return True


def test_every_truncation_is_refused(valid, scratch_file):
    assert opens_or_refuses(scratch_file, valid)
    for length in range(len(valid)):
        assert not opens_or_refuses(scratch_file, valid[:length]), length


@settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(data=st.data())
def test_flipped_bytes_open_or_are_refused(valid, scratch_file, data):
    content = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    opens_or_refuses(scratch_file, bytes(content))
