"""Where KerasHub departs from transformers, nextword does not; and what KerasHub cannot express."""

import dataclasses
import functools
import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

import nextword
from keras_presets import (
    CASES,
    Case,
    assert_close,
    assert_same_weights,
    difference,
    logits,
    no_initial_values,
    save,
)
from nextword.errors import PresetError
from nextword.layers import DecoderConfig, Normalization

keras_hub = pytest.importorskip("keras_hub")
# KerasHub leaves the file of a SentencePiece model open.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in.*vocabulary\.spm:pytest.PytestUnraisableExceptionWarning"
)

SIZES = CASES["mistral"].arguments | {"num_layers": 1}
for name in ("sliding_window", "head_dim"):
    del SIZES[name]


# Those of the families whose arguments have other names.
SIZES_OF = {
    CASES[name].prefix: CASES[name].arguments
    for name in (
        *("gemma", "opt", "bloom", "gpt-neox", "falcon", "gemma3", "smollm3"),
        *("qwen-moe", "qwen3-moe", "gpt-oss"),
    )
}


def saved(directory: Path, prefix: str, **changes: Any) -> Any:
    """Save a model of KerasHub, and return it."""
    model = Case(prefix, SIZES_OF.get(prefix, SIZES) | changes).model()
    model.save_to_preset(str(directory))
    return model


def ours_with(directory: Path, **arguments: Any) -> Any:
    """Load a model with other arguments than its preset's."""
    model = nextword.models.CausalLM.from_preset(directory)
    return type(model)(type(model.backbone).from_preset(directory, **arguments))


@pytest.mark.parametrize(
    ("name", "variants"),
    [
        ("mistral", [{"sliding_window": None}]),
        ("mixtral", [{"sliding_window": None}, {"top_k": 1}]),
    ],
)
def test_windows_and_experts_show_in_the_texts_of_the_tests(
    tmp_path: Path, name: str, variants: list[dict[str, Any]]
) -> None:
    theirs = save(tmp_path, name)
    for changes in variants:
        assert difference(ours_with(tmp_path, **changes), theirs) > 0.01


@pytest.mark.parametrize(
    ("prefix", "argument", "default"),
    [
        ("Mistral", "sliding_window", 512),
        ("Mixtral", "sliding_window", 512),
        ("Qwen3", "sliding_window_size", 32768),
    ],
)
def test_null_is_no_window_and_not_the_usual_one(
    tmp_path: Path, prefix: str, argument: str, default: int
) -> None:
    needed = {"Mixtral": {"num_experts": 2}, "Qwen3": {"head_dim": 4}}.get(prefix, {})
    case = Case(prefix, SIZES | needed)
    for window in (None, default):
        path = tmp_path / str(window)
        with no_initial_values():
            theirs = case.cls("Backbone")(**case.arguments, **{argument: window})
        theirs.save_to_preset(str(path))
        ours = nextword.models.Backbone.from_preset(path)
        assert ours.config.sliding_window == window
        ours.save_to_preset(path)
        assert json.loads((path / "config.json").read_text())["config"][argument] == window


@pytest.mark.parametrize(
    ("prefix", "changes", "off"),
    [
        (
            "Qwen",
            {"use_sliding_window_attention": True, "sliding_window_size": 6},
            {"use_sliding_window_attention": False},
        ),
        (
            "Qwen3",
            {"sliding_window_size": 6, "head_dim": 8, "layer_norm_epsilon": 1e-5},
            {"sliding_window_size": None},
        ),
        ("Qwen3Moe", {"sliding_window_size": 6}, {"sliding_window_size": None}),
    ],
)
def test_a_window_that_keras_hub_forgets_where_it_has_fused_attention(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prefix: str,
    changes: dict[str, Any],
    off: dict[str, Any],
) -> None:
    theirs = saved(tmp_path, prefix, **changes)
    ours = nextword.models.CausalLM.from_preset(tmp_path)
    assert difference(ours, theirs) > 0.01
    assert_close(ours_with(tmp_path, **off), theirs)

    lower = {"Qwen3Moe": "qwen3_moe"}.get(prefix, prefix.lower())
    attention = importlib.import_module(f"keras_hub.src.models.{lower}.{lower}_attention")
    monkeypatch.setattr(attention, "fused_attention_op_available", lambda: False)
    assert_close(ours, theirs)
    with pytest.warns(UserWarning, match=f"{prefix}Backbone does not .* heed {next(iter(off))}"):
        ours.backbone.save_to_preset(tmp_path / "ours")


