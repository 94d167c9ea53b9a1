"""Weights that are missing, of the wrong kind, somewhere else, or no weights at all."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import nextword
from attacks.guard import refused, watched
from families.cases import CASES
from hostile_h5 import ATTACKS, Attack
from nextword.models.family import find_family
from nextword.presets import PresetError, open_checkpoint, resolve_preset
from nextword.presets.h5_files import read_h5_header
from nextword.presets.weight_table import CheckpointWeights
from tiny_bert import classifier

LOAD = nextword.models.Backbone.from_preset
INDEX = "model.safetensors.index.json"
DOWN = "model.layers.0.mlp.down_proj.weight"
NORM = "model.norm.weight"
EMBEDDINGS = "model.embed_tokens.weight"

EMBEDDING, HEAD = "reversible_embedding/vars/0", "reversible_embedding/vars/1"

Tensors = dict[str, np.ndarray]


def write_sharded(directory: Path, weight_map: Callable[[Tensors], dict[str, Any]]) -> None:
    """Replace the one file of a checkpoint by two shards, "a" with the norms and "b"."""
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    shards = {name: "a" if "norm" in name else "b" for name in tensors}
    for shard in "ab":
        kept = {name: tensor for name, tensor in tensors.items() if shards[name] == shard}
        save_file(kept, directory / f"{shard}.safetensors")
    whole = {name: f"{shard}.safetensors" for name, shard in shards.items()}
    (directory / INDEX).write_text(json.dumps({"weight_map": whole | weight_map(tensors)}))


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("../bait/secret.safetensors", "must name .safetensors files beside it"),
        ("{bait}/secret.safetensors", "must name .safetensors files beside it"),
        ("https://127.0.0.1/a.safetensors", "must name .safetensors files beside it"),
        ("..\\bait\\secret.safetensors", "relative path"),
        ("C:secret.safetensors", "relative path"),
        ("a\0.safetensors", "relative path"),
        ("c.safetensors", "has no file 'c.safetensors'"),
        ("loop.safetensors", "has no file 'loop.safetensors'"),
        ("a.safetensors", "which does not hold it"),
        (INDEX, "must name .safetensors files beside it"),
        (["b.safetensors"], "must name .safetensors files beside it"),
    ],
)
def test_shards(checkpoint: Path, bait: Path, shard: Any, message: str) -> None:
    save_file({DOWN: np.zeros((8, 12), "f4")}, bait / "secret.safetensors")
    if isinstance(shard, str):
        shard = shard.format(bait=bait)
    write_sharded(checkpoint, lambda _: {DOWN: shard})
    (checkpoint / "loop.safetensors").symlink_to(checkpoint / "loop.safetensors")
    refused(LOAD, checkpoint, message, bait=bait)


def test_shards_beside_those_of_the_index(checkpoint: Path, bait: Path) -> None:
    write_sharded(checkpoint, lambda _: {})
    expected = LOAD(checkpoint).get_weights()
    # What the index does not name is not read, however it looks.
    (checkpoint / "c.safetensors").write_bytes(pickle.dumps(print))
    with watched(checkpoint, bait=bait):
        found = LOAD(checkpoint).get_weights()
    assert all(map(np.array_equal, found, expected))
    # One tensor in two shards has two meanings.
    save_file(
        {**load_file(checkpoint / "a.safetensors"), DOWN: np.zeros((8, 12), "f4")},
        checkpoint / "a.safetensors",
    )
    refused(LOAD, checkpoint, f"'{DOWN}' .* is stored twice", bait=bait)


def removed(name: str) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.pop(name)


def replaced(name: str, change: Callable[[np.ndarray], Any]) -> Callable[[Tensors], Any]:
    return lambda tensors: tensors.update({name: np.array(change(tensors[name]), order="C")})


def spoiled(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(tensor: np.ndarray) -> np.ndarray:
        tensor = tensor.copy()
        tensor.flat[-1] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (removed(DOWN), f"lacks the tensor '{DOWN}'"),
        (removed(EMBEDDINGS), f"lacks the tensor '{EMBEDDINGS}'"),
        (removed("lm_head.weight"), "lacks the tensor 'lm_head.weight'"),
        (replaced(DOWN, lambda t: t.T), r"shape \(8, 12\). Received: shape \(12, 8\)"),
        (replaced(DOWN, lambda t: t[:-1]), r"Received: shape \(7, 12\)"),
        (replaced(DOWN, lambda t: t[None]), r"Received: shape \(1, 8, 12\)"),
        (replaced(DOWN, lambda t: t.reshape(96)), r"Received: shape \(96,\)"),
        (replaced(DOWN, lambda t: t[:0]), r"Received: shape \(0, 12\)"),
        (replaced(NORM, lambda t: t[0]), r"Received: shape \(\)"),
        (replaced(NORM, lambda t: t.astype("f8")), "is stored as F64"),
        (replaced(NORM, lambda t: t.astype("i4")), "is stored as I32"),
        (replaced(NORM, lambda t: t.astype("u1")), "is stored as U8"),
        (replaced(NORM, lambda t: t.astype("c8")), "stored as C64|not a safetensors file"),
        (replaced(NORM, lambda t: t.astype(ml_dtypes.float8_e4m3fn)), "is stored as F8_E4M3"),
        (replaced(NORM, spoiled(np.nan)), f"'{NORM}' .* finite numbers. Received: nan"),
        (replaced(DOWN, spoiled(np.inf)), f"'{DOWN}' .* finite numbers. Received: inf"),
        (replaced(EMBEDDINGS, spoiled(-np.inf)), f"'{EMBEDDINGS}' .* finite.* Received: -inf"),
        (
            lambda tensors: tensors.update({"model.layers.1.more": np.ones(3, "f4")}),
            "holds the tensor 'model.layers.1.more'.*no place",
        ),
    ],
)
def test_tensors(
    checkpoint: Path, bait: Path, change: Callable[[Tensors], Any], message: str
) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors")
    refused(LOAD, checkpoint, message, bait=bait)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(checkpoint: Path, dtype: str, value: float) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    finite = ml_dtypes.finfo(dtype)
    tensors[DOWN].flat[:4] = [finite.max, finite.min, finite.smallest_subnormal, -0.0]
    save_file(tensors, checkpoint / "model.safetensors")
    assert LOAD(checkpoint).dtype == dtype
    tensors[DOWN].flat[5] = value
    save_file(tensors, checkpoint / "model.safetensors")
    refused(LOAD, checkpoint, rf"In {dtype}, the tensor '{DOWN}' .* finite numbers")


def test_numbers_that_are_too_large_for_the_dtype(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors[DOWN].flat[5] = 70000
    save_file(tensors, checkpoint / "model.safetensors")
    LOAD(checkpoint)
    refused(lambda path: LOAD(path, dtype="float16"), checkpoint, "In float16, .* Received: inf")


def test_a_tied_model_without_its_embeddings(tmp_path: Path) -> None:
    next(case for case in CASES if case.name == "llama-tied").make(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in tensors
    # The head alone would do, if the file said so; which it is, is not guessed.
    tensors["lm_head.weight"] = tensors.pop(EMBEDDINGS)
    save_file(tensors, tmp_path / "model.safetensors")
    refused(LOAD, tmp_path, f"lacks the tensor '{EMBEDDINGS}'")


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5, 2, 2, 2)])
@pytest.mark.parametrize("name", ["gpt2", "bloom", "falcon-40b", "gpt-neox", "phi3", "mixtral"])
def test_tensors_of_any_other_rank(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    case = next(case for case in CASES if case.name == name)
    case.make(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    spoiled = {name: np.zeros(shape, "f4") for name in tensors}
    save_file(spoiled, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(resolve_preset(tmp_path))
    family, stored = find_family(checkpoint)
    config = family.task.backbone_cls.describe(**stored.arguments(checkpoint))
    table = stored.weights(checkpoint, config)
    weights = CheckpointWeights(checkpoint, table, ignored=stored.ignored)
    for path in table:
        with pytest.raises(PresetError, match=f"must give '{path}' the shape"):
            weights(path, (11, 13), "float32")


each_attack = pytest.mark.parametrize(
    ("attack", "message"),
    [pytest.param(*each, id=each[0].__name__) for each in ATTACKS.items()],
)


@each_attack
def test_h5_files(preset: Path, bait: Path, attack: Attack, message: str) -> None:
    with h5py.File(preset / "model.weights.h5", "a") as file:
        attack(file, bait)
    for face in (nextword.models.CausalLM, nextword.models.Backbone):
        refused(face.from_preset, preset, message, bait=bait)


@pytest.fixture(scope="module")
def model() -> Any:
    """A model with weights beside its backbone's."""
    return classifier()


