"""`generate` takes prompts in every container, leaves them as they were, and heeds the settings."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nextword
from nextword.tokenizers import load_tokenizer
from trained_tokenizers import CHAT_ML, byte_level_library, checkpoint, save

PROMPTS = ["the quick brown", "hello", "a lazy dog"]
LENGTH = 24


class DatasetV2:
    """Stands in for a `tf.data.Dataset`; see `training/test_data_sources.py`."""

    __module__ = "tensorflow.python.data.ops.dataset_ops"

    def as_numpy_iterator(self) -> Iterator[np.ndarray]:
        yield np.array([prompt.encode() for prompt in PROMPTS[:2]], dtype=object)
        yield np.array([prompt.encode() for prompt in PROMPTS[2:]], dtype=object)


CONTAINERS: dict[str, Any] = {
    "list": PROMPTS,
    "tuple": tuple(PROMPTS),
    "array of strings": np.array(PROMPTS),
    "array of objects": np.array(PROMPTS, dtype=object),
    "array of bytes": np.array([prompt.encode() for prompt in PROMPTS]),
    "dataset": DatasetV2(),
}


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    save(
        byte_level_library("gpt-2", PROMPTS, size=280),
        directory,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_ML,
    )
    tokenizer = load_tokenizer(checkpoint(directory))
    keras.utils.set_random_seed(5)
    backbone = nextword.models.GPT2Backbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=16,
        max_sequence_length=64,
    )
    preprocessor = nextword.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=LENGTH)
    lm = nextword.models.GPT2CausalLM(backbone, preprocessor)
    lm.compile(sampler="greedy")
    return lm


@pytest.fixture
def preprocessor(lm: Any) -> Iterator[Any]:
    """The preprocessor, with the settings that it has in every test."""
    yield lm.preprocessor
    lm.preprocessor.sequence_length = LENGTH
    lm.preprocessor.add_start_token = lm.preprocessor.add_end_token = True


def greedy(lm: Any, token_ids: list[int], length: int) -> list[int]:
    """Continue token ids with nothing but the model's own logits."""
    token_ids = list(token_ids)
    while len(token_ids) < length:
        padded = np.array([token_ids + [0] * (LENGTH - len(token_ids))])  # one shape for all
        padding_mask = np.arange(LENGTH)[None] < len(token_ids)
        logits = np.asarray(lm({"token_ids": padded, "padding_mask": padding_mask}))
        token_ids.append(int(logits[0, len(token_ids) - 1].argmax()))
    return token_ids


@pytest.mark.parametrize("kind", CONTAINERS)
def test_containers(lm: Any, kind: str) -> None:
    expected = [lm.generate(prompt, stop_token_ids=None) for prompt in PROMPTS]
    assert all(text.startswith(prompt) for text, prompt in zip(expected, PROMPTS, strict=True))
    assert lm.generate(CONTAINERS[kind], stop_token_ids=None) == expected


def test_token_ids(lm: Any, preprocessor: Any) -> None:
    inputs = preprocessor.generate_preprocess(PROMPTS)
    bare = nextword.models.GPT2CausalLM(lm.backbone)
    bare.compile(sampler="greedy")
    outputs = bare.generate(inputs, stop_token_ids=None)
    assert preprocessor.generate_postprocess(outputs) == lm.generate(PROMPTS, stop_token_ids=None)


def test_nothing_that_is_handed_in_is_changed(lm: Any, preprocessor: Any) -> None:
    inputs = preprocessor.generate_preprocess(PROMPTS)
    bare = nextword.models.GPT2CausalLM(lm.backbone)
    stop_token_ids, stop = [3, 4], ["x"]
    messages = [{"role": "user", "content": "hello"}]
    texts = np.array(PROMPTS, dtype=object)
    handed_in = (inputs, stop_token_ids, stop, messages, texts)
    before = copy.deepcopy(handed_in)

    bare.generate(inputs, stop_token_ids=stop_token_ids)
    lm.generate(texts, stop_token_ids=stop_token_ids, stop=stop)
    lm.chat(messages, stop_token_ids=stop_token_ids, stop=stop, max_new_tokens=2)
    samples = preprocessor(PROMPTS)
    kept = copy.deepcopy(samples)
    bare.fit(*samples[:2], sample_weight=samples[2], verbose=0)

    keras.tree.map_structure(np.testing.assert_array_equal, handed_in[0], before[0])
    assert handed_in[1:4] == before[1:4]
    assert texts.tolist() == PROMPTS
    keras.tree.map_structure(np.testing.assert_array_equal, samples, kept)


@pytest.mark.parametrize("add_end_token", [True, False])
@pytest.mark.parametrize("add_start_token", [True, False])
def test_start_and_end_tokens(
    lm: Any, preprocessor: Any, add_start_token: bool, add_end_token: bool
) -> None:
    preprocessor.add_start_token, preprocessor.add_end_token = add_start_token, add_end_token
    tokenizer = preprocessor.tokenizer
    ids = tokenizer.tokenize(PROMPTS[1])
    prompt = [tokenizer.start_token_id] * add_start_token + ids
    # A prompt goes on: it has no end token, whatever a sample has.
    expected = greedy(lm, prompt, len(prompt) + 6)
    text = lm.generate(PROMPTS[1], max_new_tokens=6, stop_token_ids=None)
    assert text == tokenizer.detokenize(expected)
    sample = preprocessor([PROMPTS[1]])[0]
    found = sample["token_ids"][sample["padding_mask"]].tolist()
    assert found == prompt + [tokenizer.end_token_id] * add_end_token


def test_sequence_length_can_be_set_at_any_time(lm: Any, preprocessor: Any) -> None:
    start = preprocessor.tokenize_prompts(["hello"])[0]
    for length in (10, 16, 10):
        preprocessor.sequence_length = length
        expected = greedy(lm, start, length)
        text = lm.generate("hello", stop_token_ids=None)
        assert text == preprocessor.tokenizer.detokenize(expected)
        assert lm.predict(["hello"], verbose=0).shape[1] == length
