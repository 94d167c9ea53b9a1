"""The examples of KerasHub's page on `CausalLM` run with `import nextword as keras_hub`.

Each preset of the page is a tiny random model that KerasHub saved, served under its real handle to
Kaggle's real client.
"""

import inspect
import io
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import sentencepiece

import nextword as keras_hub
from hub_server import HubServer

theirs = pytest.importorskip("keras_hub")

PROMPT = "Keras is a"
TEXTS = ["Keras is a deep learning API", "a model is a tool for humans, not machines"]
SIZES = {"num_layers": 2, "hidden_dim": 16, "intermediate_dim": 24}
GROUPED = SIZES | {"num_query_heads": 4, "num_key_value_heads": 2}


def sentence_piece(**settings: Any) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=60,
        model_type="bpe",
        minloglevel=2,
        **settings,
    )
    return model.getvalue()


def gpt2() -> Any:
    # All of it is ASCII, so that any sequence of it is valid UTF-8.
    vocabulary = [*string.ascii_letters, *string.punctuation, "Ġ", "is", "<|endoftext|>"]
    models = theirs.models
    tokenizer = models.GPT2Tokenizer(
        vocabulary={token: id for id, token in enumerate(vocabulary)}, merges=["i s"]
    )
    backbone = models.GPT2Backbone(
        vocabulary_size=len(vocabulary), num_heads=2, max_sequence_length=64, **SIZES
    )
    return models.GPT2CausalLM(
        backbone, models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=64)
    )


def mistral() -> Any:
    models = theirs.models
    tokenizer = models.MistralTokenizer(proto=sentence_piece())
    backbone = models.MistralBackbone(vocabulary_size=60, sliding_window=32, **GROUPED)
    return models.MistralCausalLM(
        backbone, models.MistralCausalLMPreprocessor(tokenizer, sequence_length=64)
    )


def gemma() -> Any:
    models = theirs.models
    pieces = {"pad_piece": "<pad>", "eos_piece": "<eos>", "bos_piece": "<bos>"}
    ids = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3}
    tokenizer = models.GemmaTokenizer(proto=sentence_piece(**pieces, **ids))
    backbone = models.GemmaBackbone(vocabulary_size=60, head_dim=8, **GROUPED)
    return models.GemmaCausalLM(
        backbone, models.GemmaCausalLMPreprocessor(tokenizer, sequence_length=64)
    )


