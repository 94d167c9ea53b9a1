"""KerasHub presets that are damaged or mean harm are refused, before anything large is made."""

import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_h5 import ATTACKS, Attack
from nextword.presets import PresetError, open_checkpoint, resolve_preset

deterministic = settings(max_examples=60, deadline=None, derandomize=True)
KERNEL = "layers/dense/vars/0"


def write(
    directory: Path, *, config: Any = None, registered: str = "keras_hub>GPT2Backbone"
) -> Path:
    """Write a preset with one kernel and one bias, in bfloat16."""
    envelope = {"class_name": "GPT2Backbone", "config": config or {}, "registered_name": registered}
    (directory / "config.json").write_text(json.dumps(envelope))
    with h5py.File(directory / "model.weights.h5", "w") as file:
        file[KERNEL] = np.arange(6, dtype="float32").reshape(2, 3)
        bias = file.create_dataset("layers/dense/vars/1", data=np.array([0x3F80], "<u2").view("V2"))
        bias.attrs["dtype"] = "bfloat16"
        file.create_group("layers/dropout/vars").attrs["name"] = "dropout"
    return directory


def load(directory: Path) -> Any:
    return open_checkpoint(resolve_preset(directory))


def refused(directory: Path, message: str) -> None:
    """Check that the preset is refused with a message, and without allocating much."""
    tracemalloc.start()
    try:
        with pytest.raises(PresetError, match=message):
            load(directory)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


def test_what_a_preset_holds(tmp_path: Path) -> None:
    checkpoint = load(write(tmp_path, config={"vocabulary_size": 5}))
    assert (checkpoint.format, checkpoint.architecture) == ("keras", "GPT2Backbone")
    assert checkpoint.config == {"vocabulary_size": 5}
    assert checkpoint.dtype == "float32"
    assert checkpoint.tensor_names() == {KERNEL, "layers/dense/vars/1"}
    np.testing.assert_array_equal(checkpoint.tensor(KERNEL), [[0, 1, 2], [3, 4, 5]])
    bias = checkpoint.tensor("layers/dense/vars/1")
    assert bias.dtype.name == "bfloat16"
    assert bias.tolist() == [1]


def test_the_name_that_keras_2_gave_to_layers(tmp_path: Path) -> None:
    write(tmp_path)
    with h5py.File(tmp_path / "model.weights.h5", "a") as file:
        file.move("layers", "_layer_checkpoint_dependencies")
    assert KERNEL in load(tmp_path).tensor_names()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_policy_is_kept(tmp_path: Path, policy: str) -> None:
    dtype = {"class_name": "DTypePolicy", "config": {"name": policy}}
    assert load(write(tmp_path, config={"dtype": dtype})).dtype == policy


@pytest.mark.parametrize(
    "name",
    [
        "builtins>eval",
        "os>system",
        "Lambda",
        "keras_hub>",
        "keras_hub>a.b",
        "keras_hub>é",
        "",
        7,
        None,
    ],
)
def test_class_names(tmp_path: Path, name: Any) -> None:
    write(tmp_path)
    envelope = json.loads((tmp_path / "config.json").read_text()) | {"registered_name": name}
    (tmp_path / "config.json").write_text(json.dumps(envelope))
    refused(tmp_path, "must have a 'registered_name' such as")


def test_nothing_that_a_file_names_is_imported(tmp_path: Path) -> None:
    write(tmp_path)
    envelope = json.loads((tmp_path / "config.json").read_text())
    envelope |= {"module": "antigravity", "class_name": "antigravity.fly"}
    (tmp_path / "config.json").write_text(json.dumps(envelope))
    load(tmp_path)
    import sys

    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("config", [[], "x", 3, None])
def test_a_config_that_is_no_object(tmp_path: Path, config: Any) -> None:
    write(tmp_path)
    envelope = {"config": config, "registered_name": "keras_hub>GPT2Backbone"}
    (tmp_path / "config.json").write_text(json.dumps(envelope))
    refused(tmp_path, "must have a 'config'")


