"""`quantize` of a backbone and a model: what is rounded, what trains, and what is saved."""

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import nextword
from nextword.errors import PresetError
from nextword.models.matrices import matrices

TOKEN_IDS = np.random.default_rng(0).integers(0, 40, (4, 6))
INPUTS = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
SIZES = {"vocabulary_size": 40, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 24}
ATTENTION = "transformer_layer_0/self_attention"


def llama(**kwargs: Any) -> Any:
    keras.utils.set_random_seed(1)
    return nextword.models.LlamaBackbone(
        **SIZES, num_query_heads=4, num_key_value_heads=2, **kwargs
    )


def gpt2(**kwargs: Any) -> Any:
    keras.utils.set_random_seed(1)
    return nextword.models.GPT2Backbone(
        **SIZES, num_heads=2, max_sequence_length=16, dropout=0.0, **kwargs
    )


def mixtral() -> Any:
    keras.utils.set_random_seed(1)
    return nextword.models.MixtralBackbone(
        **SIZES, num_query_heads=4, num_key_value_heads=2, num_experts=3
    )


def logits(backbone: Any) -> np.ndarray:
    return np.asarray(backbone.logits(backbone(INPUTS)), "float32")


def dtypes(backbone: Any) -> dict[str, str]:
    return {weight.path: weight.dtype for weight in backbone.weights}


def kernel_of(backbone: Any) -> Any:
    return matrices(backbone)[f"{ATTENTION}/query/kernel"]


def generated(lm: Any) -> np.ndarray:
    prompts = {"token_ids": TOKEN_IDS[:, :3], "padding_mask": np.ones((4, 3), "int32")}
    return lm.generate(prompts, max_length=10, stop_token_ids=None)["token_ids"]


@pytest.fixture(scope="module")
def quantized() -> Any:
    """A quantized GPT-2, which nothing but its optimizer changes."""
    lm = nextword.models.GPT2CausalLM(gpt2())
    lm.quantize("int8")
    lm.compile(optimizer=keras.optimizers.Adam(0.05), sampler="greedy")
    return lm


def test_matrices_become_integers_and_all_else_stays() -> None:
    floats, backbone = gpt2(), gpt2()
    backbone.quantize("int8")
    before = {weight.path: np.asarray(weight) for weight in floats.weights}
    after = {weight.path: np.asarray(weight) for weight in backbone.weights}
    packed = {path for path, dtype in dtypes(backbone).items() if dtype == "int8"}
    layers = [path.rpartition("/")[0] for path in packed if path.startswith("transformer_layer_1")]
    assert sorted(layer.rpartition("/")[2] for layer in layers) == sorted(
        ["query", "key", "value", "attention_output", "intermediate", "feed_forward_output"]
    )
    assert len(packed) == 13
    assert "token_embedding/embeddings" in packed
    for path, value in before.items():
        if path in packed:
            scale = after[f"{path}_scale"]
            assert np.abs(after[path] / scale[:, None] - value).max() <= 0.51 / scale.min()
        else:
            np.testing.assert_array_equal(after[path], value)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_the_logits_are_nearly_the_same(make: Any) -> None:
    backbone = make()
    exact = logits(backbone).astype("float64")
    backbone.quantize("int8")
    error = logits(backbone) - exact
    assert 0 < np.sqrt((error**2).mean() / (exact**2).mean()) < 0.03


def test_experts_stay_floats() -> None:
    backbone = mixtral()
    backbone.quantize("int8")
    found = dtypes(backbone)
    assert found["transformer_layer_0/feed_forward/router/kernel"] == "int8"
    assert found["transformer_layer_0/feed_forward/expert_gate"] == "float32"


