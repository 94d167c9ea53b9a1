"""Presets whose weights are packed: kept as they are stored, rounded while read, saved, trained."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import h5py
import keras
import numpy as np
import pytest

import nextword
from gguf_files import Blocks, write_gguf
from nextword.errors import PresetError
from nextword.models.matrices import matrices
from nextword.ops.native import kernels_used, uses_kernels

VOCABULARY, WIDTH, INNER, LAYERS = 70, 64, 96, 2
TOKEN_IDS = np.random.default_rng(0).integers(0, VOCABULARY, (2, 7))
INPUTS = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
SHAPES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (WIDTH // 2, WIDTH),
    "attn_v": (WIDTH // 2, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (INNER, WIDTH),
    "ffn_up": (INNER, WIDTH),
    "ffn_down": (WIDTH, INNER),
}
BITS = {"q8_0": 8.5, "q4_1": 5.0, "q4_0": 4.5}
METADATA = {
    "general.architecture": "llama",
    "llama.vocab_size": VOCABULARY,
    "llama.block_count": LAYERS,
    "llama.context_length": 32,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": INNER,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
}
only_with_kernels = pytest.mark.skipif(not uses_kernels(), reason="built without native kernels")


def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    found = {
        "token_embd.weight": random.normal(size=(VOCABULARY, WIDTH)),
        "output_norm.weight": np.ones(WIDTH),
    }
    for layer in range(LAYERS):
        for name, shape in SHAPES.items():
            found[f"blk.{layer}.{name}.weight"] = random.normal(size=shape) * 0.2
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{layer}.{name}.weight"] = np.ones(WIDTH)
    return {name: value.astype("float32") for name, value in found.items()}


def written(path: Path, quantization: str | None, **changes: Any) -> Path:
    return write_gguf(path, METADATA, tensors() | changes, quantization)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds the model in floats and in three kinds of blocks."""
    directory = tmp_path_factory.mktemp("gguf")
    for name in ("F32", "Q8_0", "Q4_1", "Q4_0", "Q5_0"):
        written(directory / f"{name}.gguf", None if name == "F32" else name)
    return directory


def load(path: Path, **kwargs: Any) -> Any:
    return nextword.models.CausalLM.from_preset(path, preprocessor=None, **kwargs)


def logits(lm: Any) -> np.ndarray:
    return np.asarray(lm(INPUTS), "float32")


def modes(lm: Any) -> set[str]:
    return {matrix.form.mode for matrix in matrices(lm.backbone).values()}


def bytes_of(lm: Any) -> int:
    return sum(weight.value.nbytes for weight in lm.backbone.weights)


def packed_bytes(mode: str) -> int:
    """Return what the bits say that the model takes, its vocabulary filled up to tiles of 16."""
    elements = 80 * WIDTH + LAYERS * sum(rows * columns for rows, columns in SHAPES.values())
    return int(elements * BITS[mode]) // 8 + 4 * WIDTH * (2 * LAYERS + 1)


def assert_same(lm: Any, other: Any) -> None:
    values = {weight.path: np.asarray(weight) for weight in other.backbone.weights}
    assert values.keys() == {weight.path for weight in lm.backbone.weights}
    for weight in lm.backbone.weights:
        np.testing.assert_array_equal(np.asarray(weight), values[weight.path])


