"""What token ids may be given as."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def check_ids(ids: Any) -> tuple[list[Any], bool]:
    """Return the ids or rows in the argument `ids` of a tokenizer, and whether they are rows.

    Raises:
        TypeError: it is no sequence, or has both rows and integers in it.
        ValueError: it is an array of other than one or two dimensions.
    """
    if hasattr(ids, "__array__"):
        ids = np.asarray(ids)
        if ids.ndim not in (1, 2):
            raise ValueError(
                "ids must have the shape [length] or [batch, length]. "
                f"Received: an array of shape {list(ids.shape)}."
            )
        return ids.tolist(), ids.ndim == 2
    if not isinstance(ids, Iterable) or isinstance(ids, str | bytes | Mapping):
        raise TypeError(f"ids must be a list of token ids. Received: ids={ids!r:.80}.")
    ids = list(ids)
    is_batch = bool(ids) and _is_row(ids[0])
    if is_batch:
        for row in ids:
            if not _is_row(row):
                raise TypeError(f"ids must be rows or integers, not both. Received: {row!r:.80}.")
    return ids, is_batch


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1