@pytest.mark.parametrize(
    "dtype",
    [
        {"class_name": "DTypePolicyMap"},
        {"class_name": "DTypePolicyMap", "config": {"policy_map": ["int8"]}},
        {"class_name": "DTypePolicyMap", "config": {"policy_map": {"dense": "int8"}}},
        {"class_name": "DTypePolicyMap", "config": {"policy_map": {"dense": {"config": {}}}}},
        {
            "class_name": "DTypePolicyMap",
            "config": {"policy_map": {"dense": {"config": {"mode": "int4"}}}},
        },
        {
            "class_name": "DTypePolicyMap",
            "config": {"policy_map": {}, "default_policy": {"class_name": "evil"}},
        },
        {"class_name": "DTypePolicy", "config": {"name": 3}},
        {"class_name": "DTypePolicy"},
        [1],
    ],
)
def test_quantised_and_other_dtypes(tmp_path: Path, dtype: Any) -> None:
    refused(write(tmp_path, config={"dtype": dtype}), "must be float32, float16, bfloat16 or int8")


@pytest.mark.parametrize(("attack", "message"), ATTACKS.items())
def test_what_keras_never_writes(tmp_path: Path, attack: Attack, message: str) -> None:
    write(tmp_path)
    with h5py.File(tmp_path / "model.weights.h5", "a") as file:
        attack(file, tmp_path)
    refused(tmp_path, message)


@pytest.mark.parametrize(
    "array", [np.zeros(2, "f8"), np.zeros(2, "u1"), np.zeros(2, ">f4"), np.array([b"xy"], "V2")]
)
def test_a_tensor_that_is_no_weight_is_refused_when_it_is_read(
    tmp_path: Path, array: np.ndarray
) -> None:
    write(tmp_path)
    with h5py.File(tmp_path / "model.weights.h5", "a") as file:
        file["other"] = array
    checkpoint = load(tmp_path)
    with pytest.raises(PresetError, match="'other'.*cannot read as a weight"):
        checkpoint.tensor("other")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is an empty file"),
        (b"<!DOCTYPE html><html></html>", "it is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
        (b"PK\x03\x04", "it is a zip archive"),
        (b"\x80\x04\x95pickle", "it is a Python pickle"),
        (b"\x89HDF\r\n\x1a\n", "is not an HDF5 file that can be read"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path)
    (tmp_path / "model.weights.h5").write_bytes(content)
    refused(tmp_path, message)


@deterministic
@given(data=st.data())
def test_damaged_files_raise_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = write(tmp_path_factory.mktemp("preset"))
    path = directory / "model.weights.h5"
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        checkpoint = load(directory)
        for name in checkpoint.tensor_names():
            checkpoint.tensor(name)
    except PresetError:
        pass


def index(directory: Path, weight_map: Any) -> None:
    (directory / "model.weights.h5").rename(directory / "model_00000.weights.h5")
    (directory / "model.weights.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.mark.parametrize("shards", ["model_00000.weights.h5", ["model_00000.weights.h5"]])
def test_a_shard_index(tmp_path: Path, shards: Any) -> None:
    index(write(tmp_path), {"/layers/dense/vars": shards})
    assert load(tmp_path).shape(KERNEL) == (2, 3)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"/layers/dense/vars": "../model.weights.h5"}, "must name .h5 files beside it"),
        ({"/layers/dense/vars": "/etc/passwd"}, "must name .h5 files beside it"),
        ({"/layers/dense/vars": ["a/b.h5"]}, "must name .h5 files beside it"),
        ({"/layers/dense/vars": "..\\x.h5"}, "relative path"),
        ({"/layers/dense/vars": []}, "must name .h5 files beside it"),
        ({"/layers/dense/vars": [3]}, "must name .h5 files beside it"),
        ({"/layers/dense/vars": "x.bin"}, "must name .h5 files beside it"),
        ({"/layers/dense/vars": "missing.h5"}, "has no file 'missing.h5'"),
        ({"/layers/other/vars": "model_00000.weights.h5"}, "'layers/other/vars', which no weight"),
        ({}, "must have a 'weight_map'"),
        ([], "must have a 'weight_map'"),
        (None, "must have a 'weight_map'"),
    ],
)
def test_shard_indexes_that_lead_astray(tmp_path: Path, weight_map: Any, message: str) -> None:
    index(write(tmp_path), weight_map)
    refused(tmp_path, message)


def test_one_tensor_in_two_shards(tmp_path: Path) -> None:
    index(write(tmp_path), {"/layers/dense/vars": ["model_00000.weights.h5", "b.h5"]})
    (tmp_path / "b.h5").write_bytes((tmp_path / "model_00000.weights.h5").read_bytes())
    refused(tmp_path, "is stored twice")


def test_a_preset_without_weights(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "model.weights.h5").unlink()
    refused(tmp_path, re.escape("has neither model.weights.h5 nor model.weights.json"))