@pytest.mark.parametrize(("prefix", "fixed"), [("Qwen3", 1e-5), ("Qwen3Moe", 1e-6)])
def test_an_epsilon_that_keras_hub_does_not_pass_on(
    tmp_path: Path, prefix: str, fixed: float
) -> None:
    theirs = saved(tmp_path, prefix, head_dim=8, layer_norm_epsilon=0.1)
    ours = nextword.models.CausalLM.from_preset(tmp_path)
    assert difference(ours, theirs) > 1e-3
    for layer in theirs.backbone.transformer_layers:
        attention = layer._self_attention_layer
        for norm in (attention._query_dense_layer_norm, attention._key_dense_layer_norm):
            assert norm.epsilon == fixed  # whatever the model's is
            norm.epsilon = 0.1
    assert_close(ours, theirs)


def test_long_rotary_factors_that_keras_hub_chooses_for_a_whole_batch(tmp_path: Path) -> None:
    long = CASES["phi3-long"].arguments | {"pretraining_sequence_length": 16}
    theirs = saved(tmp_path, "Phi3", **long)
    ours = nextword.models.CausalLM.from_preset(tmp_path)
    for row in (0, 1):  # alone, of 20 and 13 tokens
        assert difference(ours, theirs, row) < 1e-5
    assert difference(ours, theirs) > 0.01
    np.testing.assert_allclose(logits(ours)[1, :13], logits(ours, 1)[0], atol=1e-4)


@pytest.mark.parametrize(("prefix", "fixed"), [("Gemma", 1e-6), ("Falcon", 1e-5)])
def test_an_epsilon_that_keras_hub_heeds_in_the_last_norm_alone(
    tmp_path: Path, prefix: str, fixed: float
) -> None:
    theirs = saved(tmp_path / "theirs", prefix, layer_norm_epsilon=0.05)
    ours = nextword.models.CausalLM.from_preset(tmp_path / "theirs")
    assert difference(ours, theirs) > 1e-3
    with pytest.warns(UserWarning, match=f"{prefix}Backbone does not .* heed layer_norm_epsilon:"):
        ours.save_to_preset(tmp_path / "ours")
    for layer in ours.backbone._flatten_layers():
        if isinstance(layer, Normalization) and layer.name != "output_norm":
            layer.epsilon = fixed
    assert_close(ours, theirs)


@pytest.mark.parametrize("prefix", ["Gemma", "Gemma3"])
def test_gemma_s_scale_that_keras_hub_does_not_heed(tmp_path: Path, prefix: str) -> None:
    theirs = saved(tmp_path / "theirs", prefix, query_head_dim_normalize=False)
    ours = nextword.models.CausalLM.from_preset(tmp_path / "theirs")
    assert ours.backbone.config.attention_scale == (16 / 4) ** -0.5
    assert difference(ours, theirs) > 1e-3
    assert_close(ours_with(tmp_path / "theirs", query_head_dim_normalize=True), theirs)
    with pytest.warns(
        UserWarning, match=f"{prefix}Backbone does not .* heed query_head_dim_normalize:"
    ):
        ours.save_to_preset(tmp_path / "ours")


def test_gpt_oss_has_its_windows_in_the_wrong_layers_in_keras_hub(tmp_path: Path) -> None:
    theirs = saved(tmp_path / "theirs", "GptOss", sliding_window=6)
    ours = nextword.models.CausalLM.from_preset(tmp_path / "theirs")
    layers = transformers.GptOssConfig(num_hidden_layers=2).layer_types
    assert layers == ["sliding_attention", "full_attention"]
    assert [ours.backbone.config.window(i) for i in range(2)] == [6, None]
    assert difference(ours, theirs) > 0.01
    # And there a token sees itself and as many others.
    changed = ours_with(tmp_path / "theirs", sliding_window=7, sliding_layers=[False, True])
    assert_close(changed, theirs)
    with pytest.warns(UserWarning, match=r"GptOssBackbone does not .* heed sliding_window:"):
        ours.save_to_preset(tmp_path / "ours")


