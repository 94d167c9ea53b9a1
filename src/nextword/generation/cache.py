"""The KV cache: for each layer, the keys and values of every token of every row.

Buffers have the shape `[rows, heads, capacity, width]`; the token at position `p`
lies at index `p`. Entries beyond a row's length hold whatever was there before, and the causal mask
keeps anyone from looking.
"""

from typing import Any

from keras import ops

from nextword.generation.backend import Backend
from nextword.layers import DecoderConfig

Buffers = list[tuple[Any, Any]]
"""Keys and values of each layer."""


def allocate_buffers(config: DecoderConfig, rows: int, capacity: int, dtype: str) -> Buffers:
    """Return empty buffers.

    Args:
        config: the decoder's description.
        rows: number of rows.
        capacity: number of positions in a row.
        dtype: float dtype of keys and values.
    """
    shapes = [(rows, heads, capacity, width) for heads, width in config.cached_shapes]
    return [
        (ops.zeros(shapes[0], dtype), ops.zeros(shapes[1], dtype)) for _ in range(config.num_layers)
    ]


def reorder_rows(buffers: Buffers, rows: Any) -> Buffers:
    """Return the cache with other contents in its rows.

    Args:
        buffers: keys and values of each layer.
        rows: int32 tensor of shape `[rows]`, the row that each row's new contents are from.
    """
    return [
        (ops.take(keys, rows, axis=0), ops.take(values, rows, axis=0)) for keys, values in buffers
    ]


class WholePromptCache:
    """One layer's cache while prompts are computed in one piece: just their keys and values.

    Args:
        lengths: int32 tensor of shape `[prompts]`, the number of tokens of each prompt.
    """

    in_place = False

    def __init__(self, lengths: Any) -> None:
        self.lengths = lengths
        self.buffers: tuple[Any, Any] | None = None

    def update(self, key: Any, value: Any) -> tuple[Any, Any, Any]:
        """Keep the prompts' keys and values; see `nextword.layers.LayerCache`."""
        self.buffers = key, value
        return key, value, _positions(key)


class ChunkCache:
    """One layer's cache while prompts are computed chunk by chunk.

    Args:
        buffers: the layer's keys and values of the prompts.
        start: int32 scalar, the position of the chunk's first token.
        lengths: int32 tensor of shape `[prompts]`, the number of tokens of each prompt.
        backend: writes into the buffers.
    """

    in_place = False

    def __init__(
        self, buffers: tuple[Any, Any], start: Any, lengths: Any, backend: Backend
    ) -> None:
        self.buffers = buffers
        self.lengths = lengths
        self._start = start
        self._backend = backend

    def update(self, key: Any, value: Any) -> tuple[Any, Any, Any]:
        """Store a chunk's keys and values; see `nextword.layers.LayerCache`."""
        keys, values = (
            self._backend.write_block(buffer, chunk, 0, self._start)
            for buffer, chunk in zip(self.buffers, (key, value), strict=True)
        )
        self.buffers = keys, values
        return keys, values, _positions(keys)


class DecodeCache:
    """One layer's cache while the next token of every row is computed, or the next few.

    Args:
        buffers: the layer's keys and values.
        positions: int32 tensor of shape `[rows]`, the position of each row's first new token.
        backend: writes into the buffers.
    """

    in_place = True

    def __init__(self, buffers: tuple[Any, Any], positions: Any, backend: Backend) -> None:
        self.buffers = buffers
        self.lengths = positions + 1
        self._tokens_at = positions
        self._backend = backend

    def update(self, key: Any, value: Any) -> tuple[Any, Any, Any]:
        """Store the tokens' keys and values; see `nextword.layers.LayerCache`."""
        keys, values = (
            self._backend.write_tokens(buffer, tokens, self._tokens_at)
            for buffer, tokens in zip(self.buffers, (key, value), strict=True)
        )
        self.buffers = keys, values
        return keys, values, _positions(keys)


class CandidateCache(DecodeCache):
    """One layer's cache while rows that are alike try different next tokens.

    Args:
        buffers: see `DecodeCache`.
        positions: see `DecodeCache`; one token per row.
        backend: see `DecodeCache`.
    """

    in_place = False  # what is tried must be kept apart, too

    def update(self, key: Any, value: Any) -> tuple[Any, Any, Any]:
        """Store the candidates' keys and values; see `nextword.layers.LayerCache`."""
        self._candidates = key, value
        return super().update(key, value)

    def keep(self, rows: Any) -> tuple[Any, Any]:
        """Put other rows' candidates in the place of those that were tried.

        Args:
            rows: int32 tensor of shape `[rows]`, the row whose candidate each row keeps.

        Returns:
            The layer's keys and values.
        """
        keys, values = (
            self._backend.write_tokens(buffer, ops.take(tried, rows, axis=0), self._tokens_at)
            for buffer, tried in zip(self.buffers, self._candidates, strict=True)
        )
        return keys, values


def _positions(keys: Any) -> Any:
    return ops.expand_dims(ops.arange(keys.shape[2], dtype="int32"), 0)
