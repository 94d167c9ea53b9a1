"""Samples in memory: cut into batches, shuffled, split, and never changed."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np

Batch = tuple[Any, Any, Any]
"""Inputs, labels and sample weights of some samples; the last two may be None."""


class Samples:
    """Inputs, labels and weights of samples, each a sequence, an array, or a dict or tuple of them.

    Args:
        x: inputs.
        y: labels, or None.
        sample_weight: weights, or None.
        indices: which samples; by default all.

    Raises:
        TypeError: a part is no sequence, or a sequence that begins with text holds something else.
        ValueError: the parts have different lengths, or none.
    """

    def __init__(
        self, x: Any, y: Any = None, sample_weight: Any = None, *, indices: Any | None = None
    ) -> None:
        self._parts = (x, y, sample_weight)
        if indices is None:
            leaves = [
                leaf
                for name, part in zip(("x", "y", "sample_weight"), self._parts, strict=True)
                for leaf in _leaves(name, part)
            ]
            indices = np.arange(_common_length(leaves))
            for name, leaf in leaves:
                _check_text(name, leaf)
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def take(self, indices: np.ndarray) -> Batch:
        """Return the samples with these indices, as new sequences."""
        chosen = self._indices[indices]
        x, y, sample_weight = (_take(part, chosen) for part in self._parts)
        return x, y, sample_weight

    def split(self, fraction: float) -> tuple[Self, Self]:
        """Return the first samples, and the last ones, which are this fraction of all.

        Raises:
            ValueError: the fraction is not between 0 and 1, or leaves either without samples.
        """
        if not 0 < fraction < 1:
            raise ValueError(
                "`validation_split` must be between 0 and 1. "
                f"Received: validation_split={fraction}."
            )
        first = math.floor(len(self) * (1 - fraction))
        if not 0 < first < len(self):
            raise ValueError(
                f"`validation_split` leaves nothing to train or to validate on. Received: "
                f"validation_split={fraction} of {len(self)} samples."
            )
        return self._part(slice(None, first)), self._part(slice(first, None))

    def _part(self, indices: slice) -> Self:
        return type(self)(*self._parts, indices=self._indices[indices])


class SampleBatches(keras.utils.PyDataset):
    """Samples, cut into batches that are preprocessed when they are asked for.

    Args:
        samples: the samples.
        preprocess: turns the samples of a batch into what the model takes.
        batch_size: number of samples in a batch; the last one may have fewer.
        shuffle: whether each pass has an order of its own, drawn as Keras draws it for arrays;
            "batch" keeps each sample in its batch.
    """

    def __init__(
        self,
        samples: Samples,
        preprocess: Callable[[Batch], Any],
        *,
        batch_size: int,
        shuffle: bool | str = False,
    ) -> None:
        super().__init__()
        self._samples = samples
        self._preprocess = preprocess
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._order = np.arange(len(samples))

    def __len__(self) -> int:
        return math.ceil(len(self._samples) / self._batch_size)

    def __getitem__(self, index: int) -> Any:
        # Keras asks for batch 0 first in every pass. An epoch may be less or more than a pass.
        if index == 0 and self._shuffle and self._shuffle != "batch":
            self._order = np.random.permutation(len(self._samples))
        indices = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        if self._shuffle == "batch":
            indices = np.random.permutation(indices)
        return self._preprocess(self._samples.take(indices))


def _leaves(name: str, part: Any) -> list[tuple[str, Any]]:
    """Return the sequences in a part, each with its name for messages."""
    if part is None:
        return []
    if isinstance(part, Mapping):
        return [leaf for key, value in part.items() for leaf in _leaves(f"{name}[{key!r}]", value)]
    if _is_nested(part):
        return [leaf for i, value in enumerate(part) for leaf in _leaves(f"{name}[{i}]", value)]
    if not _is_sequence(part):
        raise TypeError(
            f"`{name}` must be a list, tuple or array with one element per sample. Received: "
            f"{part!r:.80} of type {type(part).__name__}."
        )
    return [(name, part)]


def _is_nested(part: Any) -> bool:
    """Return whether a part is a tuple of sequences rather than a sequence of samples."""
    return isinstance(part, tuple) and bool(part) and all(map(_is_sequence, part))


def _is_sequence(value: Any) -> bool:
    if isinstance(value, str | bytes):
        return False
    return isinstance(value, Sequence) or bool(getattr(value, "shape", ()))


def _common_length(leaves: list[tuple[str, Any]]) -> int:
    lengths = {name: len(leaf) for name, leaf in leaves}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"There must be one element per sample everywhere. Received: {found}.")
    if not any(lengths.values()):
        raise ValueError("`x` must hold at least one sample. Received: none.")
    return next(iter(lengths.values()))


def _check_text(name: str, leaf: Any) -> None:
    """Raise if a sequence that begins with text goes on with something else."""
    if getattr(leaf, "shape", ()):
        leaf = np.asarray(leaf)
        if leaf.dtype != object:
            return
    if isinstance(leaf[0], str | bytes):
        for index, value in enumerate(leaf):
            if not isinstance(value, str | bytes):
                raise TypeError(
                    f"`{name}` must hold strings only. Received: {name}[{index}]={value!r:.80}."
                )


def _take(part: Any, indices: np.ndarray) -> Any:
    if part is None:
        return None
    if isinstance(part, Mapping):
        return {key: _take(value, indices) for key, value in part.items()}
    if _is_nested(part):
        return tuple(_take(value, indices) for value in part)
    if getattr(part, "shape", ()):
        return np.asarray(part)[indices]
    values = [part[index] for index in indices.tolist()]
    # Numbers go on as Keras takes them; text stays the list that it was.
    return np.asarray(values) if isinstance(values[0], int | float | np.number) else values
