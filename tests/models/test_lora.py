"""LoRA on a backbone: what trains, what is computed, and what becomes of it on disk."""

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import nextword
from nextword.errors import PresetError

TOKEN_IDS = np.random.default_rng(0).integers(0, 40, (4, 6))
INPUTS = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
SIZES = {"vocabulary_size": 40, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 24}


def gpt2(**kwargs: Any) -> Any:
    keras.utils.set_random_seed(1)
    return nextword.models.GPT2Backbone(
        **SIZES, num_heads=2, max_sequence_length=16, dropout=0.0, **kwargs
    )


def llama(**kwargs: Any) -> Any:
    keras.utils.set_random_seed(1)
    return nextword.models.LlamaBackbone(
        **SIZES, num_query_heads=4, num_key_value_heads=2, **kwargs
    )


def logits(backbone: Any) -> np.ndarray:
    return np.asarray(backbone.logits(backbone(INPUTS)), "float32")


def values(backbone: Any) -> dict[str, np.ndarray]:
    return {w.path: np.array(keras.ops.convert_to_numpy(w), "float32") for w in backbone.weights}


def model(backbone: Any) -> Any:
    lm_cls = (
        nextword.models.GPT2CausalLM
        if isinstance(backbone, nextword.models.GPT2Backbone)
        else nextword.models.LlamaCausalLM
    )
    lm = lm_cls(backbone)
    lm.compile(optimizer=keras.optimizers.Adam(0.05), sampler="greedy")
    return lm


def train(backbone: Any, epochs: int = 3) -> Any:
    lm = model(backbone)
    lm.fit(INPUTS, TOKEN_IDS, epochs=epochs, verbose=0)
    return lm


def generated(lm: Any) -> np.ndarray:
    prompts = {"token_ids": TOKEN_IDS[:, :3], "padding_mask": np.ones((4, 3), "int32")}
    return lm.generate(prompts, max_length=10, stop_token_ids=None)["token_ids"]


@pytest.fixture(scope="module")
def trained() -> Any:
    """A GPT-2 whose query and value were trained: factors and biases."""
    backbone = gpt2()
    backbone.enable_lora(3, alpha=0.7)
    return train(backbone)


def test_the_update_is_the_scaled_product_of_its_factors() -> None:
    layer = nextword.layers.Linear(5, use_bias=True)
    layer.build((None, 7))
    layer.matrices[0].enable_lora(2, 3.0)
    random = np.random.default_rng(2)
    for weight in layer.weights:
        weight.assign(random.normal(size=weight.shape))
    weights = {w.path.rpartition("/")[2]: np.asarray(w, "float64") for w in layer.weights}
    update = 3 / 2 * weights["lora_kernel_b"] @ weights["lora_kernel_a"]
    x = random.normal(size=(3, 7))
    expected = x @ (weights["kernel"] + update).T + weights["bias"]
    np.testing.assert_allclose(layer(x.astype("float32")), expected, rtol=1e-5)
    (merged,) = layer.kernel.merged().values()
    np.testing.assert_allclose(merged, weights["kernel"] + update, rtol=1e-5)


def test_where_values_are_no_layer_the_queries_alone_are_adapted() -> None:
    backbone = nextword.models.DeepSeekBackbone(
        vocabulary_size=8,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        key_value_rank=4,
        query_rank=None,
        unrotated_head_dim=4,
        rotated_head_dim=2,
        value_head_dim=4,
        num_experts=2,
        top_k=1,
        moe_intermediate_dim=4,
    )
    assert backbone.default_lora_layer_names() == ["query"]
    backbone.enable_lora(2)
    assert {path.split("/")[-2] for path in (v.path for v in backbone.trainable_variables)} == {
        "query"
    }


