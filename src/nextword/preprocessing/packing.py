"""Frame token ids with start and end tokens, and pad rows to one length."""

from collections.abc import Sequence

import numpy as np


def frame(
    token_ids: Sequence[int],
    *,
    start_token_id: int | None = None,
    end_token_id: int | None = None,
    max_length: int | None = None,
) -> list[int]:
    """Put a start token before and an end token behind token ids, cutting the ids to fit.

    Args:
        token_ids: the ids of one text.
        start_token_id: id to put in front, or None.
        end_token_id: id to put behind, or None.
        max_length: the most ids to return. The start and end tokens are kept; the text is cut.

    Example:
    >>> frame([5, 6, 7], start_token_id=1, end_token_id=2, max_length=4)
    [1, 5, 6, 2]
    """
    start = [] if start_token_id is None else [start_token_id]
    end = [] if end_token_id is None else [end_token_id]
    room = None if max_length is None else max(0, max_length - len(start) - len(end))
    return [*start, *token_ids[:room], *end][:max_length]


def pad(
    rows: Sequence[Sequence[int]], length: int, pad_token_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pad rows of token ids on the right.

    Args:
        rows: token ids, each row at most `length` long.
        length: length of the padded rows.
        pad_token_id: what to pad with.

    Returns:
        int32 token ids and a boolean mask that is true where a token is no padding, both of shape
        `[len(rows), length]`.

    Example:
    >>> pad([[5, 6], [7]], 3, 0)[0].tolist()
    [[5, 6, 0], [7, 0, 0]]
    """
    token_ids = np.full((len(rows), length), pad_token_id, "int32")
    mask = np.zeros((len(rows), length), "bool")
    for row, ids in enumerate(rows):
        token_ids[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
    return token_ids, mask