@only_with_kernels
@pytest.mark.parametrize("name", ["Q8_0", "Q4_1", "Q4_0"])
def test_blocks_stay_as_they_are_stored(directory: Path, name: str) -> None:
    lm = load(directory / f"{name}.gguf")
    assert modes(lm) == {name.lower()}
    reader = gguf.GGUFReader(directory / f"{name}.gguf")
    stored = {tensor.name: np.asarray(tensor.data) for tensor in reader.tensors}
    blocks = matrices(lm.backbone)["token_embedding/embeddings"].merged_blocks()
    np.testing.assert_array_equal(blocks, stored["token_embd.weight"])
    gate = matrices(lm.backbone)["transformer_layer_1/feed_forward/gate/kernel"]
    np.testing.assert_array_equal(gate.merged_blocks(), stored["blk.1.ffn_gate.weight"])
    assert bytes_of(lm) == packed_bytes(name.lower())
    # 15 bits of activations are all that is lost.
    expected = logits(load(directory / f"{name}.gguf", dtype="float32"))
    np.testing.assert_allclose(logits(lm), expected, rtol=0, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("arguments", [{"dtype": "float32"}, {"dtype": "bfloat16"}])
def test_with_a_dtype_they_become_floats(directory: Path, arguments: dict[str, str]) -> None:
    lm = load(directory / "Q4_1.gguf", **arguments)
    assert {weight.dtype for weight in lm.backbone.weights} == {arguments["dtype"]}


def test_without_kernels_they_become_floats(directory: Path) -> None:
    with kernels_used(None):
        lm = load(directory / "Q4_1.gguf")
    assert {weight.dtype for weight in lm.backbone.weights} == {"float32"}
    assert_same(lm, load(directory / "Q4_1.gguf", dtype="float32"))


def test_blocks_of_other_kinds_become_floats(directory: Path) -> None:
    assert modes(load(directory / "Q5_0.gguf")) == {"float"}
    assert modes(load(directory / "Q5_0.gguf", quantization="q4_0")) == {"q4_0"}


@pytest.mark.parametrize("mode", ["q8_0", "q4_1", "q4_0", "int8", "int4"])
def test_rounded_while_they_are_read(directory: Path, mode: str) -> None:
    rounded = load(directory / "F32.gguf", quantization=mode)
    afterwards = load(directory / "F32.gguf")
    afterwards.quantize({"int8": "int8_weight_only"}.get(mode, mode))
    assert modes(rounded) == modes(afterwards) != {"float"}
    assert_same(rounded, afterwards)
    np.testing.assert_array_equal(logits(rounded), logits(afterwards))
    if mode in BITS:
        assert bytes_of(rounded) == packed_bytes(mode)


def test_no_more_than_one_matrix_is_there_in_floats(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, tuple[int, ...]]] = []
    add_weight = keras.layers.Layer.add_weight

    def noted(layer: Any, **kwargs: Any) -> Any:
        variable = add_weight(layer, **kwargs)
        made.append((variable.dtype, tuple(variable.shape)))
        return variable

    monkeypatch.setattr(keras.layers.Layer, "add_weight", noted)
    load(directory / "Q5_0.gguf", quantization="q4_1")
    assert len(made) == 3 * (1 + 7 * LAYERS) + 2 * LAYERS + 1
    assert {shape for dtype, shape in made if dtype == "float32"} == {(WIDTH,)}


def test_what_is_stored_so_is_kept(directory: Path) -> None:
    kept = load(directory / "Q4_1.gguf", quantization="int4")
    stored = gguf.GGUFReader(directory / "Q4_1.gguf").tensors
    for tensor in stored:
        if tensor.name == "blk.0.ffn_down.weight":
            path = "transformer_layer_0/feed_forward/feed_forward_output/kernel"
            found = matrices(kept.backbone)[path].merged_blocks()
            np.testing.assert_array_equal(found, tensor.data)


def test_quantize_converts_what_is_packed(directory: Path) -> None:
    lm = load(directory / "Q8_0.gguf", quantization="q8_0")
    lm.quantize("q4_1")
    assert_same(lm, load(directory / "Q8_0.gguf", quantization="q4_1"))
    with pytest.raises(ValueError, match="quantized already: .* is 'q4_1'"):
        lm.quantize("q4_1")


@pytest.mark.parametrize("mode", ["q8_0", "q4_1", "q4_0"])
def test_a_preset_keeps_blocks_bit_for_bit(directory: Path, tmp_path: Path, mode: str) -> None:
    lm = load(directory / "F32.gguf", quantization=mode, dtype="bfloat16")
    with pytest.warns(UserWarning, match=f"KerasHub has no weights in {mode}"):
        lm.save_to_preset(tmp_path / "preset")
    again = load(tmp_path / "preset", quantization=mode)
    assert_same(again, lm)
    assert again.dtype_policy.name == "bfloat16"
    np.testing.assert_array_equal(logits(again), logits(lm))
    in_floats = load(tmp_path / "preset", dtype="float32")
    assert modes(in_floats) == {"float"}
    metadata = json.loads((tmp_path / "preset" / "metadata.json").read_text())
    assert metadata["parameter_count"] == lm.count_params() == in_floats.count_params()
    with h5py.File(tmp_path / "preset" / "model.weights.h5") as file:
        stored = file[f"quantized/{mode}/token_embedding/embeddings"]
        assert stored.nbytes == VOCABULARY * WIDTH * BITS[mode] // 8


