"""Beam, contrastive and speculative sampling as users meet them: texts in, texts out."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

import nextword
from nextword import samplers
from nextword.samplers import BeamSampler, ContrastiveSampler, SpeculativeSampler

PROMPTS = ["The sky is", "Once upon a time there was a"]
LIMITS = {"max_new_tokens": 6, "stop_token_ids": None}


def tiny_lm(smollm2: Any, seed: int) -> Any:
    """A random model with the vocabulary and preprocessor of a real one."""
    keras.utils.set_random_seed(seed)
    backbone = nextword.models.LlamaBackbone(
        vocabulary_size=smollm2.backbone.config.vocabulary_size,
        num_layers=1,
        num_query_heads=2,
        hidden_dim=16,
        intermediate_dim=16,
        num_key_value_heads=1,
    )
    for weight in backbone.weights:
        if weight.path.endswith("kernel") or "embed" in weight.path:
            weight.assign(weight * 20)
    return nextword.models.LlamaCausalLM(backbone, smollm2.preprocessor)


@pytest.fixture(scope="module")
def lm(smollm2: Any) -> Any:
    return tiny_lm(smollm2, seed=0)


@pytest.fixture(scope="module")
def draft(smollm2: Any) -> Any:
    return tiny_lm(smollm2, seed=1)


def ids_inputs(lm: Any, prompts: list[str]) -> dict[str, np.ndarray]:
    rows = lm.preprocessor.tokenize_prompts(prompts)
    token_ids, padding_mask = nextword.preprocessing.pad(rows, max(map(len, rows)), 0)
    return {"token_ids": token_ids, "padding_mask": padding_mask}


class DatasetV2:
    """Stands in for a `tf.data.Dataset`, see `test_smollm2.py`."""

    __module__ = "tensorflow.python.data.ops.dataset_ops"

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def as_numpy_iterator(self) -> Iterator[Any]:
        return iter(self.batches)


def test_all_beams_of_texts(lm: Any) -> None:
    lm.compile(sampler=BeamSampler(3, return_all_beams=True))
    together = lm.generate(PROMPTS, **LIMITS)
    assert [len(set(texts)) for texts in together] == [3, 3]
    for prompt, texts in zip(PROMPTS, together, strict=True):
        assert all(text.startswith(prompt) for text in texts)
        assert lm.generate(prompt, **LIMITS) == texts
        stripped = lm.generate(prompt, strip_prompt=True, **LIMITS)
        assert stripped == [text.removeprefix(prompt) for text in texts]
    assert lm.generate(np.array(PROMPTS), **LIMITS) == together
    batches = DatasetV2([np.array([prompt.encode()], object) for prompt in PROMPTS])
    assert lm.generate(batches, **LIMITS) == together
    lm.compile(sampler=BeamSampler(3))
    assert lm.generate(PROMPTS, **LIMITS) == [texts[0] for texts in together]


def test_all_beams_of_token_ids(lm: Any) -> None:
    ids_lm = nextword.models.LlamaCausalLM(lm.backbone)
    lm.compile(sampler=BeamSampler(3, return_all_beams=True))
    ids_lm.compile(sampler=lm.sampler)
    inputs = ids_inputs(lm, PROMPTS)
    outputs = ids_lm.generate(inputs, **LIMITS)
    width = inputs["token_ids"].shape[1] + 6
    assert outputs["token_ids"].shape == outputs["padding_mask"].shape == (2, 3, width)
    texts = [
        [lm.preprocessor.tokenizer.detokenize(ids[mask]) for ids, mask in zip(*rows, strict=True)]
        for rows in zip(outputs["token_ids"], outputs["padding_mask"], strict=True)
    ]
    assert texts == lm.generate(PROMPTS, **LIMITS)
    batches = DatasetV2([{name: rows[:1] for name, rows in inputs.items()}, inputs])
    joined = ids_lm.generate(batches, **LIMITS)
    np.testing.assert_array_equal(joined["token_ids"][1:], outputs["token_ids"])
    np.testing.assert_array_equal(joined["padding_mask"][1:], outputs["padding_mask"])


def test_beams_and_stop_strings(lm: Any) -> None:
    lm.compile(sampler=BeamSampler(3, return_all_beams=True))
    whole = lm.generate(PROMPTS[0], strip_prompt=True, **LIMITS)
    stop = whole[1][2:5]
    cut = lm.generate(PROMPTS[0], strip_prompt=True, stop=stop, **LIMITS)
    assert cut == [text.partition(stop)[0] for text in whole]


@pytest.mark.parametrize("return_all_beams", [False, True])
def test_a_stream_of_beam_search_yields_the_best_text(lm: Any, return_all_beams: bool) -> None:
    lm.compile(sampler=BeamSampler(3, return_all_beams))
    best = lm.generate(PROMPTS[0], strip_prompt=True, **LIMITS)
    best = best[0] if return_all_beams else best
    stream = lm.stream(PROMPTS[0], **LIMITS)
    assert "".join(stream) == stream.text == best
    assert stream.finish_reason == "length"


def test_contrastive_search_streams(lm: Any) -> None:
    lm.compile(sampler="contrastive")
    assert isinstance(lm.sampler, ContrastiveSampler)
    texts = lm.generate(PROMPTS, strip_prompt=True, **LIMITS)
    for prompt, text in zip(PROMPTS, texts, strict=True):
        pieces = list(lm.stream(prompt, **LIMITS))
        assert "".join(pieces) == text
        assert len(pieces) > 1
    lm.compile(sampler="greedy")
    assert lm.generate(PROMPTS, strip_prompt=True, **LIMITS) != texts


def test_an_assistant_changes_no_greedy_text(lm: Any, draft: Any) -> None:
    lm.compile(sampler="greedy")
    plain = lm.generate(PROMPTS, max_new_tokens=12)
    assert lm.generate(PROMPTS, max_new_tokens=12, assistant_model=draft) == plain
    stream = lm.stream(PROMPTS[0], max_new_tokens=12, assistant_model=draft)
    assert PROMPTS[0] + "".join(stream) == plain[0]
    assert stream.statistics.drafted_tokens > 0
    lm.compile(sampler="speculative")
    assert lm.generate(PROMPTS, max_new_tokens=12, assistant_model=draft) == plain
    batches = DatasetV2([np.array([prompt.encode()], object) for prompt in PROMPTS])
    assert lm.generate(batches, max_new_tokens=12, assistant_model=draft) == plain


def test_an_assistant_keeps_a_seed_s_text_in_any_batch(lm: Any, draft: Any) -> None:
    lm.compile(sampler=SpeculativeSampler(3, samplers.TopKSampler(k=20, seed=7)))
    together = lm.generate(PROMPTS, assistant_model=draft, **LIMITS)
    alone = [lm.generate(prompt, assistant_model=draft, **LIMITS) for prompt in PROMPTS]
    assert together == alone


def test_a_model_is_its_own_assistant_in_a_chat(smollm2: Any) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    plain = smollm2.chat(messages, max_new_tokens=24)
    stream = smollm2.chat(messages, stream=True, max_new_tokens=24, assistant_model=smollm2)
    assert "".join(stream) == plain
    assert stream.statistics.acceptance_rate == 1


def test_what_an_assistant_must_be(lm: Any, draft: Any) -> None:
    lm.compile(sampler="speculative")
    for method in (lm.generate, lm.stream):
        with pytest.raises(ValueError, match="Pass a small one .* as `assistant_model`"):
            method(PROMPTS[0])
    with pytest.raises(TypeError, match="must be a `CausalLM`.*type LlamaBackbone"):
        lm.generate(PROMPTS, assistant_model=draft.backbone)
    other = nextword.models.LlamaBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_query_heads=2,
        hidden_dim=8,
        intermediate_dim=8,
        num_key_value_heads=1,
    )
    with pytest.raises(ValueError, match="which has 49152 tokens. Received: a model with 20"):
        lm.generate(PROMPTS, assistant_model=nextword.models.LlamaCausalLM(other))
    for sampler in ("beam", "contrastive"):
        lm.compile(sampler=sampler)
        with pytest.raises(ValueError, match="`assistant_model` has no use with the sampler"):
            lm.generate(PROMPTS, assistant_model=draft)

    class Mine(samplers.Sampler):
        def get_next_token(self, probabilities: Any) -> Any:
            return super().get_next_token(probabilities)

    lm.compile(sampler=Mine())
    with pytest.raises(TypeError, match="nor on a sampler that overrides `get_next_token`"):
        lm.generate(PROMPTS, assistant_model=draft)
    assert lm.generate(PROMPTS, max_new_tokens=1)


@pytest.mark.parametrize("name", ["beam", "contrastive", "speculative", "greedy"])
def test_compile_takes_names_classes_and_configurations(lm: Any, name: str) -> None:
    sampler = samplers.get(name)
    for given in (name, type(sampler), samplers.serialize(sampler), sampler):
        lm.compile(sampler=given)
        assert lm.sampler.get_config() == sampler.get_config()
    restored = samplers.get(lm.get_compile_config()["sampler"])
    assert restored.get_config() == sampler.get_config()
