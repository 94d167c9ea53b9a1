"""The compiled programs that all of generation needs.

Prefill computes prompts by themselves, so that its programs depend on the length of prompts alone,
not on the sampler; insert moves a prompt into a row of a batch. How rows go on from there is up to
a loop: its programs are beside it.
"""

from typing import Any, Protocol

import keras
from keras import ops

from nextword.generation.backend import Backend
from nextword.generation.cache import Buffers, ChunkCache, WholePromptCache
from nextword.layers import DecoderConfig


class Decoder(Protocol):
    """The model, as generation sees it."""

    config: DecoderConfig
    compute_dtype: str
    variables: list[keras.Variable]

    def hidden_states(self, token_ids: Any, positions: Any, caches: list[Any]) -> Any:
        """Return the final hidden states `[batch, length, hidden_dim]` of new tokens.

        Args:
            token_ids: int32 tensor of shape `[batch, length]`.
            positions: int32 tensor of shape `[batch, length]`.
            caches: one `nextword.layers.LayerCache` per layer.
        """
        ...

    def logits(self, hidden_states: Any) -> Any:
        """Return the logits `[..., vocabulary_size]` of final hidden states."""
        ...


class PromptSteps:
    """The compiled programs that compute prompts on one decoder.

    Args:
        decoder: the model.
        backend: compiles them.

    Attributes:
        prefill: see `_prefill`.
        insert: see `_insert`.
    """

    def __init__(self, decoder: Decoder, backend: Backend) -> None:
        self._decoder = decoder
        self._backend = backend
        self.prefill = backend.compile(self._prefill, decoder.variables, donated=["buffers"])
        self.insert = backend.compile(self._insert, [], donated=["buffers"])

    def _prefill(
        self, *, buffers: Buffers | None, token_ids: Any, start: Any | None, lengths: Any
    ) -> tuple[Buffers, Any, Any]:
        """Compute one chunk of some prompts.

        Args:
            buffers: the prompts' KV cache; None if the chunk is the whole prompt.
            token_ids: int32 tensor of shape `[prompts, chunk_length]`, padded on the right.
            start: int32 scalar, position of the chunk's first token; None with `buffers`.
            lengths: int32 tensor of shape `[prompts]`, number of tokens of each prompt.

        Returns:
            The prompts' KV cache, the final hidden states `[prompts, chunk_length, hidden_dim]`,
            and those of each prompt's last token, `[prompts, hidden_dim]`, if it is in the chunk.
        """
        prompts, length = token_ids.shape
        positions = ops.expand_dims(ops.arange(length, dtype="int32"), 0)
        caches: list[Any]
        if buffers is None:
            caches = [WholePromptCache(lengths) for _ in range(self._decoder.config.num_layers)]
        else:
            positions = positions + start
            caches = [ChunkCache(layer, start, lengths, self._backend) for layer in buffers]
        hidden_states = self._decoder.hidden_states(token_ids, positions, caches)
        last = ops.clip(lengths - 1 - (0 if start is None else start), 0, length - 1)
        last = ops.reshape(last, (prompts, 1, 1))
        last_hidden_states = ops.take_along_axis(hidden_states, last, axis=1)[:, 0]
        return [cache.buffers for cache in caches], hidden_states, last_hidden_states

    def _insert(
        self, *, buffers: tuple[Any, Any], prompt: tuple[Any, Any], prompt_row: Any, row: Any
    ) -> tuple[Any, Any]:
        """Move one layer's keys and values of a prompt into the row where it is to be continued.

        One small program that serves every layer: compiling all of them as one takes seconds.

        Args:
            buffers: the layer's keys and values.
            prompt: the layer's keys and values of some prompts.
            prompt_row: int32 scalar, which of the prompts.
            row: int32 scalar, where it goes.

        Returns:
            The layer's keys and values with the prompt in its row.
        """
        keys, values = (
            self._backend.write_block(buffer, ops.take(block, [prompt_row], axis=0), row, 0)
            for buffer, block in zip(buffers, prompt, strict=True)
        )
        return keys, values