@only_with_kernels
def test_a_preset_is_loaded_packed(directory: Path, tmp_path: Path) -> None:
    lm = load(directory / "Q4_1.gguf")
    with pytest.warns(UserWarning, match="KerasHub has no weights in q4_1"):
        lm.save_to_preset(tmp_path / "preset", max_shard_size=2e-5)
    assert len(list((tmp_path / "preset").glob("model_*.h5"))) > 1
    assert_same(load(tmp_path / "preset"), lm)


def test_a_preset_in_floats(directory: Path, tmp_path: Path) -> None:
    lm = load(directory / "Q4_1.gguf", quantization="q4_1")
    lm.save_to_preset(tmp_path / "preset", dequantize=True)
    assert_same(load(tmp_path / "preset"), load(directory / "Q4_1.gguf", dtype="float32"))


def test_a_preset_of_weights_in_8_bits(directory: Path, tmp_path: Path) -> None:
    lm = load(directory / "F32.gguf", quantization="int8")
    with pytest.warns(UserWarning, match="KerasHub rounds the inputs"):
        lm.save_to_preset(tmp_path / "preset")
    again = load(tmp_path / "preset")
    assert modes(again) == {"int8_weight_only"}
    assert_same(again, lm)


def test_some_blocks_and_some_integers(directory: Path, tmp_path: Path) -> None:
    lm = load(directory / "F32.gguf")
    lm.quantize("q4_0", filters="gate|query|token")
    lm.quantize("int8", filters="value|attention_output")
    with pytest.warns(UserWarning, match="KerasHub has no weights in q4_0"):
        lm.save_to_preset(tmp_path / "preset")
    again = load(tmp_path / "preset", quantization="q4_0")
    lm.quantize("q4_0")
    assert_same(again, lm)


def test_both_kinds_of_integers(directory: Path, tmp_path: Path) -> None:
    lm = load(directory / "F32.gguf")
    lm.quantize("int8", filters="gate")
    lm.quantize("int8_weight_only", filters="query")
    with pytest.raises(PresetError, match="either int8 or int8_weight_only"):
        lm.save_to_preset(tmp_path / "preset")
    assert not (tmp_path / "preset").exists()


@pytest.fixture
def saved(directory: Path, tmp_path: Path) -> Iterator[tuple[h5py.File, Path]]:
    """The open weights of a packed preset, and its directory."""
    lm = load(directory / "Q4_0.gguf", quantization="q4_0")
    with pytest.warns(UserWarning, match="KerasHub has no weights in q4_0"):
        lm.save_to_preset(tmp_path / "preset")
    with h5py.File(tmp_path / "preset" / "model.weights.h5", "a") as file:
        yield file, tmp_path / "preset"


NAME = "quantized/q4_0/transformer_layer_0/self_attention/query/kernel"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (NAME, np.zeros((64, 36), "int8"), "a matrix of whole blocks"),
        (NAME, np.zeros((64, 2, 18), "uint8"), "a matrix of whole blocks"),
        (
            NAME,
            np.zeros((64, 35), "uint8"),
            r"Received: U8 of the shape \(64, 35\)",
        ),
        (NAME, np.zeros((64, 54), "uint8"), r"the shape \(64, 64\). Received: shape \(64, 96\)"),
        (NAME, np.zeros((80, 36), "uint8"), r"the shape \(64, 64\). Received: shape \(80, 64\)"),
        (NAME, np.full((64, 36), 255, "uint8"), "must hold finite numbers"),
        (
            NAME.replace("q4_0", "q2_0"),
            np.zeros((64, 36), "uint8"),
            "a matrix of whole blocks",
        ),
        (NAME.replace("query", "other"), np.zeros((64, 36), "uint8"), "has no place"),
    ],
)
def test_blocks_that_are_none(
    saved: tuple[h5py.File, Path], name: str, value: np.ndarray, message: str
) -> None:
    file, preset = saved
    if name in file:
        del file[name]
    file[name] = value
    file.close()
    with pytest.raises(PresetError, match=message):
        load(preset, quantization="q4_0")


