"""Every kind of data that `fit` takes trains as the same arrays do, and is left as it was."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grain
import keras
import numpy as np
import pytest
import torch

from training.tiny import TEXTS

BATCHES = [TEXTS[:4], TEXTS[4:]]


class Batches:
    """An iterable that can be iterated over again, and does not know its length."""

    def __iter__(self) -> Iterator[Any]:
        yield from BATCHES


class PyBatches(keras.utils.PyDataset):
    def __len__(self) -> int:
        return len(BATCHES)

    def __getitem__(self, index: int) -> Any:
        return (np.array(BATCHES[index]),)


class TextDataset(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, index: int) -> str:
        return TEXTS[index]


class DatasetV2:
    """Stands in for a `tf.data.Dataset` of batches of strings, with the methods that are used.

    TensorFlow is not installed where the tests run. Its documentation says of `as_numpy_iterator`
    that string tensors become arrays of bytes objects, and of `cardinality` that it is negative
    where it is infinite (-1) or unknown (-2).
    """

    __module__ = "tensorflow.python.data.ops.dataset_ops"

    def __init__(self, cardinality: int = 2) -> None:
        self._cardinality = cardinality

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("iteration yields TensorFlow's tensors")

    def as_numpy_iterator(self) -> Iterator[Any]:
        for batch in BATCHES:
            yield np.array([text.encode() for text in batch], dtype=object)

    def cardinality(self) -> Any:
        return np.int64(self._cardinality)


SAMPLES = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "string array": np.array(TEXTS),
    "object array": np.array(TEXTS, dtype=object),
    "bytes array": np.array([text.encode() for text in TEXTS]),
    "list of bytes": [text.encode() for text in TEXTS],
}
DATASETS: dict[str, Callable[[], Any]] = {
    "generator": lambda: (batch for batch in BATCHES),
    "iterator": lambda: iter(BATCHES),
    "generator of tuples": lambda: ((np.array(batch),) for batch in BATCHES),
    "PyDataset": PyBatches,
    "PyDataset with workers": lambda: PyBatches(workers=2),
    "torch": lambda: torch.utils.data.DataLoader(TextDataset(), batch_size=4),
    "grain MapDataset": lambda: grain.MapDataset.source(TEXTS).batch(4),
    "grain IterDataset": lambda: grain.MapDataset.source(TEXTS).to_iter_dataset().batch(4),
    "tf.data": DatasetV2,
}


def trained(lm: Any, x: Any, **kwargs: Any) -> list[np.ndarray]:
    before = lm.get_weights()
    lm.fit(x, verbose=0, shuffle=False, **kwargs)
    after = lm.get_weights()
    lm.set_weights(before)
    return after


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def expected(shared_model: Any) -> list[np.ndarray]:
    """The weights after one epoch of Keras' own `fit` on the arrays."""
    x, y, sample_weight = shared_model.preprocessor(TEXTS)
    preprocessor, shared_model.preprocessor = shared_model.preprocessor, None
    weights = trained(shared_model, x, y=y, sample_weight=sample_weight, batch_size=4)
    shared_model.preprocessor = preprocessor
    assert any((w != v).any() for w, v in zip(weights, shared_model.get_weights(), strict=True))
    return weights


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples(lm: Any, expected: Any, kind: str) -> None:
    x = copy.deepcopy(SAMPLES[kind])
    assert_same(trained(lm, x, batch_size=4), expected)
    assert type(x) is type(SAMPLES[kind])
    assert list(x) == list(SAMPLES[kind])


@pytest.mark.parametrize("kind", DATASETS)
def test_datasets(lm: Any, expected: Any, kind: str) -> None:
    assert_same(trained(lm, DATASETS[kind](), steps_per_epoch=2), expected)


@pytest.mark.parametrize(
    "kind", ["PyDataset", "PyDataset with workers", "torch", "grain MapDataset", "tf.data"]
)
def test_datasets_that_know_their_length_begin_each_epoch_anew(lm: Any, kind: str) -> None:
    of_samples = trained(lm, TEXTS, batch_size=4, epochs=2)
    assert_same(trained(lm, DATASETS[kind](), epochs=2), of_samples)


@pytest.mark.parametrize(
    "make", [Batches, lambda: DatasetV2(cardinality=-2), DATASETS["grain IterDataset"]]
)
@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # what Keras says at such an end
def test_datasets_that_do_not_know_their_length(lm: Any, make: Callable[[], Any]) -> None:
    of_samples = trained(lm, TEXTS, batch_size=4, epochs=2)
    assert_same(trained(lm, make(), epochs=2), of_samples)


@pytest.mark.parametrize("kind", DATASETS)
def test_evaluate_and_predict(lm: Any, kind: str) -> None:
    found = lm.evaluate(DATASETS[kind](), steps=2, verbose=0)
    assert found == lm.evaluate(TEXTS, batch_size=4, verbose=0)
    logits = lm.predict(DATASETS[kind](), steps=2, verbose=0)
    np.testing.assert_array_equal(logits, lm.predict(TEXTS, batch_size=4, verbose=0))


def test_a_dataset_to_validate_on(lm: Any) -> None:
    logs = lm.fit(
        TEXTS, batch_size=4, epochs=2, verbose=0, validation_data=DATASETS["grain MapDataset"]()
    ).history
    assert logs["val_loss"][1] == pytest.approx(lm.evaluate(TEXTS, batch_size=4, verbose=0)[0])


def test_no_library_is_imported_for_its_datasets() -> None:
    code = (
        "import sys, nextword.models, nextword.training;"
        "assert not {'tensorflow', 'grain', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


class Recorder:
    """A preprocessor of a user's own, which labels come along with: it notes what it gets."""

    def __init__(self, preprocessor: Any) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._preprocessor = preprocessor

    def __call__(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        self.calls.append((x, y, sample_weight))
        texts = x["text"] if isinstance(x, dict) else x[0] if isinstance(x, tuple) else x
        return self._preprocessor(list(texts))


def test_structures_labels_and_weights_stay_together(lm: Any) -> None:
    lm.preprocessor = recorder = Recorder(lm.preprocessor)
    labels, weights = np.arange(8), [0.5 + i for i in range(8)]
    x = {"text": TEXTS, "rank": tuple(range(8))}
    lm.fit(x, labels, sample_weight=weights, batch_size=4, verbose=0)
    assert [len(call[1]) for call in recorder.calls] == [4, 4]
    order = np.concatenate([call[1] for call in recorder.calls])
    assert sorted(order) == list(range(8))
    for inputs, y, sample_weight in recorder.calls:
        assert inputs["text"] == [TEXTS[label] for label in y]
        assert inputs["rank"].tolist() == y.tolist()
        assert sample_weight.tolist() == (y + 0.5).tolist()
    assert x == {"text": TEXTS, "rank": tuple(range(8))}

    recorder.calls.clear()
    pairs = (TEXTS, np.array(TEXTS[::-1]))
    lm.evaluate(pairs, labels, batch_size=4, verbose=0)
    first, second = recorder.calls[0][0]
    assert first == TEXTS[:4]
    assert second.tolist() == TEXTS[:3:-1]
    assert recorder.calls[0][2] is None

    recorder.calls.clear()
    loader = torch.utils.data.DataLoader(list(zip(TEXTS, range(8), strict=True)), batch_size=4)
    lm.evaluate(loader, verbose=0)
    x, y, sample_weight = recorder.calls[-1]
    assert (list(x), y.tolist(), sample_weight) == (TEXTS[4:], [4, 5, 6, 7], None)
