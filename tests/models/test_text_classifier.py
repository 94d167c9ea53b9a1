"""`TextClassifier`: trained, evaluated and asked on text; and kept as Keras keeps models."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import nextword
from tiny_bert import LABELS, LENGTH, SIZES, TEXTS, classifier

PAIRS = (TEXTS, TEXTS[::-1])


@pytest.fixture(scope="module")
def shared() -> Any:
    return classifier()


@pytest.fixture
def model(shared: Any) -> Any:
    """A classifier with the same weights in every test."""
    weights = shared.get_weights()
    yield shared
    shared.set_weights(weights)
    shared.compile()


def logits(model: Any, x: Any) -> np.ndarray:
    """Return what the model says of samples when it is called as any Keras model is."""
    return keras.ops.convert_to_numpy(model(model.preprocessor(x)))


def log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype("float64")
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


@pytest.mark.parametrize("x", [TEXTS, np.array(TEXTS), PAIRS], ids=["list", "array", "pairs"])
def test_predict(model: Any, x: Any) -> None:
    expected = logits(model, x)
    assert expected.shape == (4, 3)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(model.predict(x, batch_size=2, verbose=0), expected, atol=1e-5)
    np.testing.assert_allclose(model.predict_on_batch(x), expected, atol=1e-5)


def test_predict_one_text_and_ready_inputs(model: Any) -> None:
    expected = logits(model, TEXTS[:1])
    np.testing.assert_allclose(model.predict(TEXTS[0], verbose=0), expected, atol=1e-5)
    preprocessor, model.preprocessor = model.preprocessor, None
    found = model.predict(preprocessor(TEXTS[:1]), verbose=0)
    model.preprocessor = preprocessor
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_evaluate_is_the_mean_over_the_samples(model: Any) -> None:
    losses = -log_softmax(logits(model, TEXTS))[range(4), LABELS]
    hits = logits(model, TEXTS).argmax(-1) == LABELS
    loss, accuracy = model.evaluate(TEXTS, LABELS, batch_size=2, verbose=0)
    np.testing.assert_allclose([loss, accuracy], [losses.mean(), hits.mean()], rtol=1e-4)
    weights = np.array([1.0, 0.0, 0.5, 2.0])
    loss, _ = model.evaluate(TEXTS, LABELS, batch_size=4, verbose=0, sample_weight=weights)
    np.testing.assert_allclose(loss, (losses * weights).mean(), rtol=1e-4)
    loss, _ = model.test_on_batch(PAIRS, np.array(LABELS))
    expected = -log_softmax(logits(model, PAIRS))[range(4), LABELS]
    np.testing.assert_allclose(loss, expected.mean(), rtol=1e-4)


def test_fit_learns(model: Any) -> None:
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    history = model.fit(TEXTS, LABELS, batch_size=4, epochs=40, verbose=0)
    assert history.history["loss"][-1] < 0.2 * history.history["loss"][0]
    assert logits(model, TEXTS).argmax(-1).tolist() == LABELS


def test_fit_on_pairs_and_datasets(model: Any) -> None:
    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            part = slice(2 * index, 2 * index + 2)
            return tuple(x[part] for x in PAIRS), np.array(LABELS[part]), np.ones(2)

    start = model.get_weights()
    results = []
    for arguments in (
        {"x": PAIRS, "y": LABELS, "batch_size": 2, "shuffle": False},
        {"x": Batches(), "shuffle": False},
        {"x": iter([Batches()[0], Batches()[1]]), "steps_per_epoch": 2},
    ):
        model.set_weights(start)
        model.compile(optimizer=keras.optimizers.SGD(0.1))
        keras.utils.set_random_seed(0)
        model.fit(**arguments, verbose=0)
        results.append(model.get_weights())
    for other in results[1:]:
        for one, another in zip(results[0], other, strict=True):
            np.testing.assert_allclose(one, another, atol=1e-5)
    assert any((one != another).any() for one, another in zip(results[0], start, strict=True))


def test_validation(model: Any) -> None:
    model.compile(optimizer=keras.optimizers.SGD(0.0))
    for arguments in ({"validation_split": 0.5}, {"validation_data": (TEXTS[2:], LABELS[2:])}):
        history = model.fit(TEXTS, LABELS, batch_size=2, verbose=0, **arguments).history
        losses = -log_softmax(logits(model, TEXTS))[range(4), LABELS]
        np.testing.assert_allclose(history["val_loss"], losses[2:].mean(), rtol=1e-4)


@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch"])
def test_labels_are_needed(model: Any, method: str) -> None:
    with pytest.raises(ValueError, match="`y` must hold the label of each sample"):
        getattr(model, method)(TEXTS)
    assert logits(model, TEXTS).shape == (4, 3)  # the weights are still there


@pytest.mark.parametrize(
    ("y", "received"),
    [([0, 1, 2, 3], "3"), ([0, -1, 1, 1], "-1"), ([0, 0.5, 1, 2], "0.5"), (["a"] * 4, "'a'")],
)
def test_labels_that_are_no_classes(model: Any, y: Any, received: str) -> None:
    with pytest.raises(ValueError, match=f"integers from 0 to 2. Received: {received}."):
        model.train_on_batch(TEXTS, y)


def test_labels_of_other_losses(model: Any) -> None:
    one_hot = np.eye(3)[LABELS]
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True), metrics=None)
    expected = -log_softmax(logits(model, TEXTS))[range(4), LABELS].mean()
    np.testing.assert_allclose(model.test_on_batch(TEXTS, one_hot), expected, rtol=1e-4)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    model.compile(loss=loss, metrics=None)
    assert np.isfinite(model.test_on_batch(TEXTS, np.array([2, -1, 1, 1])))


def test_samples_that_are_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="at most 2 parts.*Received: 3 parts"):
        model.predict((TEXTS, TEXTS, TEXTS), verbose=0)
    with pytest.raises(TypeError, match="is called on token ids, not on text: use `predict`"):
        model(TEXTS)
    model.preprocessor.sequence_length = 17
    with pytest.raises(ValueError, match="samples of 17 tokens, and the model has positions for"):
        model.predict(TEXTS, verbose=0)
    model.preprocessor.sequence_length = LENGTH


def test_defaults_of_compile(model: Any) -> None:
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert float(model.optimizer.learning_rate) == pytest.approx(5e-5)
    assert model.loss.get_config()["from_logits"] is True


def test_softmax() -> None:
    model = classifier(activation="softmax")
    assert model.loss.get_config()["from_logits"] is False
    np.testing.assert_allclose(logits(model, TEXTS).sum(-1), 1, rtol=1e-5)
    plain = classifier()
    np.testing.assert_allclose(
        logits(model, TEXTS), np.exp(log_softmax(logits(plain, TEXTS))), rtol=1e-4
    )
    expected = plain.evaluate(TEXTS, LABELS, verbose=0)
    np.testing.assert_allclose(model.evaluate(TEXTS, LABELS, verbose=0), expected, rtol=1e-3)


def test_dropout_is_for_training_alone() -> None:
    model = classifier(dropout=0.9)
    one = keras.ops.convert_to_numpy(model(model.preprocessor(TEXTS), training=True))
    other = keras.ops.convert_to_numpy(model(model.preprocessor(TEXTS), training=True))
    assert (one != other).any()
    np.testing.assert_array_equal(logits(model, TEXTS), logits(model, TEXTS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "`num_classes` must be an integer from 1"),
        ({"num_classes": 2.0}, "`num_classes` must be an integer from 1.*Received.*2.0"),
        ({"num_classes": 2**40}, "`num_classes` must be an integer from 1"),
        ({"dropout": 1.5}, "rate"),
        ({"activation": "softmacks"}, "softmacks"),
    ],
)
def test_arguments_that_are_refused(arguments: dict[str, Any], message: str) -> None:
    backbone = nextword.models.BertBackbone(**SIZES)
    with pytest.raises(ValueError, match=message):
        nextword.models.BertTextClassifier(backbone, **{"num_classes": 2, **arguments})


def test_backbones_for_the_other_task_are_refused() -> None:
    with pytest.raises(ValueError, match="must have a pooler.*Received: a GPT2Backbone"):
        nextword.models.BertTextClassifier(nextword.models.GPT2Backbone(**SIZES), 2)
    with pytest.raises(ValueError, match="must be causal.*Received: a BertBackbone"):
        nextword.models.GPT2CausalLM(nextword.models.BertBackbone(**SIZES))


def test_configuration(shared: Any) -> None:
    config = shared.get_config()
    again = nextword.models.BertTextClassifier.from_config(config)
    assert again.get_config() == config
    again.set_weights(shared.get_weights())
    np.testing.assert_array_equal(logits(again, TEXTS), logits(shared, TEXTS))


def test_keras_file(tmp_path: Path) -> None:
    model = classifier(activation="softmax", dropout=0.25)
    for trained in (False, True):
        if trained:
            model.train_on_batch(TEXTS, np.array(LABELS))
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert type(again) is type(model)
        assert (again.num_classes, again.dropout) == (3, 0.25)
        assert again.activation is keras.activations.softmax
        assert again.optimizer.built == trained
        np.testing.assert_array_equal(logits(again, PAIRS), logits(model, PAIRS))
        for one, other in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
            np.testing.assert_array_equal(one, other)


def test_layers_and_summary(shared: Any) -> None:
    assert shared.get_layer(shared.backbone.name) is shared.backbone
    assert shared.get_layer("logits").count_params() == 8 * 3 + 3
    assert shared.backbone.get_layer("pooled_dense").count_params() == 8 * 8 + 8
    assert shared.count_params() == shared.backbone.count_params() + 8 * 3 + 3
    lines: list[str] = []
    shared.summary(print_fn=lambda text, **kwargs: lines.append(text))
    text = "\n".join(lines)
    for shown in ("BertTextClassifierPreprocessor", "truncate: round_robin", "logits", "3"):
        assert shown in text


def test_names() -> None:
    models = nextword.models
    assert models.Classifier is models.TextClassifier
    assert models.BertClassifier is models.BertTextClassifier
    assert models.BertPreprocessor is models.BertTextClassifierPreprocessor
    assert "bert_base_en" in models.TextClassifier.presets
    assert "bert_base_en" not in models.CausalLM.presets