def bert() -> Any:
    models = theirs.models
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = [*special, *sorted({word for text in TEXTS for word in text.split()})]
    tokenizer = models.BertTokenizer(vocabulary=vocabulary)
    backbone = models.BertBackbone(
        vocabulary_size=len(vocabulary), num_heads=2, max_sequence_length=64, **SIZES
    )
    return models.BertTextClassifier(
        backbone,
        num_classes=3,
        preprocessor=models.BertTextClassifierPreprocessor(tokenizer, sequence_length=64),
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that returns the directory of a preset of the page."""
    makers = {
        "gpt2_base_en": gpt2,
        "mistral_instruct_7b_en": mistral,
        "gemma_2b_en": gemma,
        "bert_base_en": bert,
    }
    directories: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in directories:
            keras.utils.set_random_seed(0)
            model = makers[name]()
            random = np.random.default_rng(0)
            for weight in model.backbone.weights:
                weight.assign(np.asarray(weight) + random.normal(0, 0.3, weight.shape))
            directories[name] = tmp_path_factory.mktemp(name)
            for part in (model.backbone, model.preprocessor):  # as most presets on Kaggle are
                part.save_to_preset(str(directories[name]))
        return directories[name]

    return make


def assert_continues(text: Any, max_length: int, lm: Any) -> None:
    assert isinstance(text, str)
    assert text.startswith(PROMPT)
    assert len(text) > len(PROMPT)
    assert len(lm.preprocessor.tokenizer.tokenize(text)) <= max_length


def test_gpt2_by_its_name(publish: Any, page: Any) -> None:
    publish(page("gpt2_base_en"), "gpt2_base_en")
    causal_lm = keras_hub.models.CausalLM.from_preset("gpt2_base_en")
    causal_lm.compile(sampler="top_k")
    assert_continues(causal_lm.generate(PROMPT, max_length=64), 64, causal_lm)

    # KerasHub asks the same server for the same model.
    expected = theirs.models.CausalLM.from_preset("gpt2_base_en")
    for lm in (causal_lm, expected):
        lm.compile(sampler="greedy")
    assert causal_lm.generate(PROMPT, max_length=64) == expected.generate(PROMPT, max_length=64)


def test_mistral_in_bfloat16(publish: Any, page: Any) -> None:
    publish(page("mistral_instruct_7b_en"), "mistral_instruct_7b_en")
    causal_lm = keras_hub.models.CausalLM.from_preset("mistral_instruct_7b_en", dtype="bfloat16")
    assert isinstance(causal_lm, keras_hub.models.MistralCausalLM)
    assert {weight.dtype for weight in causal_lm.backbone.weights} == {"bfloat16"}
    causal_lm.compile(sampler="greedy")
    assert_continues(causal_lm.generate(PROMPT, max_length=64), 64, causal_lm)


def test_gemma(publish: Any, page: Any) -> None:
    publish(page("gemma_2b_en"), "gemma_2b_en")
    causal_lm = keras_hub.models.CausalLM.from_preset("gemma_2b_en")
    assert isinstance(causal_lm, keras_hub.models.GemmaCausalLM)
    assert_continues(causal_lm.generate(PROMPT, max_length=64), 64, causal_lm)


def test_bert_to_tell_two_classes_apart(publish: Any, page: Any) -> None:
    publish(page("bert_base_en"), "bert_base_en")
    model = keras_hub.models.TextClassifier.from_preset("bert_base_en", num_classes=2)
    assert isinstance(model, keras_hub.models.BertTextClassifier)
    assert model.predict(TEXTS).shape == (2, 2)
    expected = theirs.models.Backbone.from_preset("bert_base_en")
    inputs = model.preprocessor(TEXTS)
    for name, output in expected(inputs).items():
        np.testing.assert_allclose(model.backbone(inputs)[name], output, atol=1e-5)


def test_names_can_be_listed() -> None:
    names = keras_hub.models.CausalLM.presets.keys()
    assert {"gpt2_base_en", "mistral_instruct_7b_en", "gemma_2b_en"} <= names
    assert "bert_base_en" in keras_hub.models.TextClassifier.presets.keys() - names


def test_save_and_load_a_local_directory(publish: Any, page: Any, tmp_path: Path) -> None:
    publish(page("gpt2_base_en"), "gpt2_base_en")
    causal_lm = keras_hub.models.CausalLM.from_preset("gpt2_base_en")
    causal_lm.save_to_preset(str(tmp_path / "mine"))
    again = keras_hub.models.CausalLM.from_preset(str(tmp_path / "mine"))
    assert isinstance(again, keras_hub.models.GPT2CausalLM)
    assert isinstance(again.backbone, keras_hub.models.GPT2Backbone)
    assert isinstance(again.preprocessor, keras_hub.models.GPT2CausalLMPreprocessor)


def test_the_second_start_needs_no_network(hub: HubServer, publish: Any, page: Any) -> None:
    publish(page("gpt2_base_en"), "gpt2_base_en")
    keras_hub.models.CausalLM.from_preset("gpt2_base_en")
    before = len(hub.requests)
    keras_hub.models.CausalLM.from_preset("gpt2_base_en")
    assert len(hub.requests) == before


@pytest.mark.parametrize("name", ["from_preset", "compile", "generate", "save_to_preset"])
def test_arguments_and_defaults_are_theirs(name: str) -> None:
    ours = inspect.signature(getattr(keras_hub.models.CausalLM, name)).parameters
    expected = inspect.signature(getattr(theirs.models.CausalLM, name)).parameters
    common = {name: p.replace(annotation=p.empty) for name, p in ours.items() if name in expected}
    assert common == expected
    own = [p for name, p in ours.items() if name not in expected]
    assert {p.kind for p in own} <= {inspect.Parameter.KEYWORD_ONLY}
