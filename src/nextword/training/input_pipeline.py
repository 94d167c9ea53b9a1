"""`InputPipeline`: whatever the user trains on becomes what Keras' own training loop takes."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from nextword.training.datasets import (
    DatasetBatches,
    PreprocessedPyDataset,
    is_packed,
    preprocessed,
)
from nextword.training.samples import Batch, SampleBatches, Samples

DEFAULT_BATCH_SIZE = 32  # Keras'


class InputPipeline:
    """Makes Keras' data out of samples and datasets, preprocessed batch by batch as they are read.

    Args:
        preprocess: called with the inputs, labels and weights of a batch, or None for what there
            is not; returns what a preprocessor returns: `x`, `(x, y)` or `(x, y, sample_weight)`.
    """

    def __init__(self, preprocess: Callable[[Any, Any, Any], Any]) -> None:
        self._call = preprocess

    def data(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        batch_size: int | None = None,
        default_batch_size: int | None = None,
        shuffle: bool | str = False,
        steps: int | None = None,
        class_weight: Any = None,
    ) -> Any:
        """Return what Keras takes as `x`, and which then holds labels and weights, too.

        Args:
            x: samples (a string; a list, tuple or array; a dict or tuple of them), or a dataset of
                batches (a `keras.utils.PyDataset`, `tf.data.Dataset`, `torch.utils.data.DataLoader`
                or `grain` dataset, a generator, or any other iterable that is no sequence).
            y: labels of samples.
            sample_weight: weights of samples.
            batch_size: number of samples in a batch.
            default_batch_size: used where there is no `batch_size`; otherwise there are as many as
                make `steps` batches, or 32.
            shuffle: whether to shuffle samples, or "batch" for each batch by itself.
            steps: number of batches in an epoch, if the user has said so.
            class_weight: what the user has given to Keras, which applies it.

        Raises:
            TypeError: `x` is of no kind that is known.
            ValueError: an argument does not go with `x`, or there is no sample.
        """
        if isinstance(x, Samples) or is_samples(x):
            samples = x if isinstance(x, Samples) else _samples(x, y, sample_weight)
            if batch_size is None:
                batch_size = default_batch_size
            if batch_size is None:
                batch_size = math.ceil(len(samples) / steps) if steps else DEFAULT_BATCH_SIZE
            _check_batch_size(batch_size)
            return SampleBatches(samples, self._preprocess, batch_size=batch_size, shuffle=shuffle)

        given = {"y": y, "sample_weight": sample_weight, "batch_size": batch_size}
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"`{name}` must be None where `x` is a dataset, whose batches hold inputs, "
                    f"labels and weights themselves. Received: {name}={value!r:.80}."
                )
        if isinstance(x, keras.utils.PyDataset):
            return PreprocessedPyDataset(x, self._preprocess)
        if not isinstance(x, Iterable):
            raise TypeError(
                "`x` must be text, a list, tuple or array of texts, or a dataset of batches. "
                f"Received: x={x!r:.80} of type {type(x).__name__}."
            )
        if class_weight is not None:
            raise ValueError(
                "`class_weight` goes with samples in memory and with `keras.utils.PyDataset`; let "
                "other datasets yield (x, y, sample_weight). Received: "
                f"class_weight={class_weight!r:.80}."
            )
        if isinstance(x, Iterator):
            return preprocessed(x, self._preprocess)
        return DatasetBatches(x, self._preprocess)

    def batch(self, x: Any, y: Any = None, sample_weight: Any = None) -> Batch:
        """Return what Keras takes for one batch of samples.

        Args:
            x: inputs.
            y: labels, or None.
            sample_weight: weights, or None.

        Raises:
            TypeError: `x` is no samples.
            ValueError: there is no sample, or the parts have different lengths.
        """
        samples = _samples(x, y, sample_weight)
        batch = samples.take(np.arange(len(samples)))
        inputs, labels, weights = keras.utils.unpack_x_y_sample_weight(self._call(*batch))
        return inputs, labels, weights

    def _preprocess(self, batch: Batch) -> tuple[Any, ...]:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(self._call(*batch))
        if sample_weight is not None:
            return x, y, sample_weight
        return (x,) if y is None else (x, y)


def is_samples(x: Any) -> bool:
    """Return whether a value is samples in memory rather than a dataset of batches."""
    return isinstance(x, str | bytes | Sequence | Mapping) or hasattr(x, "__array__")


def unpack_samples(data: Any) -> Batch:
    """Return the inputs, labels and weights of `validation_data`.

    Args:
        data: `(x, y)` or `(x, y, sample_weight)`, or inputs alone: a dataset, texts, a dict.
    """
    if is_packed(data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
        return x, y, sample_weight
    return data, None, None


def split_samples(x: Any, y: Any, sample_weight: Any, fraction: float) -> tuple[Samples, Samples]:
    """Return the samples to train on, and the last ones, to validate on.

    Args:
        x: inputs.
        y: labels, or None.
        sample_weight: weights, or None.
        fraction: of the samples to validate on.

    Raises:
        ValueError: the inputs are a dataset, or the fraction leaves nothing of either.
    """
    if not is_samples(x):
        raise ValueError(
            "`validation_split` needs samples in memory; give a dataset's validation part as "
            f"`validation_data`. Received: validation_split={fraction} and x of type "
            f"{type(x).__name__}."
        )
    return _samples(x, y, sample_weight).split(fraction)


def _samples(x: Any, y: Any, sample_weight: Any) -> Samples:
    return Samples([x] if isinstance(x, str | bytes) else x, y, sample_weight)


def _check_batch_size(batch_size: Any) -> None:
    try:
        valid = not isinstance(batch_size, bool) and batch_size == int(batch_size) >= 1
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            f"`batch_size` must be a positive integer. Received: batch_size={batch_size!r}."
        )
