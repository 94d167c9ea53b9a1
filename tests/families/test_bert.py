"""BERT computes what transformers computes, from every kind of checkpoint there is of it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

import nextword
from nextword.presets import PresetError
from tiny_bert import VOCABULARY, checkpoint, inputs


def expected(model: Any, x: dict[str, np.ndarray]) -> Any:
    with torch.no_grad():
        return model(
            torch.tensor(x["token_ids"]),
            token_type_ids=torch.tensor(x["segment_ids"]),
            attention_mask=torch.tensor(x["padding_mask"]),
        )


def assert_close(ours: Any, theirs: Any, mask: Any = 1) -> None:
    assert np.abs(theirs.numpy()).max() > 0.1  # the comparison says something
    np.testing.assert_allclose(np.asarray(ours) * mask, theirs.numpy() * mask, rtol=0, atol=1e-4)


def assert_same_outputs(backbone: Any, model: Any) -> None:
    x = inputs()
    ours, theirs = backbone(x), expected(model, x)
    assert set(ours) == {"sequence_output", "pooled_output"}
    # What a token that is padding says, nobody listens to.
    assert_close(
        ours["sequence_output"], theirs.last_hidden_state, x["padding_mask"][:, :, np.newaxis]
    )
    assert_close(ours["pooled_output"], theirs.pooler_output)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    directory = tmp_path_factory.mktemp("classifier")
    theirs = checkpoint(directory)
    return theirs, nextword.models.TextClassifier.from_preset(directory), directory


def test_a_classifier(pair: Any) -> None:
    theirs, ours, _ = pair
    x = inputs()
    assert type(ours) is nextword.models.BertTextClassifier
    assert_close(ours(x), expected(theirs, x).logits)
    assert_same_outputs(ours.backbone, theirs.bert)


def test_padding_and_other_rows_change_nothing(pair: Any) -> None:
    _, ours, _ = pair
    x = inputs()
    changed = {name: array.copy() for name, array in x.items()}
    changed["token_ids"][x["padding_mask"] == 0] = 5
    changed["segment_ids"][x["padding_mask"] == 0] = 0
    changed["token_ids"][0] = 7
    one, other = np.asarray(ours(x)), np.asarray(ours(changed))
    np.testing.assert_allclose(other[1:], one[1:], rtol=0, atol=1e-5)
    assert np.abs(other[0] - one[0]).max() > 1e-3


def test_every_token_sees_those_behind_it(pair: Any) -> None:
    _, ours, _ = pair
    x = inputs(rows=1)
    changed = x | {"token_ids": x["token_ids"].copy()}
    changed["token_ids"][0, -1] += 1
    one = np.asarray(ours.backbone(x)["sequence_output"])
    other = np.asarray(ours.backbone(changed)["sequence_output"])
    assert (np.abs(one - other).max(-1) > 1e-3).all()


def test_predictions_on_texts_and_pairs(pair: Any) -> None:
    theirs, ours, directory = pair
    tokenizer = transformers.BertTokenizer.from_pretrained(directory)
    first, second = ["What a good film!", "The fox"], ["a bad film", "jumped, a CAFÉ."]
    for texts, arguments in ((first, (first,)), ((first, second), (first, second))):
        x = tokenizer(*arguments, padding="max_length", max_length=16, return_tensors="pt")
        with torch.no_grad():
            logits = theirs(**x).logits
        ours.preprocessor.sequence_length = 16
        assert_close(ours.predict(texts, verbose=0), logits)


def test_a_bare_model(tmp_path: Path) -> None:
    theirs = checkpoint(tmp_path, transformers.BertModel)
    assert_same_outputs(nextword.models.Backbone.from_preset(tmp_path), theirs)
    with pytest.raises(PresetError, match="no head of a BertTextClassifier. Pass `num_classes`"):
        nextword.models.TextClassifier.from_preset(tmp_path)
    classifier = nextword.models.TextClassifier.from_preset(tmp_path, num_classes=3)
    assert_same_outputs(classifier.backbone, theirs)
    assert classifier(inputs()).shape == (3, 3)


@pytest.mark.parametrize(
    "model_class", [transformers.BertForPreTraining, transformers.BertForNextSentencePrediction]
)
def test_other_heads_are_left_out(tmp_path: Path, model_class: Any) -> None:
    theirs = checkpoint(tmp_path, model_class)
    assert_same_outputs(nextword.models.BertBackbone.from_preset(tmp_path), theirs.bert)
    with pytest.raises(PresetError, match="no head of a BertTextClassifier"):
        nextword.models.TextClassifier.from_preset(tmp_path)


def test_a_model_without_a_pooler_is_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path, transformers.BertForMaskedLM)
    with pytest.raises(PresetError, match=r"lacks the tensors 'bert.pooler.dense.bias'"):
        nextword.models.TextClassifier.from_preset(tmp_path, num_classes=2)


def test_names_from_the_time_of_tensorflow(tmp_path: Path) -> None:
    theirs = checkpoint(tmp_path)
    path = tmp_path / "model.safetensors"
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = {}
    for name, tensor in load_file(path).items():
        for new, renamed in old.items():
            name = name.replace(new, renamed)
        tensors[name] = tensor
    tensors["bert.embeddings.position_ids"] = np.arange(64, dtype="float32")[np.newaxis]
    save_file(tensors, path)
    backbone = nextword.models.Backbone.from_preset(tmp_path)
    assert_same_outputs(backbone, theirs.bert)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"hidden_act": "gelu_new"}, {"activation": "gelu_tanh"}),
        ({"hidden_act": "relu", "layer_norm_eps": 1e-2}, {"activation": "relu"}),
        ({"type_vocab_size": 3}, {"num_segments": 3}),
    ],
)
def test_settings_that_change_the_outputs(tmp_path: Path, changes: Any, found: Any) -> None:
    theirs = checkpoint(tmp_path, **changes)
    backbone = nextword.models.Backbone.from_preset(tmp_path)
    assert backbone.get_config().items() >= found.items()
    assert_same_outputs(backbone, theirs.bert)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_embedding_type": "relative_key"}, "'position_embedding_type'.*'absolute'"),
        ({"is_decoder": True}, "'is_decoder'.*False.*Received: True"),
        ({"hidden_act": "swishy"}, "'hidden_act'.*Received: 'swishy'"),
        ({"attention_window": 5}, "does not know.*attention_window=5"),
        ({"hidden_size": -32}, "'hidden_size'.*Received: -32"),
        ({"num_attention_heads": 5}, "bert.encoder.layer.0.attention"),
        ({"id2label": ["good", "bad"]}, "'id2label'.*must name the classes"),
        ({"id2label": {}}, "'id2label'.*must name the classes"),
        ({"id2label": {"0": "bad", "1": "good"}}, r"'classifier.weight'.*\(2, 32\).*\(5, 32\)"),
        ({"classifier_dropout": 2}, "'classifier_dropout'.*Received: 2"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    checkpoint(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(PresetError, match=message):
        nextword.models.TextClassifier.from_preset(tmp_path, preprocessor=None)


def test_what_a_configuration_from_2019_says(tmp_path: Path) -> None:
    theirs = checkpoint(tmp_path)
    path = tmp_path / "config.json"
    old = {
        "attention_probs_dropout_prob": 0.1,
        "directionality": "bidi",
        "finetuning_task": "mnli",
        "num_labels": 5,
        "pooler_fc_size": 768,
        "pooler_num_attention_heads": 12,
        "pooler_num_fc_layers": 3,
        "pooler_size_per_head": 128,
        "pooler_type": "first_token_transform",
        "position_embedding_type": None,
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | old))
    ours = nextword.models.TextClassifier.from_preset(tmp_path)
    assert_close(ours(inputs()), expected(theirs, inputs()).logits)


def test_weights_can_be_left_out(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    ours = nextword.models.TextClassifier.from_preset(tmp_path, load_weights=False)
    assert (ours.num_classes, ours.backbone.config.num_layers) == (5, 3)


def test_the_tokenizer_of_a_tokenizer_json(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").unlink(missing_ok=True)
    ours = nextword.models.TextClassifierPreprocessor.from_preset(tmp_path, sequence_length=16)
    x = ours((["What a film!", ""], ["the fox", "jumped"]))
    both = theirs(["What a film!", ""], ["the fox", "jumped"], padding="max_length", max_length=16)
    assert x["token_ids"].tolist() == both["input_ids"]
    assert x["segment_ids"].tolist() == both["token_type_ids"]
    assert x["padding_mask"].astype(int).tolist() == both["attention_mask"]
    assert ours.tokenizer.vocabulary_size() == len(VOCABULARY)
