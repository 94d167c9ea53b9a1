"""Settings of config.json as real repositories spell them, and those that are refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

import nextword
from families.cases import CASES
from nextword.presets import PresetError


def backbone(directory: Path, case_name: str, **changes: Any) -> Any:
    """Return the backbone of a case, with keys of its config.json changed or (by None) left out."""
    next(case for case in CASES if case.name == case_name).make(directory)
    path = directory / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return nextword.models.CausalLM.from_preset(
        directory, preprocessor=None, load_weights=False
    ).backbone


def configuration(directory: Path, case_name: str, **changes: Any) -> Any:
    """Return the decoder's description of such a backbone."""
    return backbone(directory, case_name, **changes).config


def test_rotary_settings_of_phi3_before_transformers_5(tmp_path: Path) -> None:
    config = configuration(
        tmp_path,
        "phi3",
        rope_parameters=None,
        rope_theta=2e4,
        partial_rotary_factor=0.75,
        original_max_position_embeddings=256,
        attention_bias=False,
        embd_pdrop=0.1,
        resid_pdrop=0.25,
    )
    assert config.rotary.theta == 2e4
    assert config.rotary.dimensions(config.head_dim) == 6
    assert config.dropout == 0.25


@pytest.mark.parametrize(
    ("case_name", "changes", "windows"),
    [
        ("mistral", {"sliding_window": None}, [4096] * 3),  # transformers' default
        ("ministral", {"layer_types": None}, [12] * 3),
        ("qwen2", {"sliding_window": 64, "max_window_layers": 1}, [None] * 3),
        (
            "qwen2",
            {
                "use_sliding_window": True,
                "sliding_window": 64,
                "max_window_layers": 0,
                "layer_types": None,
            },
            [64] * 3,
        ),
        (
            "qwen3",
            {
                "use_sliding_window": True,
                "sliding_window": 64,
                "max_window_layers": 2,
                "layer_types": None,
            },
            [None, None, 64],
        ),
    ],
)
def test_sliding_windows(
    tmp_path: Path, case_name: str, changes: dict[str, Any], windows: list[int | None]
) -> None:
    config = configuration(tmp_path, case_name, **changes)
    assert [config.window(layer) for layer in range(3)] == windows


SHORT_AND_LONG = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


@pytest.mark.parametrize(
    ("case_name", "changes", "message"),
    [
        ("mistral", {"layer_types": ["full_attention"] * 3}, "does not know.*layer_types="),
        ("mistral", {"sliding_window": 0}, "'sliding_window'.*Received: 0"),
        ("ministral", {"layer_types": ["full_attention"]}, "'layer_types'.*a list of 3"),
        ("ministral", {"layer_types": ["linear"] * 3}, "'layer_types'.*'sliding_attention'"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 3}, "'layer_types'.*'full_attention'"),
        ("qwen2", {"use_mrope": True}, "'use_mrope'.*False.*Received: True"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": None}, "lacks.*'sliding_window'"),
        ("qwen2", {"rope_parameters": {"rope_type": "ntk"}}, "'rope_type'.*'ntk'"),
        ("qwen2", {"rope_parameters": {"rope_type": "dynamic"}}, "lacks the key 'factor'"),
        (
            "qwen2",
            {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "alpha": 9.0}},
            "does not know.*alpha=9.0",
        ),
        (
            "phi3",
            {"rope_parameters": {"type": "su", "long_factor": [2.0], "short_factor": [1.0] * 4}},
            "`long_factors` .* must have 4 entries.*Received: 1 entries",
        ),
        (
            "phi3",
            {"rope_scaling": {"type": "yarn"} | SHORT_AND_LONG, "rope_parameters": None}
            | {"original_max_position_embeddings": 1},
            "`original_context_length` .* at least 2",
        ),
        ("phi3", {"rope_parameters": {"partial_rotary_factor": 1.5}}, "`fraction` must be in"),
        ("phi3", {"lm_head_bias": True}, "'lm_head_bias'.*False"),
        ("mixtral", {"num_local_experts": 2**20}, "`num_experts` must be .* from 1 to 1024"),
        ("mixtral", {"num_experts_per_tok": 6}, "`experts_per_token` must be .* from 1 to 5"),
    ],
)
def test_what_is_not_known_is_refused(
    tmp_path: Path, case_name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PresetError, match=message):
        configuration(tmp_path, case_name, **changes)


def test_a_checkpoint_with_other_experts_is_refused(tmp_path: Path) -> None:
    configuration(tmp_path, "mixtral", num_local_experts=6)
    with pytest.raises(PresetError, match=r"experts\.5\.w"):
        nextword.models.CausalLM.from_preset(tmp_path, preprocessor=None)
    configuration(tmp_path, "mixtral", num_local_experts=1000)
    with pytest.raises(PresetError, match="fewer experts than it declares"):
        nextword.models.CausalLM.from_preset(tmp_path, preprocessor=None)


def test_long_rope_as_older_configurations_spell_it(tmp_path: Path) -> None:
    config = configuration(
        tmp_path,
        "phi3",
        rope_parameters=None,
        rope_scaling={"type": "su"} | SHORT_AND_LONG,
        original_max_position_embeddings=64,
    )
    scaling = config.rotary.scaling
    assert (scaling.short_factors, scaling.long_factors) == ((1.0,) * 4, (2.0,) * 4)
    assert scaling.magnitude == pytest.approx((1 + math.log(256 / 64) / math.log(64)) ** 0.5)


def test_yarn_reaches_as_far_as_it_scales(tmp_path: Path) -> None:
    rope = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    config = configuration(tmp_path, "qwen2", rope_parameters=None, rope_scaling=rope)
    assert config.context_length == 1024
    assert config.rotary.scaling.magnitude == pytest.approx(0.1 * math.log(4) + 1)


@pytest.mark.parametrize(
    "case_name",
    ["ministral", "llama-yarn", "qwen2-tied-window", "qwen3-tied-window-biases", "phi3", "mixtral"],
)
def test_a_backbone_is_made_anew_from_its_config(tmp_path: Path, case_name: str) -> None:
    model = backbone(tmp_path, case_name)
    arguments = json.loads(json.dumps(model.get_config()))
    assert type(model).from_config(arguments).config == model.config


def test_arguments_that_cannot_be_honoured_are_refused() -> None:
    sizes = {
        "vocabulary_size": 8,
        "num_layers": 1,
        "hidden_dim": 8,
        "intermediate_dim": 8,
        "num_query_heads": 1,
        "num_key_value_heads": 1,
    }
    with pytest.raises(ValueError, match="`rope_scaling_short_factor` and .* Received: 'su'"):
        nextword.models.Phi3Backbone(**sizes, rope_scaling_type="su")
    with pytest.raises(ValueError, match=r"router_jitter_noise=0\.1"):
        nextword.models.MixtralBackbone(**sizes, num_experts=2, router_jitter_noise=0.1)
