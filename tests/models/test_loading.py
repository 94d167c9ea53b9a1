"""Checkpoints whose configuration and weights disagree are refused, and dtypes are kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import nextword
from families.cases import CASES
from nextword.presets import PresetError

LLAMA = next(case for case in CASES if case.name == "llama")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    LLAMA.make(tmp_path)
    return tmp_path


def load(directory: Path, **arguments: Any) -> Any:
    return nextword.models.CausalLM.from_preset(directory, preprocessor=None, **arguments)


def change_config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 2**63}, "'hidden_size'.*integer from 1 to"),
        ({"hidden_size": -1}, "'hidden_size'.*Received: -1"),
        ({"hidden_size": 0}, "'hidden_size'.*Received: 0"),
        ({"hidden_size": "32"}, "'hidden_size'.*Received: '32'"),
        ({"hidden_size": None}, "lacks the key 'hidden_size'"),
        ({"num_hidden_layers": 10**9}, "num_layers.*1000000000"),
        ({"num_attention_heads": 3}, "num_query_heads=3"),
        ({"rms_norm_eps": 0}, "'rms_norm_eps'.*positive"),
        ({"rms_norm_eps": 7}, "norm_epsilon"),
        ({"hidden_act": "relu"}, "'hidden_act'.*'silu'.*'relu'"),
        ({"tie_word_embeddings": 1}, "'tie_word_embeddings'.*true or false"),
        ({"attention_sink_size": 4}, "does not know.*attention_sink_size=4"),
        ({"rope_parameters": {"rope_type": "spiral"}}, "'rope_type'.*'llama3'.*'spiral'"),
        ({"rope_parameters": {"rope_type": "linear"}}, "lacks the key 'factor'"),
        ({"rope_parameters": [1]}, "'rope_parameters'.*an object"),
        ({"model_type": "lama"}, "'lama', which is not supported yet. Supported .* llama,"),
        ({"head_dim": 7}, "even `head_dim`"),
        ({"vocab_size": 10**7}, r"'model.embed_tokens.weight'.*\(10000000, 32\)"),
        ({"num_hidden_layers": 4}, r"lacks the tensors 'model.layers.3.*and 6 more"),
        ({"num_hidden_layers": 2}, r"holds the tensors 'model.layers.2.*and 6 more"),
    ],
)
def test_config_is_checked(checkpoint: Path, changes: dict[str, Any], message: str) -> None:
    change_config(checkpoint, **changes)
    with pytest.raises(PresetError, match=message):
        load(checkpoint)


def test_older_spellings_of_the_rotary_settings(checkpoint: Path) -> None:
    scaling = {
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    change_config(checkpoint, rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, **scaling})
    new = load(checkpoint).backbone.config
    assert new.rotary.theta == 5e5
    assert new.rotary.scaling.factor == 4.0
    for key in ("rope_type", "type"):
        change_config(
            checkpoint,
            rope_parameters=None,
            rope_theta=5e5,
            rope_scaling={key: "llama3", **scaling},
        )
        assert load(checkpoint).backbone.config == new


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "lacks the tensor 'model.norm.weight'"),
        (lambda t: t.pop("lm_head.weight"), "lacks the tensor 'lm_head.weight'"),
        (
            lambda t: t.update({"model.extra.weight": np.ones(3, "float32")}),
            "holds the tensor 'model.extra.weight'.*no place",
        ),
        (
            lambda t: t.update({"model.norm.weight": np.ones(3, "float32")}),
            r"'model.norm.weight'.*\(32,\).*Received: shape \(3,\)",
        ),
        (
            lambda t: t.update(
                {
                    "model.layers.0.mlp.down_proj.weight": np.ascontiguousarray(
                        t["model.layers.0.mlp.down_proj.weight"].T
                    )
                }
            ),
            r"\(32, 56\).*Received: shape \(56, 32\)",
        ),
    ],
)
def test_weights_are_checked(
    checkpoint: Path, change: Callable[[dict[str, np.ndarray]], Any], message: str
) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / "model.safetensors")
    with pytest.raises(PresetError, match=message):
        load(checkpoint)


def test_frequencies_stored_by_old_versions_are_ignored(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, "float32")
    save_file(tensors, checkpoint / "model.safetensors")
    load(checkpoint)


def test_a_checkpoint_of_the_decoder_alone(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "gpt2")
    reference = case.make(tmp_path / "whole")
    reference.transformer.save_pretrained(tmp_path / "decoder")
    inputs = {"token_ids": np.array([[1, 2, 3]]), "padding_mask": np.ones((1, 3))}
    whole, decoder = load(tmp_path / "whole"), load(tmp_path / "decoder")
    np.testing.assert_array_equal(whole(inputs), decoder(inputs))


@pytest.mark.parametrize(
    ("stored", "given", "expected"),
    [
        (torch.float32, None, "float32"),
        (torch.bfloat16, None, "bfloat16"),
        (torch.float16, None, "float16"),
        (torch.bfloat16, "float32", "float32"),
        (torch.float32, "bfloat16", "bfloat16"),
    ],
)
def test_the_stored_dtype_is_kept(
    tmp_path: Path, stored: torch.dtype, given: str | None, expected: str
) -> None:
    reference = LLAMA.make(tmp_path, dtype=stored)
    lm = load(tmp_path, dtype=given)
    assert {weight.dtype for weight in lm.weights} == {expected}
    token_ids = np.arange(20)[None]
    logits = np.asarray(lm({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)}))
    assert logits.dtype == expected
    with torch.no_grad():
        exact = reference.float()(torch.tensor(token_ids)).logits.numpy()
    tolerance = 1e-4 if expected == "float32" == str(stored).split(".")[1] else 0.05
    error = np.abs(logits.astype("float32") - exact).max() / np.abs(exact).max()
    assert error < tolerance


def test_mixed_precision(checkpoint: Path) -> None:
    lm = load(checkpoint, dtype="mixed_bfloat16")
    assert {weight.dtype for weight in lm.weights} == {"float32"}
    assert lm.compute_dtype == "bfloat16"


def test_random_weights(checkpoint: Path) -> None:
    lm = load(checkpoint, load_weights=False)
    stored = load_file(checkpoint / "model.safetensors")["model.embed_tokens.weight"]
    loaded = np.asarray(lm.backbone.token_embedding.weights[0])
    assert loaded.shape == stored.shape
    assert not np.allclose(loaded, stored)


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_random_weights_need_no_stored_ones(checkpoint: Path, key: str) -> None:
    (checkpoint / "model.safetensors").unlink()
    change_config(checkpoint, **{"dtype": None, key: "bfloat16"})
    lm = load(checkpoint, load_weights=False)
    assert {weight.dtype for weight in lm.weights} == {"bfloat16"}
    with pytest.raises(PresetError, match="has no weights"):
        load(checkpoint)


def test_weights_are_never_drawn_at_random_before_they_are_loaded(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a random initializer ran")

    monkeypatch.setattr("keras.random.normal", refuse)
    monkeypatch.setattr("keras.src.backend.random.normal", refuse)
    load(checkpoint)
    with pytest.raises(AssertionError, match="random initializer"):
        load(checkpoint, load_weights=False)
