"""Exports to transformers: whole or not at all, never mixed with something else."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import nextword
from keras_presets import MERGES, VOCABULARY
from nextword.models import Backbone, CausalLM
from nextword.models.families.bloom import BloomBackbone
from nextword.models.families.gpt_oss import GptOssBackbone
from nextword.presets import PresetError

LLAMA = {
    "vocabulary_size": 23,
    "num_layers": 2,
    "hidden_dim": 32,
    "intermediate_dim": 64,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
}
TOKEN_IDS = np.arange(20).reshape(2, 10)


def llama(seed: int = 0, dtype: str = "float32", **changes: Any) -> Any:
    keras.utils.set_random_seed(seed)
    backbone = nextword.models.LlamaBackbone(**LLAMA | changes, dtype=dtype)
    for weight in backbone.weights:
        weight.assign(4 * keras.ops.convert_to_numpy(weight).astype("float32"))
    tokenizer = nextword.models.Llama3Tokenizer(VOCABULARY, MERGES)
    preprocessor = nextword.models.Llama3CausalLMPreprocessor(tokenizer, sequence_length=9)
    return nextword.models.LlamaCausalLM(backbone, preprocessor)


def logits(model: Any) -> np.ndarray:
    inputs = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
    return np.asarray(keras.ops.convert_to_numpy(model(inputs)))


def their_logits(directory: Path) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        values: np.ndarray = model(torch.tensor(TOKEN_IDS)).logits.numpy()
    return values


def values(model: Any) -> list[np.ndarray]:
    return [np.asarray(keras.ops.convert_to_numpy(weight)) for weight in model.weights]


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def lm() -> Any:
    return llama()


@pytest.fixture(scope="module")
def small() -> Any:
    """Another model, too small to take time."""
    return llama(seed=1, num_layers=1)


def test_model_and_tokenizer_speak_as_one(lm: Any, tmp_path: Path) -> None:
    lm.export_to_transformers(tmp_path / "exported")
    assert sorted(files(tmp_path / "exported")) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not list(tmp_path.glob(".*"))  # nothing is left beside it
    np.testing.assert_allclose(their_logits(tmp_path / "exported"), logits(lm), atol=1e-4)

    theirs = AutoTokenizer.from_pretrained(tmp_path / "exported")
    tokenizer = lm.preprocessor.tokenizer
    start = [tokenizer.start_token_id]
    assert theirs("abc cab")["input_ids"] == start + tokenizer.tokenize("abc cab")
    config = json.loads((tmp_path / "exported" / "config.json").read_text())
    assert config["bos_token_id"] == theirs.bos_token_id == tokenizer.start_token_id
    generation = json.loads((tmp_path / "exported" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == list(tokenizer.end_token_ids)

    again = CausalLM.from_preset(tmp_path / "exported")
    assert again.preprocessor.tokenizer.end_token_ids == tokenizer.end_token_ids
    assert again.preprocessor.add_start_token
    assert all(map(np.array_equal, values(again), values(lm)))


def test_several_files_in_the_dtype_of_the_weights(tmp_path: Path) -> None:
    lm = llama(dtype="bfloat16", num_layers=1)
    lm.export_to_transformers(tmp_path, max_shard_size=6e3 / 2**30)
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05}.safetensors"
    assert max(path.stat().st_size for path in tmp_path.glob("*.safetensors")) < 8e3
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.dtype == torch.bfloat16
    kernel = lm.backbone.transformer_layers[0].feed_forward.gate.kernel.variables["values"]
    np.testing.assert_array_equal(
        model.model.layers[0].mlp.gate_proj.weight.float().detach().numpy(),
        np.asarray(keras.ops.convert_to_numpy(kernel)).astype("float32"),
    )
    # Fewer files take the place of many.
    lm.export_to_transformers(tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    assert Backbone.from_preset(tmp_path).dtype_policy.name == "bfloat16"


def adapted(*, quantized: bool) -> Any:
    lm = llama(num_layers=1)
    if quantized:
        lm.quantize("int8")
    lm.backbone.enable_lora(2)
    random = np.random.default_rng(0)
    for weight in lm.backbone.trainable_weights:
        weight.assign(random.normal(size=weight.shape, scale=0.3))
    return lm


def test_adapters_are_merged(tmp_path: Path) -> None:
    lm = adapted(quantized=False)
    before = values(lm)
    lm.export_to_transformers(tmp_path)
    assert all(map(np.array_equal, before, values(lm)))
    np.testing.assert_allclose(their_logits(tmp_path), logits(lm), atol=1e-4)


def test_packed_matrices_are_unpacked(tmp_path: Path) -> None:
    lm = adapted(quantized=True)
    lm.export_to_transformers(tmp_path)
    layer = lm.backbone.transformer_layers[0]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path).model.layers[0]
    for ours, stored in (
        (layer.feed_forward.gate.kernel, theirs.mlp.gate_proj),
        (layer.self_attention.value.kernel, theirs.self_attn.v_proj),  # which is adapted
    ):
        parts = {k: np.asarray(v).astype("float64") for k, v in ours.variables.items()}
        expected = parts["values"] / parts["scale"][:, None]
        if ours.update is not None:
            a, b = (np.asarray(factor).astype("float64") for factor in ours.update.factors)
            expected += ours.update.scale * (b @ a)
        tensor = stored.weight.detach().numpy()
        np.testing.assert_allclose(tensor, expected, rtol=0, atol=1e-5)
    assert ours.update is not None


def test_a_directory_with_something_else_is_left_alone(lm: Any, small: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(PresetError, match=r"which holds 'notes\.txt'. Pass `overwrite=True`"):
        small.export_to_transformers(tmp_path)
    assert sorted(files(tmp_path)) == ["notes.txt"]
    small.export_to_transformers(tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "notes.txt").unlink()

    (tmp_path / "README.md").write_text("mine")
    lm.export_to_transformers(tmp_path)  # another export of the same architecture
    assert (tmp_path / "README.md").read_text() == "mine"
    assert Backbone.from_preset(tmp_path).config.num_layers == 2
    gpt2 = nextword.models.GPT2Backbone(23, 1, 2, 8, 12)
    with pytest.raises(PresetError, match=r"a config\.json of the architecture 'llama'"):
        gpt2.export_to_transformers(tmp_path)

    small.save_to_preset(tmp_path / "keras")
    with pytest.raises(PresetError, match=r"holds '(assets|metadata\.json)'"):
        small.export_to_transformers(tmp_path / "keras")
    small.export_to_transformers(tmp_path / "keras", overwrite=True)
    assert "metadata.json" not in files(tmp_path / "keras")

    (tmp_path / "file").write_text("mine")
    with pytest.raises(PresetError, match="`path` must be a directory"):
        small.export_to_transformers(tmp_path / "file")


def test_parts_are_written_one_by_one(small: Any, tmp_path: Path) -> None:
    small.backbone.export_to_transformers(tmp_path)
    assert sorted(files(tmp_path)) == ["config.json", "generation_config.json", "model.safetensors"]
    small.preprocessor.export_to_transformers(tmp_path)
    again = CausalLM.from_preset(tmp_path)
    assert all(map(np.array_equal, values(again), values(small)))
    assert again.preprocessor.tokenizer.tokenize("abc") == small.preprocessor.tokenizer.tokenize(
        "abc"
    )


def test_what_fails_leaves_everything_as_it_was(small: Any, tmp_path: Path) -> None:
    small.export_to_transformers(tmp_path / "exported")
    before = files(tmp_path / "exported")
    weight = small.backbone.token_embedding.weights[0]
    value = np.array(weight)
    weight.assign(np.where(np.arange(32) == 3, np.nan, value))
    with pytest.raises(PresetError, match=r"must hold finite numbers"):
        small.export_to_transformers(tmp_path / "exported")
    weight.assign(value)
    with pytest.raises(ValueError, match="`max_shard_size` must be at least the size of the large"):
        small.export_to_transformers(tmp_path / "exported", max_shard_size=1e-9)
    with pytest.raises(ValueError, match="`max_shard_size` must be positive"):
        small.export_to_transformers(tmp_path / "exported", max_shard_size=0)
    assert files(tmp_path / "exported") == before
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


SIZES = {"vocabulary_size": 23, "num_layers": 1, "hidden_dim": 16, "intermediate_dim": 24}
HEADS = {"num_query_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize(
    ("cls", "arguments", "reason"),
    [
        (
            BloomBackbone,
            SIZES | {"num_heads": 4},
            "MptForCausalLM of transformers has no intermediate_dim=24",
        ),
        (
            nextword.models.LlamaBackbone,
            SIZES | HEADS | {"rope_scaling": {"kind": "pairs", "factors": [1.0, 2.0]}},
            "LlamaForCausalLM of transformers has no rotary=",
        ),
    ],
)
def test_what_transformers_cannot_compute_is_refused(
    cls: Any, arguments: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(PresetError) as caught:
        cls(**arguments).export_to_transformers(tmp_path / "exported")
    assert f"transformers cannot compute what this {cls.__name__} does: " in str(caught.value)
    assert reason in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_family_that_wants_a_window_that_no_layer_has(tmp_path: Path) -> None:
    backbone = GptOssBackbone(**SIZES, **HEADS, num_experts=4, sliding_window=None)
    backbone.export_to_transformers(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path)(torch.tensor(TOKEN_IDS)).logits.ndim == 3
