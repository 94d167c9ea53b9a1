"""Classifiers written for transformers say there what they say here."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
    pipeline,
)

import nextword
from nextword.models import TextClassifier
from nextword.presets import PresetError
from tiny_bert import LENGTH, SIZES, TEXTS, VOCABULARY, checkpoint, classifier, inputs

PAIRS = (["What a good film!", ""], ["a bad fox", "The quick café"])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model = classifier(dropout=0.25)
    directory = tmp_path_factory.mktemp("exported") / "model"
    model.export_to_transformers(directory)
    return model, directory


def read(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return found


def tensor_names(directory: Path) -> set[str]:
    with safe_open(directory / "model.safetensors", "np") as file:
        return set(file.keys())


@pytest.mark.parametrize("parts", [(TEXTS,), PAIRS])
def test_transformers_classifies_texts_and_pairs_as_we_do(exported: Any, parts: Any) -> None:
    ours, directory = exported
    tokenizer = AutoTokenizer.from_pretrained(directory)
    x = tokenizer(*parts, padding="max_length", max_length=LENGTH, return_tensors="pt")
    packed = ours.preprocessor(parts)
    assert x["input_ids"].tolist() == packed["token_ids"].tolist()
    assert x["token_type_ids"].tolist() == packed["segment_ids"].tolist()
    assert x["attention_mask"].tolist() == packed["padding_mask"].astype(int).tolist()
    theirs = AutoModelForSequenceClassification.from_pretrained(directory).eval()
    with torch.no_grad():
        logits = theirs(**x).logits.numpy()
    assert np.abs(logits).max() > 0.5  # the comparison says something
    np.testing.assert_allclose(np.asarray(ours(packed)), logits, rtol=0, atol=1e-4)


def test_what_is_written(exported: Any) -> None:
    _, directory = exported
    assert sorted(path.name for path in directory.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    expected = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "classifier_dropout": 0.25,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
        "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
        "pad_token_id": VOCABULARY.index("[PAD]"),
    }
    assert read(directory).items() >= expected.items()


def test_nextword_reads_it_again(exported: Any) -> None:
    ours, directory = exported
    again = TextClassifier.from_preset(directory, sequence_length=LENGTH)
    assert type(again) is nextword.models.BertTextClassifier
    assert (again.num_classes, again.dropout) == (3, 0.25)
    np.testing.assert_array_equal(
        again.predict(PAIRS, verbose=0, batch_size=4), ours.predict(PAIRS, verbose=0, batch_size=4)
    )


def test_a_checkpoint_of_transformers_comes_back_as_it_was(tmp_path: Path) -> None:
    theirs = checkpoint(tmp_path / "theirs")
    TextClassifier.from_preset(tmp_path / "theirs").export_to_transformers(tmp_path / "ours")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ours")
    state, expected = again.state_dict(), theirs.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert tensor_names(tmp_path / "ours") == tensor_names(tmp_path / "theirs")


def test_a_backbone_and_a_tokenizer_one_by_one(exported: Any, tmp_path: Path) -> None:
    model, _ = exported
    model.backbone.export_to_transformers(tmp_path)
    model.preprocessor.export_to_transformers(tmp_path)
    assert read(tmp_path)["architectures"] == ["BertModel"]
    BertModel(AutoModel.from_pretrained(tmp_path).config).save_pretrained(tmp_path / "theirs")
    assert tensor_names(tmp_path) == tensor_names(tmp_path / "theirs")
    x = inputs(length=LENGTH)
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(tmp_path).eval()(
            torch.tensor(x["token_ids"]),
            token_type_ids=torch.tensor(x["segment_ids"]),
            attention_mask=torch.tensor(x["padding_mask"]),
        )
    pooled = np.asarray(model.backbone(x)["pooled_output"])
    np.testing.assert_allclose(pooled, theirs.pooler_output.numpy(), rtol=0, atol=1e-4)
    ids = AutoTokenizer.from_pretrained(tmp_path)(*PAIRS)["input_ids"]
    packed = model.preprocessor(PAIRS)
    assert ids == [
        row[mask].tolist()
        for row, mask in zip(packed["token_ids"], packed["padding_mask"], strict=True)
    ]


def test_pipelines_apply_softmax(tmp_path: Path) -> None:
    model = classifier(activation="softmax")
    model.export_to_transformers(tmp_path)
    found = pipeline("text-classification", str(tmp_path), top_k=None)(TEXTS[:2])
    scores = [[row[f"LABEL_{i}"] for i in range(3)] for row in map(_by_label, found)]
    np.testing.assert_allclose(scores, model.predict(TEXTS[:2], verbose=0), rtol=0, atol=1e-4)


def _by_label(scores: list[dict[str, Any]]) -> dict[str, float]:
    return {each["label"]: each["score"] for each in scores}


def test_other_activations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PresetError, match="no `activation` .* but softmax.* activation='tanh'"):
        classifier(activation="tanh").export_to_transformers(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_decoders_are_no_classifiers() -> None:
    with pytest.raises(ValueError, match="`backbone` must have a pooler.* Received: a GPT2Backb"):
        TextClassifier(nextword.models.GPT2Backbone(**SIZES), num_classes=2)


def test_other_dtypes_and_what_lora_has_trained(tmp_path: Path) -> None:
    model = classifier(dtype="bfloat16")
    model.backbone.enable_lora(2, ["query"])
    for weight in model.backbone.trainable_weights:
        weight.assign(keras.random.normal(weight.shape, seed=0) * 0.3)
    model.export_to_transformers(tmp_path)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert theirs.dtype == torch.bfloat16
    query = model.backbone.transformer_layers[0].self_attention.query.matrices[0]
    np.testing.assert_allclose(
        theirs.bert.encoder.layer[0].attention.self.query.weight.float().detach().numpy(),
        np.asarray(query.dense()).astype("float32"),
        rtol=0.01,
    )
    kernel = keras.ops.convert_to_numpy(model.get_layer("logits").weights[0])
    np.testing.assert_array_equal(
        theirs.classifier.weight.float().detach().numpy(), np.asarray(kernel).astype("float32")
    )