@pytest.mark.parametrize("dense", [[0], [1]])
def test_qwen_moe_s_layers_are_all_alike_in_keras_hub(tmp_path: Path, dense: list[int]) -> None:
    theirs = saved(tmp_path, "QwenMoe", mlp_only_layers=dense)
    have_experts = {
        hasattr(layer.mlp, "expert_bank") for layer in theirs.backbone.transformer_layers
    }
    assert have_experts == {0 not in dense}  # what the first layer has
    with pytest.raises(PresetError, match=r"lacks the tensors .*/mlp/"):
        nextword.models.CausalLM.from_preset(tmp_path)


def test_smollm3_s_output_projection_has_no_bias_in_keras_hub(tmp_path: Path) -> None:
    saved(tmp_path, "SmolLM3", attention_bias=True)
    with pytest.raises(PresetError, match=r"lacks the tensors .*/o_proj/vars/1'"):
        nextword.models.CausalLM.from_preset(tmp_path)


def test_smollm3_is_always_float32_in_keras_hub(tmp_path: Path) -> None:
    theirs = save(tmp_path / "theirs", "smollm3", "bfloat16")
    assert {weight.dtype for weight in theirs.weights} == {"float32"}
    load = nextword.models.CausalLM.from_preset
    assert load(tmp_path / "theirs").compute_dtype == "float32"
    load(tmp_path / "theirs", dtype="bfloat16").save_to_preset(tmp_path / "ours")
    assert load(tmp_path / "ours").compute_dtype == "bfloat16"
    back = CASES["smollm3"].cls("CausalLM").from_preset(str(tmp_path / "ours"), dtype="bfloat16")
    assert {weight.dtype for weight in back.weights} == {"float32"}
    assert_close(load(tmp_path / "ours", dtype="float32"), back)


def test_smollm3_has_no_default_layers_for_lora_in_keras_hub(tmp_path: Path) -> None:
    theirs = save(tmp_path / "preset", "smollm3").backbone
    theirs.enable_lora(2)
    assert theirs.trainable_weights == []
    with pytest.raises(ValueError, match="no lora-enabled layers"):
        theirs.save_lora_weights(str(tmp_path / "theirs.lora.h5"))

    ours = nextword.models.Backbone.from_preset(tmp_path / "preset")
    ours.enable_lora(2)
    assert len(ours.trainable_weights) == 2 * 2 * ours.config.num_layers
    # Theirs takes the file where it is told the layers: see `test_keras_hub_lora.py`.
    ours.save_lora_weights(tmp_path / "ours.lora.h5")
    theirs.load_lora_weights(str(tmp_path / "ours.lora.h5"))
    assert theirs.trainable_weights == []


def test_falcon_s_biases_that_keras_hub_does_not_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Up to 8 heads nothing needs rounding: all slopes are powers of 2, all positions below 256.
    theirs = saved(tmp_path, "Falcon", num_attention_heads=64, hidden_dim=64)
    ours = nextword.models.CausalLM.from_preset(tmp_path)
    assert ours.backbone.config.alibi_dtype == "bfloat16"
    assert difference(ours, theirs) > 1e-4
    describe = nextword.models.FalconBackbone.describe

    @functools.wraps(describe)
    def unrounded(**arguments: Any) -> DecoderConfig:
        return dataclasses.replace(describe(**arguments), alibi_dtype="float32")

    monkeypatch.setattr(nextword.models.FalconBackbone, "describe", staticmethod(unrounded))
    assert_close(nextword.models.CausalLM.from_preset(tmp_path), theirs)


def test_gpt_neox_generates_although_its_padding_is_its_end(tmp_path: Path) -> None:
    theirs = saved(tmp_path, "GPTNeoX")
    theirs.preprocessor = None
    ours = nextword.models.CausalLM.from_preset(tmp_path, preprocessor=None)
    mask = np.arange(12)[None] < 4
    inputs = {"token_ids": np.where(mask, [[17, 12, 13, 14] * 3], 0), "padding_mask": mask}
    for model in (theirs, ours):
        model.compile(sampler="greedy")
    # The id 0, which the padding has, is taken for the end of what is still to be generated.
    token_ids = theirs.generate(dict(inputs), stop_token_ids=[0])["token_ids"]
    np.testing.assert_array_equal(token_ids, inputs["token_ids"])

    # Every token is the likeliest, as KerasHub itself says when it does without a cache.
    token_ids = ours.generate(dict(inputs), stop_token_ids=[0])["token_ids"]
    outputs = theirs({"token_ids": token_ids, "padding_mask": np.ones_like(mask)})
    np.testing.assert_array_equal(token_ids[:, 4:], np.asarray(outputs).argmax(-1)[:, 3:-1])