def test_generate_before_and_after() -> None:
    lm = nextword.models.LlamaCausalLM(llama())
    lm.compile(sampler="greedy")
    generated(lm)
    lm.quantize("int8")
    tokens = TOKEN_IDS[:, :3]
    while tokens.shape[1] < 10:  # the whole model again for each token
        inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
        tokens = np.append(tokens, np.asarray(lm(inputs))[:, -1:].argmax(-1), axis=1)
    np.testing.assert_array_equal(generated(lm), tokens)


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ("query|key", {"query", "key"}),
        (["^feedforward_", "token"], {"intermediate", "feed_forward_output", "token_embedding"}),
        (lambda layer: layer.name == "value", {"value"}),
    ],
)
def test_filters(filters: Any, names: set[str]) -> None:
    backbone = gpt2()
    backbone.quantize("int8", filters=filters)
    packed = [path for path, dtype in dtypes(backbone).items() if dtype == "int8"]
    assert {path.split("/")[-2] for path in packed} == names


@pytest.mark.parametrize("mode", ["int8", "int8_weight_only"])
def test_keras_own_configuration(mode: str) -> None:
    rounds_inputs = {"activation_quantizer": None} if mode == "int8_weight_only" else {}
    config = keras.quantizers.Int8QuantizationConfig(**rounds_inputs)
    backbone, by_name = gpt2(), gpt2()
    backbone.quantize(config=config)
    by_name.quantize(mode)
    np.testing.assert_array_equal(logits(backbone), logits(by_name))
    theirs = keras.layers.Dense(16, use_bias=False)
    theirs.build((None, 16))
    theirs.kernel.assign(kernel_of(gpt2()).dense().T)
    theirs.quantize("int8", config=config)
    inputs = np.random.default_rng(0).normal(size=(3, 16)).astype("float32")
    np.testing.assert_allclose(kernel_of(by_name).apply(inputs), theirs(inputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        *(
            ({"mode": mode}, ValueError, f"`mode` must be 'int8'.*Received: mode={mode!r}")
            for mode in ("float8", "gptq", "awq", "int2", "int3", None, 8)
        ),
        (
            {
                "mode": "int8",
                "config": keras.quantizers.Int8QuantizationConfig(
                    keras.quantizers.AbsMaxQuantizer(axis=0)
                ),
            },
            ValueError,
            "`config` must be None, or",
        ),
        (
            {"config": keras.quantizers.Int4QuantizationConfig()},
            ValueError,
            "`config` must be None, or",
        ),
        ({"mode": "int8", "filters": "decoder"}, ValueError, "match none of attention_output, "),
        ({"mode": "int8", "filters": 3}, TypeError, "`filters` must be a regular expression"),
        ({"mode": "int8", "filters": [3]}, TypeError, "`filters` must be a regular expression"),
    ],
)
def test_arguments_that_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    backbone = gpt2()
    for model in (backbone, nextword.models.GPT2CausalLM(backbone)):
        with pytest.raises(error, match=message):
            model.quantize(**arguments)
    assert set(dtypes(backbone).values()) == {"float32"}


def test_twice(quantized: Any) -> None:
    for model in (quantized, quantized.backbone):
        with pytest.raises(ValueError, match=r"quantized already: .*embeddings' is 'int8'"):
            model.quantize("int8")


@pytest.mark.parametrize("dtype", ["int8_from_float32", "int4_from_bfloat16"])
def test_a_dtype_that_is_none_of_floats(dtype: str) -> None:
    with pytest.raises(ValueError, match="call `quantize` on the model that is made"):
        gpt2(dtype=dtype)


