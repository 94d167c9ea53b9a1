"""Datasets: whatever yields batches, whichever library it is from, none of which is imported."""

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import keras

# Keras takes a custom adapter wherever it takes data, but has no public name for the base class.
from keras.src.trainers.data_adapters.generator_data_adapter import GeneratorDataAdapter

from nextword.training.samples import Batch


class DatasetBatches(GeneratorDataAdapter):
    """A dataset that can be iterated over again and again, preprocessed batch by batch.

    Args:
        dataset: yields batches; each iteration begins anew.
        preprocess: turns a batch into what the model takes.

    Raises:
        ValueError: the dataset yields no batch, or something that is none.
    """

    def __init__(self, dataset: Iterable[Any], preprocess: Callable[[Batch], Any]) -> None:
        def iterate() -> Generator[Any]:
            return preprocessed(_iterator(dataset), preprocess)

        super().__init__(iterate())
        self.generator = iterate
        self._dataset = dataset

    @property
    def num_batches(self) -> int | None:
        """Number of batches of a pass, or None where the dataset does not know."""
        return _length(self._dataset)


class PreprocessedPyDataset(keras.utils.PyDataset):
    """A `keras.utils.PyDataset` whose batches are preprocessed where they are made.

    Args:
        dataset: yields batches; its workers do the preprocessing, too.
        preprocess: turns a batch into what the model takes.
    """

    def __init__(self, dataset: keras.utils.PyDataset, preprocess: Callable[[Batch], Any]) -> None:
        super().__init__(dataset.workers, dataset.use_multiprocessing, dataset.max_queue_size)
        self._dataset = dataset
        self._preprocess = preprocess

    @property
    def num_batches(self) -> int | None:
        return self._dataset.num_batches

    def __getitem__(self, index: int) -> Any:
        return self._preprocess(unpack_batch(self._dataset[index]))

    def on_epoch_begin(self) -> None:
        self._dataset.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._dataset.on_epoch_end()


def preprocessed(batches: Iterator[Any], preprocess: Callable[[Batch], Any]) -> Generator[Any]:
    """Yield what the model takes for each of the batches."""
    for batch in batches:
        yield preprocess(unpack_batch(batch))


def unpack_batch(batch: Any) -> Batch:
    """Return the inputs, labels and weights of what a dataset yielded.

    Args:
        batch: inputs; or a tuple (or list, as `torch.utils.data.DataLoader` makes) of inputs,
            labels and, perhaps, weights. A sequence of texts is inputs.

    Raises:
        ValueError: the dataset yields single samples.
    """
    if isinstance(batch, str | bytes):
        raise ValueError(
            f"A dataset must yield batches, not single samples. Received: {batch!r:.80}. Batch it "
            "first: `.batch(batch_size)` where the dataset has it, or lists of samples."
        )
    if is_packed(batch):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(batch))
        return x, y, sample_weight
    return batch, None, None


def is_packed(value: Any) -> bool:
    """Return whether a value is `(x,)`, `(x, y)` or `(x, y, sample_weight)`, not samples."""
    if not isinstance(value, tuple | list) or not 1 <= len(value) <= 3:
        return False
    sample_types = str | bytes if isinstance(value, tuple) else str | bytes | dict
    return not all(isinstance(element, sample_types) for element in value)


def _iterator(dataset: Any) -> Iterator[Any]:
    # TensorFlow's tensors are of no use to the other backends, and strings of none to ours.
    return dataset.as_numpy_iterator() if is_tensorflow_dataset(dataset) else iter(dataset)


def is_tensorflow_dataset(value: Any) -> bool:
    """Return whether a value is a `tf.data.Dataset`, without importing TensorFlow."""
    return any(
        base.__name__ == "DatasetV2" and base.__module__.startswith("tensorflow.")
        for base in type(value).__mro__
    )


def _length(dataset: Any) -> int | None:
    if is_tensorflow_dataset(dataset):
        cardinality = int(dataset.cardinality())  # negative where infinite or not known
        return cardinality if cardinality >= 0 else None
    try:
        return len(dataset)
    except TypeError:
        return None
