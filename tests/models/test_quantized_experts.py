"""Experts in blocks of GGUF: what is packed, what it computes, and files in both directions."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nextword
from nextword.models.matrices import matrices
from nextword.ops.native import uses_kernels
from nextword.ops.native.step_program import StepProgram

SIZES = {
    "vocabulary_size": 64,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 64,
}
PROMPT = [3, 14, 15, 9, 26, 5, 35, 8]
ROUTER = "transformer_layer_0/feed_forward/router/kernel"
GATE = "transformer_layer_0/feed_forward/expert_gate"
MODES = ["q8_0", "q4_1", "q4_0"]


def mixtral(intermediate_dim: int = 96, **kwargs: Any) -> Any:
    """Return a mixture that is one in KerasHub, too."""
    keras.utils.set_random_seed(1)
    backbone = nextword.models.MixtralBackbone(
        **SIZES, intermediate_dim=intermediate_dim, num_experts=6, **kwargs
    )
    for weight in backbone.weights:  # large enough to tell tokens apart
        if weight.path.endswith(("kernel", "embeddings")) or "expert_" in weight.path:
            weight.assign(weight * 6)
    return nextword.models.MixtralCausalLM(backbone)


def held(lm: Any) -> dict[str, str]:
    return {path: matrix.form.mode for path, matrix in matrices(lm.backbone).items()}


def logits(lm: Any, tokens: list[int] = PROMPT) -> np.ndarray:
    token_ids = np.array([tokens])
    inputs = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
    return np.asarray(keras.ops.convert_to_numpy(lm(inputs)), "float32")


def generated(lm: Any, new_tokens: int = 24) -> list[int]:
    prompts = {"token_ids": np.array([PROMPT]), "padding_mask": np.ones((1, len(PROMPT)), "int32")}
    lm.compile(sampler="greedy")
    tokens = lm.generate(prompts, max_new_tokens=new_tokens, stop_token_ids=None)["token_ids"]
    return np.asarray(tokens)[0].tolist()


@pytest.mark.parametrize("mode", MODES)
def test_experts_are_packed_and_routers_are_not(mode: str) -> None:
    lm = mixtral()
    floats = {path: matrix.dense() for path, matrix in matrices(lm.backbone).items()}
    exact = logits(lm)
    before = sum(weight.value.nbytes for weight in lm.weights)
    lm.quantize(mode)
    after = sum(weight.value.nbytes for weight in lm.weights)
    found = held(lm)
    assert {path for path, form in found.items() if form != mode} == {
        path for path in found if path.endswith("/router/kernel")
    }
    bits = {"q8_0": 8.5, "q4_1": 5, "q4_0": 4.5}[mode]
    assert after < before * (bits / 32 + 0.01)
    step = {"q8_0": 1 / 254, "q4_1": 1 / 28, "q4_0": 1 / 14}[mode]
    for path, matrix in matrices(lm.backbone).items():
        error = np.abs(matrix.dense() - floats[path]).max()
        assert matrix.dense().shape == floats[path].shape
        assert error <= 1.1 * step * np.ptp(floats[path])
        assert (error == 0) == path.endswith("/router/kernel")
    if mode == "q8_0":
        assert 0 < np.abs(logits(lm) - exact).mean() / exact.std() < 0.03


@pytest.mark.parametrize("mode", MODES)
def test_what_is_generated_follows_from_the_logits(mode: str) -> None:
    lm = mixtral()
    lm.quantize(mode)
    tokens = generated(lm)
    exact = logits(lm, tokens)  # of the whole text at once, by the portable operations
    chosen = exact[0, len(PROMPT) - 1 : -1].argmax(-1)
    assert chosen.tolist() == tokens[len(PROMPT) :]
    assert len(set(tokens)) > 8


@pytest.mark.skipif(not uses_kernels(), reason="built without native kernels")
@pytest.mark.parametrize("mode", MODES)
def test_steps_are_native(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = mixtral()
    lm.quantize(mode)
    runs = []
    run = StepProgram.run

    def counted(self: StepProgram, *args: Any) -> Any:
        runs.append(self)
        return run(self, *args)

    monkeypatch.setattr(StepProgram, "run", counted)
    generated(lm)
    assert runs


@pytest.mark.parametrize("mode", [None, *MODES])
@pytest.mark.parametrize("length", [5, 70, 600])  # 600: more than one chunk
def test_prompts_of_any_length(length: int, mode: str | None) -> None:
    lm = mixtral()
    if mode is not None:
        lm.quantize(mode)
    random = np.random.default_rng(length)
    prompts = random.integers(0, 64, (2, length))
    lm.compile(sampler="greedy")
    mask = np.ones_like(prompts)
    new_tokens = np.asarray(
        lm.generate(
            {"token_ids": prompts, "padding_mask": mask}, max_new_tokens=1, stop_token_ids=None
        )["token_ids"]
    )[:, length]
    exact = keras.ops.convert_to_numpy(lm({"token_ids": prompts, "padding_mask": mask}))[:, -1]
    chosen = np.asarray(exact)[np.arange(2), new_tokens]
    assert (chosen >= np.asarray(exact).max(-1) - 1e-3 * np.abs(exact).max()).all()


@pytest.mark.parametrize("mode", MODES)
def test_presets(mode: str, tmp_path: Path) -> None:
    lm = mixtral()
    lm.quantize(mode)
    with pytest.warns(UserWarning, match=f"KerasHub has no weights in {mode}"):
        lm.backbone.save_to_preset(tmp_path / "packed")
    again = nextword.models.MixtralCausalLM(
        nextword.models.Backbone.from_preset(str(tmp_path / "packed"))
    )
    assert held(again) == held(lm)
    for ours, theirs in zip(again.backbone.weights, lm.backbone.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    lm.backbone.save_to_preset(tmp_path / "floats", dequantize=True)
    floats = nextword.models.Backbone.from_preset(str(tmp_path / "floats"))
    assert {matrix.form.mode for matrix in matrices(floats).values()} == {"float"}
    for path, matrix in matrices(floats).items():
        np.testing.assert_array_equal(matrix.dense(), matrices(lm.backbone)[path].dense())

    rounded = nextword.models.Backbone.from_preset(str(tmp_path / "floats"), quantization=mode)
    assert {path: each.form.mode for path, each in matrices(rounded).items()} == held(lm)
    if mode != "q4_1":  # whose minimums are rounded once more
        for path, matrix in matrices(rounded).items():
            np.testing.assert_allclose(
                matrix.dense(), matrices(lm.backbone)[path].dense(), rtol=1e-3, atol=1e-6
            )


def test_configuration_round_trip() -> None:
    lm = mixtral()
    lm.quantize("q4_0")
    again = type(lm.backbone).from_config(lm.backbone.get_config())
    assert {path: each.form.mode for path, each in matrices(again).items()} == held(lm)


def test_eight_bits_for_each_output_leave_experts_to_floats() -> None:
    lm = mixtral()
    lm.quantize("int8_weight_only")
    assert held(lm)[GATE] == "float"
    assert held(lm)[ROUTER] == "int8_weight_only"


def test_experts_of_odd_widths_stay_floats() -> None:
    lm = mixtral(intermediate_dim=40)  # no whole groups of 32 in the outputs' matrices
    lm.quantize("q8_0")
    assert held(lm)[GATE.replace("gate", "output")] == "float"
    assert held(lm)[GATE] == "float"  # nor whole tiles of 16 here


@pytest.mark.parametrize("filters", ["router", "^feed_forward$"])
def test_filters(filters: str) -> None:
    lm = mixtral()
    if filters == "router":
        with pytest.raises(ValueError, match="`filters` must leave a matrix that 'q4_0' can hold"):
            lm.quantize("q4_0", filters=filters)
        return
    lm.quantize("q4_0", filters=filters)
    packed = {path.rpartition("/")[2] for path, form in held(lm).items() if form == "q4_0"}
    assert packed == {"expert_gate", "expert_intermediate", "expert_output"}


def test_training_turns_experts_into_floats() -> None:
    lm = mixtral()
    lm.quantize("q8_0")
    lm.compile(optimizer=keras.optimizers.SGD(0.01), sampler="greedy")
    token_ids = np.array([PROMPT])
    inputs = {"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}
    lm.preprocessor = None
    with pytest.warns(UserWarning, match="Weights in q8_0 cannot train"):
        lm.fit(inputs, np.roll(token_ids, -1, axis=1), verbose=0)
    assert set(held(lm).values()) == {"float"}


def test_lora_on_top() -> None:
    lm = mixtral()
    lm.quantize("q4_1")
    lm.backbone.enable_lora(2)
    assert held(lm)[GATE] == "q4_1"
    trained = {weight.path.rpartition("/")[2] for weight in lm.backbone.trainable_weights}
    assert trained == {"lora_kernel_a", "lora_kernel_b"}


@pytest.mark.parametrize("mode", MODES)
def test_gguf(mode: str, tmp_path: Path) -> None:
    lm = mixtral(sliding_window=None)
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    lm.export_to_gguf(first, dtype=mode)
    packed = nextword.models.CausalLM.from_preset(first, preprocessor=None)
    if uses_kernels():
        assert held(packed)[GATE] == mode
        assert held(packed)[ROUTER] == "float"
        packed.export_to_gguf(second)
        assert second.read_bytes() == first.read_bytes()
    floats = nextword.models.CausalLM.from_preset(first, dtype="float32", preprocessor=None)
    assert set(held(floats).values()) == {"float"}
    for path, matrix in matrices(floats.backbone).items():
        np.testing.assert_array_equal(matrix.dense(), matrices(packed.backbone)[path].dense())
    exact = logits(floats)
    np.testing.assert_allclose(logits(packed), exact, atol=1e-3 * np.abs(exact).max())
