"""What `fit` and the like refuse, before they train, and that they say why."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from training.tiny import TEXTS


class Batches:
    def __iter__(self) -> Iterator[Any]:
        yield TEXTS[:4]


TOKEN_IDS = {"token_ids": np.ones((2, 3)), "padding_mask": np.ones((2, 3))}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": 3}, TypeError, "must be text.*Received: x=3 of type int"),
        ({"x": None}, TypeError, "NoneType"),
        ({"x": []}, ValueError, "at least one sample"),
        ({"x": np.array([], dtype=str)}, ValueError, "at least one sample"),
        ({"x": {}}, ValueError, "at least one sample"),
        ({"x": [1, 2]}, TypeError, "string: [12] of type int"),
        ({"x": np.array([[1, 2], [3, 4]])}, TypeError, "of type list"),
        ({"x": np.array([TEXTS[:2], TEXTS[2:4]])}, TypeError, "of type list"),
        ({"x": ["a", 3]}, TypeError, r"strings only. Received: x\[1\]=3"),
        ({"x": np.array(["a", None], dtype=object)}, TypeError, r"x\[1\]=None"),
        ({"x": [b"\xff"]}, ValueError, r"UTF-8.*xff"),
        ({"x": TOKEN_IDS}, TypeError, "preprocessor=None.*token_ids"),
        ({"x": {"text": TEXTS}}, TypeError, r"keys \['text'\]"),
        ({"x": {"text": "one"}}, TypeError, r"`x\['text'\]` must be a list"),
        ({"x": {"a": ["a"], "b": ["b", "c"]}}, ValueError, r"x\['a'\] has 1, x\['b'\] has 2"),
        ({"x": TEXTS, "y": [1]}, ValueError, "x has 8, y has 1"),
        ({"x": TEXTS, "y": list(range(8))}, ValueError, "`y` must be None.*makes labels"),
        ({"x": TEXTS, "sample_weight": np.ones(8)}, ValueError, "`sample_weight` must be None"),
        ({"x": TEXTS, "sample_weight": 3}, TypeError, "`sample_weight` must be a list"),
        ({"x": TEXTS, "batch_size": 0}, ValueError, "batch_size=0"),
        ({"x": TEXTS, "batch_size": "4"}, ValueError, "batch_size='4'"),
        ({"x": TEXTS, "batch_size": 2.5}, ValueError, "batch_size=2.5"),
        ({"x": Batches(), "batch_size": 4}, ValueError, "`batch_size`.*is a dataset"),
        ({"x": Batches(), "y": [1]}, ValueError, "`y` must be None where `x` is a dataset"),
        ({"x": Batches(), "class_weight": {0: 1.0}}, ValueError, "class_weight"),
        ({"x": iter(TEXTS)}, ValueError, "yield batches, not single samples.*the quick"),
        ({"x": iter([])}, ValueError, "at least one batch"),
        ({"x": TEXTS, "validation_split": 1.5}, ValueError, "validation_split=1.5"),
        ({"x": ["a"], "validation_split": 0.5}, ValueError, "leaves nothing"),
        ({"x": Batches(), "validation_split": 0.5}, ValueError, "needs samples in memory"),
        ({"x": TEXTS, "validation_data": []}, ValueError, "at least one sample"),
        ({"x": TEXTS, "validation_data": 3}, TypeError, "x=3"),
        ({"x": TEXTS, "validation_data": (TEXTS, [1])}, ValueError, "y has 1"),
    ],
)
def test_fit(lm: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    before = lm.get_weights()
    with pytest.raises(error, match=message):
        lm.fit(**arguments, verbose=0)
    for weights, expected in zip(lm.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("method", ["evaluate", "predict", "train_on_batch", "predict_on_batch"])
@pytest.mark.parametrize(
    ("x", "message"), [(3, "of type int"), ([], "at least"), ([1], "type int")]
)
def test_other_methods(lm: Any, method: str, x: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        getattr(lm, method)(x)


def test_samples_longer_than_the_positions_of_the_model(lm: Any) -> None:
    lm.preprocessor.sequence_length = 33
    for method in (lm.fit, lm.evaluate, lm.predict, lm.train_on_batch):
        with pytest.raises(ValueError, match="samples of 33 tokens.*positions for 32"):
            method(TEXTS)


def test_unknown_argument(lm: Any) -> None:
    with pytest.raises(TypeError, match="batchsize"):
        lm.fit(TEXTS, batchsize=3)
    with pytest.raises(ValueError, match="batchsize"):
        lm.evaluate(TEXTS, batchsize=3)


@pytest.mark.parametrize("inputs", ["text", ["text"], ("text",), np.array(["text"]), b"text"])
def test_a_model_is_not_called_on_text(lm: Any, inputs: Any) -> None:
    with pytest.raises(TypeError, match="`predict`.*`generate`.*'text'"):
        lm(inputs)


def test_without_a_preprocessor_keras_has_its_say(lm: Any) -> None:
    lm.preprocessor = None
    assert np.isfinite(lm.evaluate(TOKEN_IDS, np.ones((2, 3)), verbose=0)[0])
    with pytest.raises(ValueError, match="Unrecognized data type"):
        lm.fit(TEXTS)
    with pytest.raises(TypeError, match="not on text"):
        lm("text")
    assert isinstance(lm(TOKEN_IDS), type(keras.ops.ones(())))
