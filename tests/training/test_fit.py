"""`fit`, `evaluate` and `predict` on text are what Keras does on the preprocessed arrays."""

from typing import Any

import keras
import numpy as np
import pytest

from nextword.generation.backend import get_backend
from training.tiny import TEXTS


def trained(lm: Any, *args: Any, **kwargs: Any) -> list[np.ndarray]:
    """Return the weights after a training that starts from the model's weights and one seed."""
    before = lm.get_weights()
    keras.utils.set_random_seed(11)
    lm.fit(*args, verbose=0, **kwargs)
    after = lm.get_weights()
    lm.set_weights(before)
    return after


def arrays(lm: Any, texts: Any = TEXTS) -> dict[str, Any]:
    x, y, sample_weight = lm.preprocessor(texts)
    return {"x": x, "y": y, "sample_weight": sample_weight}


def test_the_loss_goes_down_on_a_list_of_strings(lm: Any) -> None:
    history = lm.fit(TEXTS, batch_size=4, epochs=8, verbose=0)
    assert isinstance(history, keras.callbacks.History)
    losses = history.history["loss"]
    assert len(losses) == 8
    assert losses[-1] < 0.75 * losses[0]
    assert set(history.history) == {"loss", "sparse_categorical_accuracy"}


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
def test_fit_is_keras_fit_of_the_arrays(lm: Any, shuffle: Any) -> None:
    data, preprocessor = arrays(lm), lm.preprocessor
    of_text = trained(lm, TEXTS, batch_size=4, epochs=2, shuffle=shuffle)
    lm.preprocessor = None
    of_arrays = trained(lm, **data, batch_size=4, epochs=2, shuffle=shuffle)
    unshuffled = trained(lm, **data, batch_size=4, epochs=2, shuffle=False)
    lm.preprocessor = preprocessor
    np.testing.assert_array_equal(
        np.concatenate([w.ravel() for w in of_text]), np.concatenate([w.ravel() for w in of_arrays])
    )
    differs = any((a != b).any() for a, b in zip(of_text, unshuffled, strict=True))
    assert differs == bool(shuffle)


