"""The default preset against a float32 numpy pass over the same file, and against llama.cpp."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nextword

REFERENCE = json.loads(
    (Path(__file__).parent.parent / "data" / "smollm2_reference.json").read_text()
)
CASES = REFERENCE["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"][:20])
def test_logits_of_the_next_token(smollm2_in_floats: Any, case: dict[str, Any]) -> None:
    token_ids = np.array([case["prompt_ids"]])
    assert smollm2_in_floats.preprocessor.tokenize_prompts([case["prompt"]]) == token_ids.tolist()
    logits = smollm2_in_floats({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    logits = keras.ops.convert_to_numpy(logits)[0, -1]
    expected_ids = case["next_token_top10_ids"]
    assert np.argsort(-logits)[:5].tolist() == expected_ids[:5]
    tolerance = {"rtol": 0, "atol": 2e-3}
    np.testing.assert_allclose(logits[expected_ids], case["next_token_top10_logits"], **tolerance)
    np.testing.assert_allclose(logits[:16], case["next_token_logits_first16"], **tolerance)
    np.testing.assert_allclose(logits.mean(), case["next_token_logits_mean"], **tolerance)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["prompt"][:20])
def test_log_probabilities_of_a_continuation(smollm2_in_floats: Any, case: dict[str, Any]) -> None:
    continuation = case["llama_cpp_greedy_ids"]
    start = len(case["prompt_ids"])
    token_ids = np.array([case["prompt_ids"] + continuation])
    logits = smollm2_in_floats({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    logits = keras.ops.convert_to_numpy(logits)[0, start - 1 : -1].astype("float64")
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(
        log_probabilities[np.arange(len(continuation)), continuation],
        case["numpy_fp32_logprobs_of_those"],
        rtol=0,
        atol=2e-3,
    )
    assert logits.argmax(-1).tolist() == case["numpy_argmax"]


def test_the_default_preset_is_listed(smollm2: Any) -> None:
    for cls in (nextword.models.CausalLM, type(smollm2)):
        listed = cls.presets[nextword.presets.DEFAULT_PRESET]
        assert listed["metadata"]["params"] == smollm2.count_params()
        assert listed["metadata"]["description"]
    assert nextword.presets.DEFAULT_PRESET not in nextword.models.GPT2CausalLM.presets


def test_generate_streams_what_it_returns(smollm2: Any) -> None:
    prompt = "Emoji: 🙂 naïve 日本語. The capital of France is"
    text = smollm2.generate(prompt, max_new_tokens=24)
    pieces = list(smollm2.stream(prompt, max_new_tokens=24))
    assert text == prompt + "".join(pieces)
    assert smollm2.generate(prompt, max_new_tokens=24, strip_prompt=True) == "".join(pieces)
    assert "Paris" in text


def test_chat_answers_and_stops(smollm2: Any) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    stream = smollm2.chat(messages, stream=True, max_new_tokens=64)
    answer = "".join(stream)
    assert "Paris" in answer
    assert stream.finish_reason == "stop"
    assert "<|im_end|>" not in answer
    assert answer == smollm2.chat(messages, max_new_tokens=64)
    assert stream.statistics.generated_tokens > 3
    assert stream.statistics.prompt_tokens > 10


def test_a_batch_of_texts(smollm2: Any) -> None:
    prompts = ["The sky is", "Once upon a time there was a", "1, 2, 3, 4,"]
    together = smollm2.generate(prompts, max_new_tokens=12)
    assert together == [smollm2.generate(prompt, max_new_tokens=12) for prompt in prompts]
    assert smollm2.generate(np.array(prompts), max_new_tokens=12) == together
    assert smollm2.generate(tuple(prompts), max_new_tokens=12) == together


def test_stop_strings_end_the_text_before_them(smollm2: Any) -> None:
    whole = smollm2.generate("1, 2, 3, 4,", max_new_tokens=24, strip_prompt=True)
    stop = whole[10:14]
    for batch in ("1, 2, 3, 4,", ["1, 2, 3, 4,"] * 2):
        stopped = smollm2.generate(batch, max_new_tokens=24, strip_prompt=True, stop=stop)
        expected = whole[: whole.index(stop)]
        assert stopped == (expected if isinstance(batch, str) else [expected] * 2)
    stream = smollm2.stream("1, 2, 3, 4,", max_new_tokens=24, stop=["nowhere", stop])
    assert "".join(stream) == whole[: whole.index(stop)]
    assert stream.finish_reason == "stop"


def test_closing_a_stream_cancels_it(smollm2: Any) -> None:
    with smollm2.stream("Once upon a time", max_new_tokens=200) as stream:
        first = next(stream)
    assert stream.text == first
    assert stream.finish_reason == "cancelled"
    assert list(stream) == []


def test_max_length_counts_the_prompt(smollm2: Any) -> None:
    prompt = "Once upon a time"
    length = len(smollm2.preprocessor.tokenize_prompts([prompt])[0])
    stream = smollm2.stream(prompt, max_length=length + 3, stop_token_ids=None)
    list(stream)
    assert stream.statistics.generated_tokens == 3
    assert stream.finish_reason == "length"


class DatasetV2:
    """Stands in for a `tf.data.Dataset`: TensorFlow is not installed where the tests run.

    Its documentation says of `as_numpy_iterator` that string tensors become arrays of bytes.
    """

    __module__ = "tensorflow.python.data.ops.dataset_ops"

    def as_numpy_iterator(self) -> Iterator[np.ndarray]:
        yield np.array([b"The sky is", b"1, 2, 3,"], dtype=object)
        yield np.array([b"Once upon a time"], dtype=object)


def test_a_dataset_is_taken_batch_by_batch(smollm2: Any) -> None:
    texts = smollm2.generate(DatasetV2(), max_new_tokens=4)
    prompts = ["The sky is", "1, 2, 3,", "Once upon a time"]
    assert texts == [smollm2.generate(prompt, max_new_tokens=4) for prompt in prompts]