def test_enabling_changes_no_logits_and_freezes_all_but_the_targets() -> None:
    backbone = gpt2()
    before = logits(backbone)
    assert backbone.default_lora_layer_names() == ["query", "value"]
    backbone.enable_lora(4)
    np.testing.assert_array_equal(logits(backbone), before)
    attention = "transformer_layer_{}/self_attention/{}/{}"
    assert {variable.path for variable in backbone.trainable_variables} == {
        attention.format(layer, name, variable)
        for layer in range(2)
        for name in ("query", "value")
        for variable in ("bias", "lora_kernel_a", "lora_kernel_b")
    }
    factor = values(backbone)["transformer_layer_0/self_attention/query/lora_kernel_a"]
    limit = np.sqrt(6 / 16)
    assert factor.shape == (4, 16)
    assert 0.9 * limit < np.abs(factor).max() <= limit


def test_fit_changes_what_trains_and_nothing_else() -> None:
    backbone = gpt2()
    backbone.enable_lora(4)
    before = values(backbone)
    trainable = {variable.path for variable in backbone.trainable_variables}
    train(backbone)
    after = values(backbone)
    assert trainable == {path for path in before if (before[path] != after[path]).any()}


def test_generate_follows_the_training() -> None:
    backbone = llama()
    lm = model(backbone)
    before = generated(lm)
    backbone.enable_lora(4, ["query", "value", "feed_forward_output"])
    np.testing.assert_array_equal(generated(lm), before)
    lm.fit(INPUTS, TOKEN_IDS, epochs=12, verbose=0)
    after = generated(lm)
    assert (after != before).any()
    tokens = TOKEN_IDS[:, :3]
    while tokens.shape[1] < 10:  # the whole model again for each token
        inputs = {"token_ids": tokens, "padding_mask": np.ones_like(tokens)}
        tokens = np.append(tokens, np.asarray(lm(inputs))[:, -1:].argmax(-1), axis=1)
    np.testing.assert_array_equal(after, tokens)


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16"])
def test_adapters_are_float32_on_any_base(dtype: str) -> None:
    backbone = llama(dtype=dtype)
    backbone.enable_lora(2)
    lm = train(backbone, epochs=1)
    assert {variable.dtype for variable in backbone.trainable_variables} == {"float32"}
    assert lm(INPUTS).dtype == "bfloat16"


@pytest.mark.parametrize("tie_word_embeddings", [True, False])
def test_the_token_embedding(tie_word_embeddings: bool, tmp_path: Path) -> None:
    backbone = llama(tie_word_embeddings=tie_word_embeddings)
    backbone.enable_lora(3, ["token_embedding"])
    train(backbone)
    expected = logits(backbone)
    trained = {variable.path.rpartition("/")[2] for variable in backbone.trainable_variables}
    head = set() if tie_word_embeddings else {"reverse_embeddings"}
    assert trained == {"lora_embeddings_a", "lora_embeddings_b"} | head

    backbone.save_lora_weights(tmp_path / "x.lora.h5")
    again = llama(tie_word_embeddings=tie_word_embeddings)
    again.load_lora_weights(tmp_path / "x.lora.h5")
    np.testing.assert_array_equal(logits(again), expected)

    backbone.save_to_preset(tmp_path / "preset")
    merged = nextword.models.Backbone.from_preset(tmp_path / "preset")
    np.testing.assert_allclose(logits(merged), expected, atol=1e-5)


def test_a_preset_has_the_updates_in_its_kernels(trained: Any, tmp_path: Path) -> None:
    trained.save_to_preset(tmp_path / "preset")
    merged = nextword.models.CausalLM.from_preset(tmp_path / "preset")
    assert len(merged.weights) == len(gpt2().weights)
    np.testing.assert_allclose(logits(merged.backbone), logits(trained.backbone), atol=1e-5)
    merged.compile(sampler="greedy")
    np.testing.assert_array_equal(generated(merged), generated(trained))


def test_a_keras_file_keeps_the_adapters(trained: Any, tmp_path: Path) -> None:
    trained.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.backbone.get_config() == trained.backbone.get_config()
    np.testing.assert_array_equal(logits(again.backbone), logits(trained.backbone))
    expected = trained.train_on_batch(INPUTS, TOKEN_IDS)
    np.testing.assert_allclose(again.train_on_batch(INPUTS, TOKEN_IDS), expected, rtol=1e-5)
    np.testing.assert_allclose(logits(again.backbone), logits(trained.backbone), atol=1e-5)


