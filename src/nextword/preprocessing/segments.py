"""Pack the parts of a sample, such as two sentences to compare, into one row of token ids."""

from collections.abc import Sequence
from typing import NamedTuple


class PackedSegments(NamedTuple):
    """One row of token ids, and for each the number of the part that it is of."""

    token_ids: list[int]
    segment_ids: list[int]


def pack_segments(
    segments: Sequence[Sequence[int]],
    length: int,
    *,
    start_token_id: int,
    end_token_id: int,
    truncate: str,
) -> PackedSegments:
    """Put parts behind each other, cut to fit, and an end token behind each.

    Args:
        segments: the token ids of each part.
        length: the most token ids to return.
        start_token_id: id to put before the first part, whose number it bears.
        end_token_id: id to put behind each part.
        truncate: how the parts share the room that there is, a key of `TRUNCATIONS`.

    Raises:
        ValueError: there is no room for the start and end tokens.

    Example:
    >>> pack_segments(
    ...     [[11, 12, 13, 14], [21, 22]],
    ...     7,
    ...     start_token_id=1,
    ...     end_token_id=2,
    ...     truncate="round_robin",
    ... )
    PackedSegments(token_ids=[1, 11, 12, 2, 21, 22, 2], segment_ids=[0, 0, 0, 0, 1, 1, 1])
    """
    room = length - 1 - len(segments)
    if room < 0:
        raise ValueError(
            f"`sequence_length` must leave room for the {length - room} tokens around the parts of "
            f"a sample. Received: sequence_length={length}."
        )
    shares = TRUNCATIONS[truncate]([len(segment) for segment in segments], room)
    token_ids, segment_ids = [start_token_id], [0]
    for number, (segment, share) in enumerate(zip(segments, shares, strict=True)):
        token_ids += [*segment[:share], end_token_id]
        segment_ids += [number] * (share + 1)
    return PackedSegments(token_ids, segment_ids)


def _round_robin(lengths: Sequence[int], room: int) -> list[int]:
    """Return the share of each part: one token more in turn, for those that need it."""
    if sum(lengths) <= room:
        return list(lengths)
    shares = [0] * len(lengths)
    while room:
        for i, length in enumerate(lengths):
            if room and shares[i] < length:
                shares[i] += 1
                room -= 1
    return shares


def _waterfall(lengths: Sequence[int], room: int) -> list[int]:
    """Return the share of each part: the first has all it needs, then the second, and so on."""
    shares = []
    for length in lengths:
        shares.append(min(length, room))
        room -= shares[-1]
    return shares


TRUNCATIONS = {"round_robin": _round_robin, "waterfall": _waterfall}
"""How parts that are too long together share the room, by name."""