def test_evaluate_is_the_masked_loss_and_accuracy(lm: Any) -> None:
    data = arrays(lm)
    logits = lm.predict(TEXTS, batch_size=4, verbose=0).astype("float64")
    assert logits.shape == (8, 12, lm.preprocessor.tokenizer.vocabulary_size())
    logits -= logits.max(-1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    losses = -np.take_along_axis(log_probabilities, data["y"][..., None], -1)[..., 0]
    weights = data["sample_weight"].astype("float64")
    assert 0 < weights.mean() < 1
    # Keras' mean is over all positions; a padded one adds nothing to the sum.
    loss = (losses * weights).mean()
    accuracy = ((logits.argmax(-1) == data["y"]) * weights).sum() / weights.sum()

    found = lm.evaluate(TEXTS, batch_size=4, verbose=0)
    np.testing.assert_allclose(found, [loss, accuracy], rtol=1e-5)
    by_name = lm.evaluate(TEXTS, batch_size=4, verbose=0, return_dict=True)
    assert by_name == {"loss": found[0], "sparse_categorical_accuracy": found[1]}


def test_predict_is_the_model_on_the_arrays(lm: Any) -> None:
    inputs = arrays(lm, TEXTS[:4])["x"]
    expected = keras.ops.convert_to_numpy(lm(inputs))
    np.testing.assert_allclose(lm.predict(TEXTS[:4], verbose=0), expected, atol=1e-5)
    np.testing.assert_allclose(lm.predict_on_batch(TEXTS[:4]), expected, atol=1e-5)
    np.testing.assert_allclose(lm.predict(TEXTS[0], verbose=0), expected[:1], atol=1e-5)


def test_batches(lm: Any) -> None:
    data, preprocessor, weights = arrays(lm, TEXTS[:4]), lm.preprocessor, lm.get_weights()
    tested = lm.test_on_batch(TEXTS[:4])
    lm.reset_metrics()
    lm.train_on_batch(TEXTS[:4])
    of_text = lm.get_weights()

    lm.set_weights(weights)
    lm.preprocessor = None
    lm.reset_metrics()
    np.testing.assert_allclose(tested, lm.test_on_batch(**data), rtol=1e-6)
    lm.reset_metrics()
    lm.train_on_batch(**data)
    lm.preprocessor = preprocessor
    for found, expected in zip(of_text, lm.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_validation(lm: Any) -> None:
    options = {"batch_size": 4, "verbose": 0, "shuffle": False}
    rate = float(lm.optimizer.learning_rate)
    lm.optimizer.learning_rate = 0.0
    expected = lm.evaluate(TEXTS[4:], batch_size=4, verbose=0)
    for validation in [
        {"validation_split": 0.5},
        {"validation_data": TEXTS[4:]},
        {"validation_data": tuple(TEXTS[4:])},
        {"validation_data": (np.array(TEXTS[4:]),)},
        {"validation_data": [TEXTS[4:]].__iter__(), "validation_steps": 1},
    ]:
        logs = lm.fit(
            TEXTS[:4] if "validation_data" in validation else TEXTS, **options, **validation
        ).history
        found = [logs["val_loss"][0], logs["val_sparse_categorical_accuracy"][0]]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    # The first half is trained on, the last is not.
    lm.optimizer.learning_rate = rate
    for found, expected in zip(
        trained(lm, TEXTS, validation_split=0.5, batch_size=4, shuffle=False),
        trained(lm, TEXTS[:4], batch_size=4, shuffle=False),
        strict=True,
    ):
        np.testing.assert_array_equal(found, expected)


def test_generate_uses_the_new_weights_and_compiles_nothing(lm: Any, make_model: Any) -> None:
    before = lm.generate("the", max_length=8)
    compiled = get_backend().compile_seconds
    texts = []
    log = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: texts.append(lm.generate("the", max_length=8))
    )
    lm.fit(TEXTS, batch_size=4, epochs=8, verbose=0, callbacks=[log])
    after = lm.generate("the", max_length=8)
    assert get_backend().compile_seconds == compiled
    assert len(texts) == 8
    assert texts[-1] == after != before
    other = make_model()
    other.set_weights(lm.get_weights())
    other.compile(sampler="greedy")
    assert other.generate("the", max_length=8) == after


def test_dropout_is_active_in_fit_alone(make_model: Any) -> None:
    lm = make_model(dropout=0.5)
    lm.compile(optimizer=keras.optimizers.SGD(0.0))
    fits = [lm.fit(TEXTS, batch_size=4, verbose=0).history["loss"] for _ in range(2)]
    evaluations = [lm.evaluate(TEXTS, batch_size=4, verbose=0)[0] for _ in range(2)]
    assert fits[0] != fits[1]
    assert evaluations[0] == evaluations[1]


def test_mixed_precision_keeps_float32_weights(make_model: Any) -> None:
    lm = make_model(dtype="mixed_bfloat16")
    lm.compile(optimizer=keras.optimizers.Adam(1e-2))
    losses = lm.fit(TEXTS, batch_size=4, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert {v.dtype for v in lm.trainable_variables} == {"float32"}
    assert np.isfinite(lm.predict_on_batch(TEXTS[:4]).astype("float32")).all()


def test_nothing_to_predict_is_no_nan(lm: Any) -> None:
    lm.preprocessor.add_start_token = lm.preprocessor.add_end_token = False
    nothing = ["", "", "", ""]
    assert lm.evaluate(nothing, verbose=0) == [0.0, 0.0]
    lm.fit([*TEXTS[:3], ""], batch_size=4, verbose=0)
    assert np.isfinite(lm.evaluate(TEXTS[:4], verbose=0)).all()
    lm.fit(nothing, verbose=0)
    assert all(np.isfinite(weights).all() for weights in lm.get_weights())


def test_steps_and_partial_batches(lm: Any) -> None:
    batches = []
    log = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: batches.append(batch)
    )
    lm.fit(TEXTS, steps_per_epoch=2, epochs=2, verbose=0, callbacks=[log])
    assert batches == [0, 1, 0, 1]
    lm.fit(TEXTS[:5], batch_size=4, verbose=0, callbacks=[log])
    assert batches[4:] == [0, 1]


def test_live_sequence_length(lm: Any) -> None:
    lm.preprocessor.sequence_length = 5
    assert lm.predict(TEXTS[:4], verbose=0).shape[:2] == (4, 5)


class Interruption(keras.callbacks.Callback):
    """Presses Ctrl-C behind the second batch."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 1:
            raise KeyboardInterrupt

    on_test_batch_end = on_predict_batch_end = on_train_batch_end


def test_weights_survive_what_goes_wrong(lm: Any) -> None:
    before = lm.get_weights()
    lm.fit(TEXTS[:4], verbose=0)
    lm.evaluate(TEXTS[:4], verbose=0)
    lm.predict(TEXTS[:4], verbose=0)
    trained = lm.get_weights()

    def assert_weights(expected: list[np.ndarray]) -> None:
        for a, b in zip(lm.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(a, b)

    for method in (lm.fit, lm.evaluate, lm.predict):
        with pytest.raises(TypeError, match="string"):
            method([1, 2, 3, 4], verbose=0)
        assert_weights(trained)
    # More tokens than the model has positions: the compilation fails.
    preprocessor, lm.preprocessor = lm.preprocessor, None
    token_ids = np.ones((4, 33), "int32")
    inputs = {"token_ids": token_ids, "padding_mask": token_ids}
    for method in (lm.fit, lm.evaluate):
        with pytest.raises((TypeError, ValueError)):
            method(inputs, token_ids, verbose=0)
        assert_weights(trained)
    lm.preprocessor = preprocessor
    for method in (lm.evaluate, lm.predict):
        with pytest.raises(KeyboardInterrupt):
            method(TEXTS, batch_size=4, verbose=0, callbacks=[Interruption()])
        assert_weights(trained)

    lm.set_weights(before)
    lm.fit(TEXTS, batch_size=4, verbose=0, shuffle=False)
    expected = lm.get_weights()
    lm.set_weights(before)
    with pytest.raises(KeyboardInterrupt):
        lm.fit(TEXTS * 2, batch_size=4, verbose=0, shuffle=False, callbacks=[Interruption()])
    assert_weights(expected)