def test_gpt_neox_decodes_in_keras_hub_as_if_at_the_start_of_the_text(tmp_path: Path) -> None:
    theirs = saved(tmp_path, "GPTNeoX")
    token_ids = np.array([[17, 12, 13, 14]])
    expected = theirs({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    _, cache = theirs._build_cache(token_ids)
    differences = []
    for i in range(4):
        step, _, _ = theirs.call_with_cache(token_ids[:, i : i + 1], cache, i)
        differences.append(np.abs(step[:, 0] - expected[:, i]).max())
    # The query is not turned by its position, which is no matter at position 0 alone.
    assert differences[0] < 1e-4
    assert min(differences[1:]) > 1e-2


def test_another_name_of_the_same_classes(tmp_path: Path) -> None:
    theirs = save(tmp_path, "qwen")
    for path in tmp_path.glob("*.json"):
        path.write_text(path.read_text().replace("keras_hub>Qwen", "keras_hub>Qwen2"))
    ours = nextword.models.Qwen2CausalLM.from_preset(tmp_path)
    assert type(ours.preprocessor.tokenizer) is nextword.tokenizers.Qwen2Tokenizer
    assert_close(ours, theirs)


FALCON_7B = {
    "num_key_value_heads": 1,
    "use_alibi": False,
    "use_bias": False,
    "parallel_residual": True,
    "shared_norm": True,
}


@pytest.mark.parametrize(
    ("prefix", "arguments"),
    [
        ("Mistral", {"tie_word_embeddings": True}),
        ("Mistral", {"sliding_window": 6, "sliding_layers": (True, False), "num_layers": 2}),
        ("Mixtral", {"head_dim": 6, "num_experts": 2}),
        ("Qwen", {"head_dim": 6}),
        ("Qwen3", {"attention_bias": True, "head_dim": 4}),
        ("Phi3", {"partial_rotary_factor": 0.5}),
        ("Phi3", {"sliding_window": 6}),
        ("Gemma", {"rope_max_wavelength": 5e5, "attention_bias": True}),
        ("Gemma", {"query_pre_attention_scalar": 24.0}),
        (
            "Gemma",
            {"use_sliding_window_attention": True, "sliding_layers": (False, True)},
        ),
        ("Gemma3", {"rope_max_wavelength": 5e5, "num_layers": 1}),
        ("SmolLM3", {"attention_bias": True}),
        ("SmolLM3", {"partial_rotary_factor": 0.5, "tie_word_embeddings": False}),
        ("SmolLM3", {"layer_types": ["sliding_attention"] * 2, "sliding_window": 6}),
        ("QwenMoe", {"mlp_only_layers": [1], "head_dim": 6}),
        ("QwenMoe", {"decoder_sparse_step": 2}),
        ("Qwen3Moe", {"attention_bias": True}),
        ("GptOss", {"gate_limit": 3.0, "tie_word_embeddings": True}),
        ("OPT", {"activation": "gelu", "use_bias": False}),
        ("GPTNeoX", {"tie_word_embeddings": False, "activation": "gelu"}),
        ("GPTNeoX", {"parallel_residual": False, "attention_bias": False}),
        ("Falcon", FALCON_7B),
        ("Falcon", FALCON_7B | {"num_key_value_heads": 2, "shared_norm": False}),
    ],
)
def test_what_keras_hub_cannot_express_is_said_and_kept(
    tmp_path: Path, prefix: str, arguments: dict[str, Any]
) -> None:
    sizes = SIZES_OF.get(prefix, SIZES)
    backbone = getattr(nextword.models, f"{prefix}Backbone")(**sizes | arguments)
    for _ in range(2):  # the second time over the first
        with pytest.warns(UserWarning, match=f"KerasHub's {prefix}Backbone does not know or heed"):
            backbone.save_to_preset(tmp_path)
        again = nextword.models.Backbone.from_preset(tmp_path)
        assert again.config == backbone.config
        assert_same_weights(again, backbone)


@pytest.mark.parametrize(
    ("prefix", "changes", "message"),
    [
        ("Mistral", {"sliding_layers": "yes"}, "'sliding_layers'.*a list of true and false"),
        ("Mistral", {"sliding_layers": [1]}, "'sliding_layers'.*a list of true and false"),
        ("Mistral", {"sliding_layers": [True] * 9}, "one entry per layer"),
        ("Mistral", {"sliding_window": 0}, "'sliding_window'.*integer from 1"),
        ("Phi3", {"rope_scaling_type": "os.system"}, "'rope_scaling_type'.*'su'"),
        ("Phi3", {"rope_scaling_short_factor": ["x"]}, "'rope_scaling_short_factor'.*positive num"),
        ("Phi3", {"rope_scaling_long_factor": [0.0]}, "'rope_scaling_long_factor'.*positive num"),
        (
            "Gemma3",
            {"vision_encoder": {"class_name": "x" * 99}},
            "text are.*x{30,60}\\.",
        ),
        ("Gemma3", {"is_embedding_model": True}, "text are supported"),
        ("SmolLM3", {"layer_types": ["full_attention", "os.system"]}, "'full_attention' and"),
        ("SmolLM3", {"layer_types": [1, 2]}, "'layer_types'.*a list of strings"),
        ("Qwen3Moe", {"mlp_only_layers": [-1]}, "'mlp_only_layers'.*integers from 0"),
        ("OPT", {"activation": "os>system"}, "'activation'.* must be 'gelu' or .*'os>system'"),
        ("Gemma", {"intermediate_dim": 25}, "`intermediate_dim` must be even"),
        ("Gemma", {"use_post_ffw_norm": True}, "`use_post_attention_norm` must be equal"),
        ("Falcon", {"attention_dropout_rate": 0.1}, "must be equal"),
    ],
)
def test_settings_that_make_no_sense(
    tmp_path: Path, prefix: str, changes: dict[str, Any], message: str
) -> None:
    sizes = SIZES_OF.get(prefix, SIZES)
    getattr(nextword.models, f"{prefix}Backbone")(**sizes).save_to_preset(tmp_path)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    stored["config"] |= changes
    path.write_text(json.dumps(stored))
    with pytest.raises(PresetError, match=message):
        nextword.models.Backbone.from_preset(tmp_path)


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("mistral", ["</s>"]),
        ("mistral-tekken", ["</s>"]),
        ("mixtral", ["</s>"]),
        ("qwen", ["<|endoftext|>"]),
        ("qwen3", ["<|im_end|>", "<|endoftext|>"]),
        ("phi3", ["<|endoftext|>", "<|end|>"]),
        ("gemma", ["<eos>", "<end_of_turn>"]),
        ("gemma3", ["<eos>", "<end_of_turn>"]),
        ("smollm3", ["<|end_of_text|>", "<|im_end|>"]),
        ("qwen-moe", ["<|endoftext|>"]),
        ("qwen3-moe", ["<|im_end|>", "<|endoftext|>"]),
        ("gpt-oss", ["<|endoftext|>"]),
        ("opt", ["</s>"]),
        ("bloom", ["</s>"]),
        ("gpt-neox", ["<|endoftext|>"]),
        ("falcon", ["<|endoftext|>"]),
    ],
)
def test_tokens_with_a_role(tmp_path: Path, name: str, ends: list[str]) -> None:
    theirs = CASES[name].make_tokenizer()
    theirs.save_to_preset(str(tmp_path))
    ours = getattr(nextword.tokenizers, type(theirs).__name__).from_assets(
        json.loads((tmp_path / "tokenizer.json").read_text())["config"],
        tmp_path / "assets" / "tokenizer",
    )
    assert type(ours).__name__ == type(theirs).__name__
    for role in ("start_token_id", "end_token_id"):
        assert getattr(ours, role) == getattr(theirs, role)
    # KerasHub's are 0 where there is no such token.
    assert (ours.pad_token_id or 0) == theirs.pad_token_id
    assert set(map(ours.token_to_id, ends)) <= set(ours.end_token_ids)


def test_a_split_pattern_from_a_file_must_be_the_known_one(tmp_path: Path) -> None:
    CASES["mistral-tekken"].make_tokenizer().save_to_preset(str(tmp_path))
    assets = tmp_path / "assets" / "tokenizer"
    cls = nextword.tokenizers.MistralTekkenTokenizer
    for pattern, message in (("(a+)+$", "`split_pattern` must be"), (3, "another value for")):
        with pytest.raises(PresetError, match=message):
            cls.from_assets({"split_pattern": pattern}, assets)
