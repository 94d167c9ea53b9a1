"""What `generate`, `stream` and `from_preset` refuse, and that they say why."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nextword
from nextword.presets import PresetError


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inputs": []}, ValueError, "at least one prompt"),
        ({"inputs": 3}, TypeError, "`inputs` must be a string, or a list.*3 of type int"),
        ({"inputs": ["a", 3]}, TypeError, "`inputs` must be.*3 of type int"),
        ({"inputs": None}, TypeError, "NoneType"),
        ({"inputs": ""}, ValueError, "Prompt 0 is empty"),
        ({"inputs": ["a", ""]}, ValueError, "Prompt 1 is empty"),
        ({"inputs": "a", "max_length": 0}, ValueError, "max_length=0"),
        ({"inputs": "a", "max_length": True}, ValueError, "max_length=True"),
        ({"inputs": "a", "max_length": 8193}, ValueError, "at most 8192.*max_length=8193"),
        ({"inputs": "a", "max_new_tokens": -1}, ValueError, "max_new_tokens=-1"),
        ({"inputs": "a", "max_new_tokens": 2.5}, ValueError, "max_new_tokens=2.5"),
        ({"inputs": "one two three four", "max_length": 2}, ValueError, "leaves no room"),
        ({"inputs": "a " * 9000, "max_new_tokens": 1}, ValueError, "limit of 8192 tokens"),
        ({"inputs": "a", "stop": ""}, ValueError, "none empty"),
        ({"inputs": "a", "stop": [3]}, ValueError, r"stop=\[3\]"),
        ({"inputs": "a", "stop_token_ids": "never"}, ValueError, "stop_token_ids='never'"),
        ({"inputs": "a", "stop_token_ids": [1.5]}, ValueError, r"stop_token_ids=\[1.5\]"),
    ],
)
def test_generate(
    smollm2: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        smollm2.generate(**arguments)


def test_unknown_arguments(smollm2: Any) -> None:
    with pytest.raises(TypeError, match="max_lenght"):
        smollm2.generate("a", max_lenght=3)
    with pytest.raises(TypeError, match="'load_weight'.*Did you mean 'load_weights'"):
        nextword.models.CausalLM.from_preset("anything", load_weight=False)
    with pytest.raises(TypeError, match="'num_layer'.*Did you mean 'num_layers'"):
        nextword.models.LlamaBackbone(8, num_layer=1)


def test_stream_takes_one_text(smollm2: Any) -> None:
    with pytest.raises(TypeError, match="prompt"):
        smollm2.stream(["a", "b"])


@pytest.mark.parametrize("sampler", ["random", "top_k", "top_p", "greedy"])
def test_negative_temperature(sampler: str) -> None:
    classes = {
        "random": nextword.samplers.RandomSampler,
        "top_k": nextword.samplers.TopKSampler,
        "top_p": nextword.samplers.TopPSampler,
        "greedy": nextword.samplers.GreedySampler,
    }
    with pytest.raises(ValueError, match="temperature"):
        classes[sampler](temperature=-1.0)


def test_without_a_preprocessor() -> None:
    backbone = nextword.models.LlamaBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_query_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        num_key_value_heads=1,
    )
    lm = nextword.models.LlamaCausalLM(backbone)
    inputs = {"token_ids": np.array([[1, 2]]), "padding_mask": np.array([[1, 1]])}
    with pytest.raises(ValueError, match="needs a preprocessor"):
        lm.generate(inputs)
    with pytest.raises(ValueError, match="`stream` needs a preprocessor"):
        lm.stream("text")
    with pytest.raises(TypeError, match="Without a preprocessor"):
        lm.generate("text", stop_token_ids=None)
    with pytest.raises(ValueError, match="token id 20"):
        inputs["token_ids"][0, 1] = 20
        lm.generate(inputs, stop_token_ids=None, max_new_tokens=1)


def test_wrong_class(smollm2_path: Path) -> None:
    with pytest.raises(PresetError, match="LlamaCausalLM.*no GPT2CausalLM"):
        nextword.models.GPT2CausalLM.from_preset(smollm2_path)


def test_directory_without_config(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match=r"config\.json"):
        nextword.models.CausalLM.from_preset(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unknown_preset() -> None:
    with pytest.raises(PresetError, match="Did you mean 'smollm2_135m_instruct_en'"):
        nextword.models.CausalLM.from_preset("smollm2_135m_instruct")