@each_attack
def test_h5_files_of_weights_beside_the_backbone_s(
    tmp_path: Path, bait: Path, model: Any, attack: Attack, message: str
) -> None:
    file = tmp_path / "task.weights.h5"
    model.save_task_weights(file)
    with h5py.File(file, "r+") as opened:
        attack(opened, bait)
    refused(lambda path: model.load_task_weights(file), tmp_path, message, bait=bait)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_other_weights_that_are_not_finite(tmp_path: Path, model: Any, value: float) -> None:
    file = tmp_path / "task.weights.h5"
    before = [np.asarray(weight) for weight in model.weights]
    model.save_task_weights(file)
    names = [tensor.name for tensor in read_h5_header(file)]
    with h5py.File(file, "r+") as opened:
        for name in names[:-1]:
            opened[name][...] = 1
        opened[names[-1]][..., 0] = value
    with pytest.raises(PresetError, match=f"{names[-1]!r} .* must hold finite numbers"):
        model.load_task_weights(file)
    for weight, expected in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), expected)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA weights of a model that `fresh` makes, too."""
    backbone = fresh()
    backbone.enable_lora(rank=2)
    path = tmp_path_factory.mktemp("adapted") / "task.lora.h5"
    backbone.save_lora_weights(path)
    fresh().load_lora_weights(path)  # whatever is imported when it is first needed
    return path


def fresh() -> Any:
    return nextword.models.LlamaBackbone(20, 1, 2, 8, 12, 1)


@each_attack
def test_h5_files_of_lora_weights(
    adapted: Path, tmp_path: Path, bait: Path, attack: Attack, message: str
) -> None:
    path = shutil.copy(adapted, tmp_path)
    with h5py.File(path, "a") as file:
        attack(file, bait)
    refused(lambda _: fresh().load_lora_weights(path), tmp_path, message, bait=bait)


QUERY = "nextword/transformer_layer_0/self_attention/query/lora_kernel"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (f"{QUERY}_a", np.zeros((2, 8), "i1"), "must be floats. Received: int8"),
        (f"{QUERY}_a", np.zeros((2, 8), "i8"), "cannot read as a weight"),
        (f"{QUERY}_a", np.zeros((8, 2), "f4"), r"Received: shape \(8, 2\)"),
        (f"{QUERY}_a", np.zeros((), "f4"), r"Received: shape \(\)"),
        (f"{QUERY}_a", np.zeros((0, 8), "f4"), r"Received: shape \(0, 8\)"),
        (f"{QUERY}_b", np.full((8, 2), np.nan, "f4"), "finite numbers. Received: nan"),
        (f"{QUERY}_alpha", np.float32(np.inf), "finite numbers. Received: inf"),
        (f"{QUERY}_alpha", np.float32(0), "positive alpha"),
        (f"{QUERY}_alpha", np.ones(3, "f4"), r"Received: shape \(3,\)"),
        ("nextword/../../etc/passwd", np.ones(3, "f4"), "has no such variable"),
        ("lora/999999999/vars/lora_kernel_a", np.ones(3, "f4"), "layer 999999999"),
    ],
)
def test_lora_weights(
    adapted: Path, tmp_path: Path, bait: Path, name: str, value: np.ndarray, message: str
) -> None:
    path = shutil.copy(adapted, tmp_path)
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if name.startswith("lora"):
            del file["nextword"]
        file[name] = value
    refused(lambda _: fresh().load_lora_weights(path), tmp_path, message, bait=bait)


def test_lora_weights_of_a_rank_beyond_the_model_s(adapted: Path, tmp_path: Path) -> None:
    path = shutil.copy(adapted, tmp_path)
    with h5py.File(path, "a") as file:
        del file["nextword"]
        for layer in [file["lora"][name]["vars"] for name in file["lora"] if name != "vars"]:
            for name, axis in (("lora_kernel_a", -1), ("lora_kernel_b", 0)):
                value = np.repeat(layer.pop(name)[...], 100_000, axis)
                layer[name] = value
    backbone = fresh()
    with watched(tmp_path):
        backbone.load_lora_weights(path)
    # The file is one thing; what the model makes of it is no larger than its own matrices.
    assert all(np.prod(weight.shape) <= 8 * 8 for weight in backbone.trainable_weights)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llama_layer_norm/vars/0", lambda t: t[0], r"Received: shape \(\)"),
        (EMBEDDING, spoiled(np.nan), "finite numbers. Received: nan"),
        (EMBEDDING, lambda t: t.T, r"Received: shape \(8, 292\)"),
        (EMBEDDING, lambda t: t.astype("f8"), "cannot read as a weight"),
        (EMBEDDING, lambda t: t.astype("i8"), "cannot read as a weight"),
        (EMBEDDING, lambda t: None, f"lacks the tensor 'layers/{EMBEDDING}'"),
        (HEAD, lambda t: None, f"lacks the tensor 'layers/{HEAD}'"),
        ("more/vars/0", lambda t: np.ones(3, "f4"), "holds the tensor 'layers/more/vars/0'"),
    ],
)
def test_tensors_of_a_preset(
    preset: Path, name: str, change: Callable[[Any], Any], message: str
) -> None:
    with h5py.File(preset / "model.weights.h5", "a") as file:
        value = change(file["layers"].pop(name)[...] if name in file["layers"] else None)
        if value is not None:
            file["layers"][name] = value
    refused(LOAD, preset, message)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scales_of_integers_that_are_not_finite(tmp_path: Path, value: float) -> None:
    backbone = fresh()
    backbone.quantize("int8")
    backbone.save_to_preset(tmp_path / "preset")
    LOAD(tmp_path / "preset")
    with h5py.File(tmp_path / "preset" / "model.weights.h5", "a") as file:
        layer = file["layers/llama_transformer_decoder/_feedforward_gate_dense/vars"]
        assert layer["0"].dtype == "i1"
        layer["1"][:1] = value
    refused(LOAD, tmp_path / "preset", "vars/1.* must hold finite numbers")


class Malicious:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('a pickle was loaded')",)


NO_WEIGHTS = {
    "a pickle": (pickle.dumps(Malicious()), "it is a Python pickle"),
    "a zipped pickle": (b"PK\x03\x04" + pickle.dumps(Malicious()), "it is a zip archive"),
    "an LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "an HTML page": (b"<!doctype html><html>404</html>", "it is an HTML page"),
    "nothing": (b"", "it is an empty file"),
    "zeros": (bytes(4096), "is not an? (safetensors|HDF5) file"),
}


@pytest.mark.parametrize("what", NO_WEIGHTS)
def test_files_that_are_no_weights(checkpoint: Path, preset: Path, bait: Path, what: str) -> None:
    content, message = NO_WEIGHTS[what]
    for directory, name in ((checkpoint, "model.safetensors"), (preset, "model.weights.h5")):
        (directory / name).write_bytes(content)
        refused(LOAD, directory, message, bait=bait)
        with (directory / name).open("ab") as file:  # sparse
            file.truncate(2**40)
        refused(LOAD, directory, "model.(safetensors|weights.h5)", bait=bait)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt", "model.pkl"])
def test_pickles_instead_of_weights(checkpoint: Path, bait: Path, name: str) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / name).write_bytes(pickle.dumps(Malicious()))
    refused(LOAD, checkpoint, f"'{name}', a pickle.*never loads", bait=bait)