def test_lora_on_top(tmp_path: Path) -> None:
    lm = nextword.models.GPT2CausalLM(gpt2())
    lm.quantize("int8")
    quantized = logits(lm.backbone)
    lm.backbone.enable_lora(3)
    np.testing.assert_array_equal(logits(lm.backbone), quantized)
    before = {weight.path: np.asarray(weight) for weight in lm.backbone.weights}
    lm.compile(optimizer=keras.optimizers.Adam(0.05), sampler="greedy")
    history = lm.fit(INPUTS, TOKEN_IDS, epochs=6, verbose=0).history["loss"]
    assert history[-1] < history[0]
    after = {weight.path: np.asarray(weight) for weight in lm.backbone.weights}
    changed = {path for path in before if (before[path] != after[path]).any()}
    assert changed == {variable.path for variable in lm.backbone.trainable_variables}
    assert {dtypes(lm.backbone)[path] for path in changed} == {"float32"}

    lm.backbone.save_lora_weights(tmp_path / "task.lora.h5")
    fresh = gpt2()
    fresh.quantize("int8")
    fresh.load_lora_weights(tmp_path / "task.lora.h5")
    np.testing.assert_array_equal(logits(fresh), logits(lm.backbone))

    # A preset has the update in weights that are rounded again.
    lm.save_to_preset(tmp_path / "preset")
    merged = nextword.models.Backbone.from_preset(tmp_path / "preset")
    weights = {weight.path: np.asarray(weight, "float64") for weight in merged.weights}
    path = f"{ATTENTION}/query/kernel"
    update = after[f"{ATTENTION}/query/lora_kernel_b"] @ after[f"{ATTENTION}/query/lora_kernel_a"]
    exact = after[path] / after[f"{path}_scale"][:, None] + update
    step = 1 / weights[f"{path}_scale"][:, None]
    assert np.abs(weights[path] * step - exact).max() <= 0.51 * step.max()
    assert dtypes(merged)[path] == "int8"


def test_a_quantized_model_trains_its_norms_and_biases(quantized: Any) -> None:
    trained = {variable.path.rpartition("/")[2] for variable in quantized.trainable_variables}
    assert trained == {"bias", "scale", "embeddings"}  # these of the positions


def test_a_keras_file(quantized: Any, tmp_path: Path) -> None:
    quantized.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert dtypes(again.backbone) == dtypes(quantized.backbone)
    np.testing.assert_array_equal(logits(again.backbone), logits(quantized.backbone))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed_bfloat16"])
def test_a_preset(tmp_path: Path, dtype: str) -> None:
    backbone = llama(dtype=dtype, tie_word_embeddings=dtype == "float32")
    backbone.quantize("int8")
    backbone.save_to_preset(tmp_path / "preset")
    again = nextword.models.Backbone.from_preset(tmp_path / "preset")
    assert dtypes(again) == dtypes(backbone)
    assert again.compute_dtype == backbone.compute_dtype
    np.testing.assert_array_equal(logits(again), logits(backbone))


def test_a_preset_of_some_layers(tmp_path: Path) -> None:
    backbone = gpt2()
    backbone.quantize("int8", filters="query|intermediate")
    backbone.save_to_preset(tmp_path / "preset")
    again = nextword.models.Backbone.from_preset(tmp_path / "preset")
    assert dtypes(again) == dtypes(backbone)
    np.testing.assert_array_equal(logits(again), logits(backbone))


def test_layers_that_keras_hub_keeps_as_one(tmp_path: Path) -> None:
    backbone = nextword.models.GPTNeoXBackbone(**SIZES, num_heads=2)
    backbone.quantize("int8", filters="^key$")
    with pytest.raises(PresetError, match="either all of it is quantized, or none"):
        backbone.save_to_preset(tmp_path / "preset")
    assert not (tmp_path / "preset").exists()


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("0", "float32", "query_dense/vars/2'.* has no place"),
        ("1", "int8", "query/bias' in float32. Received: int8"),
        ("2", "int8", "query/kernel_scale' in float32. Received: int8"),
    ],
)
def test_numbers_of_another_kind(
    quantized: Any, tmp_path: Path, name: str, dtype: str, message: str
) -> None:
    quantized.backbone.save_to_preset(tmp_path / "preset")
    path = "layers/transformer_decoder/_self_attention_layer/query_dense/vars"
    with h5py.File(tmp_path / "preset" / "model.weights.h5", "a") as file:
        value = file[f"{path}/{name}"][...]
        del file[f"{path}/{name}"]
        file[f"{path}/{name}"] = value.astype(dtype)
    with pytest.raises(PresetError, match=message):
        nextword.models.Backbone.from_preset(tmp_path / "preset")