def test_a_file_restores_the_function_in_a_fresh_model(trained: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "task.lora.h5"
    trained.backbone.save_lora_weights(path)
    fresh = gpt2()
    assert (logits(fresh) != logits(trained.backbone)).any()
    fresh.load_lora_weights(str(path))
    np.testing.assert_array_equal(logits(fresh), logits(trained.backbone))
    assert fresh.get_config()["lora"] == trained.backbone.get_config()["lora"]
    trains = [variable.path for variable in fresh.trainable_variables]
    assert trains == [variable.path for variable in trained.backbone.trainable_variables]

    enabled = gpt2()
    enabled.enable_lora(3, alpha=0.7)
    enabled.load_lora_weights(path)
    np.testing.assert_array_equal(logits(enabled), logits(trained.backbone))


def test_a_file_without_keras_hub_s_part_is_smaller(trained: Any, tmp_path: Path) -> None:
    both, own = tmp_path / "both.lora.h5", tmp_path / "own.lora.h5"
    trained.backbone.save_lora_weights(both)
    trained.backbone.save_lora_weights(own, for_keras_hub=False)
    with h5py.File(own) as file:
        assert list(file) == ["nextword"]
    assert own.stat().st_size < both.stat().st_size
    fresh = gpt2()
    fresh.load_lora_weights(own)
    np.testing.assert_array_equal(logits(fresh), logits(trained.backbone))


def test_a_file_is_replaced_as_a_whole(trained: Any, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "task.lora.h5"
    path.write_bytes(b"old")

    def fails(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(nextword.models.lora_files, "write_h5_files", fails)
    with pytest.raises(OSError, match="disk is full"):
        trained.backbone.save_lora_weights(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_keras_hub_calls_the_layers() -> None:
    backbone = llama()
    backbone.enable_lora(2, ["query_dense", "feedforward_gate_dense", "attention_output"])
    names = {variable.path.split("/")[-2] for variable in backbone.trainable_variables}
    assert names == {"query", "gate", "attention_output"}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rank": 0}, ValueError, "`rank` must be positive. Received: rank=0"),
        ({"rank": 2.0}, TypeError, "`rank` must be an integer"),
        ({"rank": True}, TypeError, "`rank` must be an integer"),
        ({"alpha": 0}, ValueError, "`alpha` must be positive"),
        ({"alpha": float("nan")}, ValueError, "`alpha` must be positive"),
        ({"alpha": "1"}, TypeError, "`alpha` must be a number"),
        ({"target_layer_names": "query"}, TypeError, "must be a list of names"),
        ({"target_layer_names": []}, ValueError, r"Received: \[\]"),
        (
            {"target_layer_names": ["query", "valeu"]},
            ValueError,
            "'valeu'. Did you mean 'value'.* There are: attention_output, .*, query, query_dense",
        ),
        ({"target_layer_names": ["output_norm"]}, ValueError, "Received: 'output_norm'"),
    ],
)
def test_arguments_that_are_refused(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    backbone = gpt2()
    with pytest.raises(error, match=message):
        backbone.enable_lora(**({"rank": 2} | arguments))
    assert backbone.trainable_variables == backbone.weights


def test_enabling_twice(trained: Any) -> None:
    with pytest.raises(ValueError, match=r"can be called once.*has the rank 3"):
        trained.backbone.enable_lora(3)


def test_an_optimizer_that_was_used_before() -> None:
    backbone = gpt2()
    lm = train(backbone, epochs=1)
    backbone.enable_lora(2)
    with pytest.raises(ValueError, match=r"`compile` again"):
        lm.fit(INPUTS, TOKEN_IDS)
    lm.compile()
    lm.fit(INPUTS, TOKEN_IDS, verbose=0)


def test_paths_and_models_that_cannot_be_saved(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in '.lora.h5'"):
        trained.backbone.save_lora_weights(tmp_path / "task.h5")
    with pytest.raises(ValueError, match="call `enable_lora` first"):
        gpt2().save_lora_weights(tmp_path / "task.lora.h5")
    assert not list(tmp_path.iterdir())


QUERY = "nextword/transformer_layer_1/self_attention/query"


def replace(file: h5py.File, name: str, value: Any) -> None:
    del file[name]
    file[name] = np.asarray(value, "float32")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: replace(f, f"{QUERY}/bias", np.zeros(15)), r"query/bias'. Received: .*\(15,\)"),
        (lambda f: replace(f, f"{QUERY}/lora_kernel_a", np.zeros((3, 15))), "lora_kernel_a'"),
        (lambda f: replace(f, f"{QUERY}/lora_kernel_a", np.zeros((2, 16))), "lora_kernel_b'"),
        (lambda f: replace(f, f"{QUERY}/lora_kernel_a", 1.0), "lora_kernel_a'"),
        (lambda f: replace(f, f"{QUERY}/lora_kernel_alpha", -1.0), "positive alpha"),
        (lambda f: replace(f, f"{QUERY}/lora_kernel_alpha", float("nan")), "finite.*nan"),
        (lambda f: replace(f, f"{QUERY}/lora_kernel_alpha", float("inf")), "finite.*inf"),
        (lambda f: f.__delitem__(f"{QUERY}/lora_kernel_b"), "no tensor .*lora_kernel_b"),
        (lambda f: replace(f, f"{QUERY}/lora_kernel_b", np.full((16, 3), np.nan)), "finite.*nan"),
        (
            lambda f: replace(f, f"{QUERY}/bias", np.full(16, np.inf)),
            "bias. of .* must hold finite",
        ),
        (lambda f: f.move(QUERY, f"{QUERY[:-5]}other"), "no such variable for .*other"),
        (lambda f: f.move("nextword", "lora/nextword"), "which is none"),
        (lambda f: (f.__delitem__("nextword"), f.__delitem__("lora")), "a file without any"),
        (lambda f: (f.__delitem__("nextword"), f.move("lora/11", "lora/12")), "layer 12"),
        (lambda f: (f.__delitem__("nextword"), f.move("lora/11", "lora/999")), "layer 999"),
        (
            lambda f: (
                f.__delitem__("nextword"),
                replace(f, "lora/11/vars/lora_kernel_a", np.zeros((16, 6))),
            ),
            r"of shape \(16, 2, 6\). Received: shape \(16, 6\)",
        ),
    ],
)
def test_files_that_are_refused(trained: Any, tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "task.lora.h5"
    trained.backbone.save_lora_weights(path)
    with h5py.File(path, "a") as file:
        change(file)
    backbone = gpt2()
    before = values(backbone)
    with pytest.raises(PresetError, match=message):
        backbone.load_lora_weights(path)
    after = values(backbone)
    assert before.keys() == after.keys()
    assert all((before[path] == after[path]).all() for path in before)


@pytest.mark.parametrize(
    "arguments", [{"rank": 4}, {"rank": 3}, {"rank": 3, "target_layer_names": ["query", "key"]}]
)
def test_a_file_of_other_adapters(trained: Any, tmp_path: Path, arguments: Any) -> None:
    path = tmp_path / "task.lora.h5"
    trained.backbone.save_lora_weights(path)
    backbone = gpt2()
    backbone.enable_lora(**arguments)
    with pytest.raises(PresetError, match=r"The adapters of this backbone must be those of"):
        backbone.load_lora_weights(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"none\.lora\.h5"):
        gpt2().load_lora_weights(tmp_path / "none.lora.h5")
    (tmp_path / "text.lora.h5").write_text("no weights")
    with pytest.raises(PresetError, match="not a valid|valid HDF5|HDF5"):
        gpt2().load_lora_weights(tmp_path / "text.lora.h5")