@pytest.mark.parametrize("mode", ["int4", 3])
def test_a_mode_that_is_none(saved: tuple[h5py.File, Path], mode: Any) -> None:
    file, preset = saved
    file.close()
    config = json.loads((preset / "config.json").read_text())
    (preset / "config.json").write_text(json.dumps(config | {"nextword_int8_mode": mode}))
    with pytest.raises(PresetError, match="quantised as"):
        load(preset)


def test_blocks_whose_scales_are_not_finite(tmp_path: Path) -> None:
    blocks = np.full((WIDTH, 2 * 18), 0xFF, np.uint8)
    path = written(tmp_path / "m.gguf", "Q4_0", **{"blk.0.attn_q.weight": Blocks(blocks, "Q4_0")})
    with pytest.raises(PresetError, match=r"'blk\.0\.attn_q\.weight'.*must hold finite numbers"):
        load(path, quantization="q4_0")


@pytest.mark.parametrize(
    ("quantization", "message"),
    [
        ("int5", "`quantization` must be 'int8' or 'int4' or .*Received: quantization='int5'"),
        (4, "`quantization` must be"),
        ("float", "`quantization` must be"),
    ],
)
def test_formats_that_there_are_not(directory: Path, quantization: Any, message: str) -> None:
    for cls in (nextword.models.CausalLM, nextword.models.Backbone):
        with pytest.raises(ValueError, match=message):
            cls.from_preset(directory / "F32.gguf", quantization=quantization)


def test_random_weights_are_rounded_too(directory: Path) -> None:
    lm = load(directory / "F32.gguf", quantization="int4", load_weights=False)
    assert modes(lm) == {"q4_1"}


def test_fit_makes_floats_of_them(directory: Path) -> None:
    lm = load(directory / "Q4_1.gguf", quantization="q4_1")
    lm.compile(optimizer=keras.optimizers.SGD(0.1), sampler="greedy")
    before = logits(lm)
    with pytest.warns(UserWarning, match=r"Weights in q4_1 cannot train: they become float32"):
        lm.fit(INPUTS, TOKEN_IDS, verbose=0)
    assert modes(lm) == {"float"}
    expected = load(directory / "Q4_1.gguf", dtype="float32")
    expected.compile(optimizer=keras.optimizers.SGD(0.1))
    expected.fit(INPUTS, TOKEN_IDS, verbose=0)
    np.testing.assert_allclose(logits(lm), logits(expected), rtol=0, atol=1e-4)
    assert np.abs(logits(lm) - before).max() > 1e-2
    lm.fit(INPUTS, TOKEN_IDS, verbose=0)  # without a warning
    prompts = {name: value[:, :3] for name, value in INPUTS.items()}
    generated = lm.generate(prompts, max_length=5, stop_token_ids=None)["token_ids"]
    assert generated[0, 3] == logits(lm)[0, 2].argmax()


def test_fit_with_lora_keeps_them(directory: Path) -> None:
    lm = load(directory / "Q4_1.gguf", quantization="q4_1")
    before = logits(lm)
    lm.backbone.enable_lora(2)
    lm.compile(optimizer=keras.optimizers.Adam(0.05))
    lm.train_on_batch(INPUTS, TOKEN_IDS)
    assert modes(lm) == {"q4_1"}
    assert np.abs(logits(lm) - before).max() > 1e-3


def test_a_frozen_backbone_stays_packed(directory: Path) -> None:
    backbone = load(directory / "Q4_1.gguf", quantization="q4_1").backbone
    backbone.trainable = False
    lm = nextword.models.LlamaCausalLM(backbone)
    assert lm.evaluate(INPUTS, TOKEN_IDS, verbose=0)
    lm.fit(INPUTS, TOKEN_IDS, verbose=0)
    assert modes(lm) == {"q4_1"}
