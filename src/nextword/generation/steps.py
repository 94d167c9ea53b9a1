"""The compiled programs that all of generation needs.

Prefill computes prompts by themselves, so that its programs depend on the length of prompts alone,
not on the sampler; insert moves a prompt into a row of a batch. How rows go on from there is up to
a loop: its programs are beside it.

A prompt goes from layer to layer, all of which share one program or a few: tracing, compiling and
reading it back from disk take the time of one layer, where a program of all layers takes a second.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import keras
from keras import ops

from nextword.generation.backend import Backend
from nextword.generation.cache import Buffers, ChunkCache, WholePromptCache
from nextword.layers import DecoderConfig, TransformerLayer


class Decoder(Protocol):
    """The model, as generation sees it."""

    config: DecoderConfig
    compute_dtype: str
    variables: list[keras.Variable]
    transformer_layers: Sequence[TransformerLayer]

    def embeddings(self, token_ids: Any, positions: Any) -> Any:
        """Return what the first layer takes of tokens, `[batch, length, hidden_dim]`."""
        ...

    def normalized(self, hidden_states: Any) -> Any:
        """Return the final hidden states that the last layer's output makes."""
        ...

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
        insert: see `_insert`.
    """

    def __init__(self, decoder: Decoder, backend: Backend) -> None:
        self._decoder = decoder
        self._backend = backend
        rotaries = (layer.rotary for layer in decoder.transformer_layers)
        self._rotaries = {rotary.angles: rotary for rotary in rotaries if rotary is not None}
        self._embed = backend.compile(self._embeddings, decoder.variables)
        self._layers = backend.compile_for_each(
            self._layer, decoder.transformer_layers, donated=["buffers"]
        )
        self._finish = backend.compile(self._final, decoder.variables)
        self.insert = backend.compile(self._insert, [], donated=["buffers"])

    def prefill(
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
        hidden_states, rotations = self._embed(token_ids=token_ids, start=start, lengths=lengths)
        rotations = dict(zip(self._rotaries, rotations, strict=True))
        filled = []
        for number, layer in enumerate(self._decoder.transformer_layers):
            hidden_states, kept = self._layers[number](
                hidden_states=hidden_states,
                buffers=None if buffers is None else buffers[number],
                rotation=None if layer.rotary is None else rotations[layer.rotary.angles],
                start=start,
                lengths=lengths,
            )
            filled.append(kept)
        return filled, *self._finish(hidden_states=hidden_states, start=start, lengths=lengths)

    def _embeddings(
        self, *, token_ids: Any, start: Any | None, lengths: Any
    ) -> tuple[Any, list[tuple[Any, Any]]]:
        positions = _positions(token_ids.shape[1], start)
        rotaries = self._rotaries.values()
        # Which in the program of each layer would be computed anew for every head.
        rotations = [rotary.cosines_and_sines(positions, lengths) for rotary in rotaries]
        return self._decoder.embeddings(token_ids, positions), rotations

    def _layer(
        self,
        layer: TransformerLayer,
        *,
        hidden_states: Any,
        buffers: tuple[Any, Any] | None,
        rotation: tuple[Any, Any] | None,
        start: Any | None,
        lengths: Any,
    ) -> tuple[Any, tuple[Any, Any]]:
        cache: Any = (
            WholePromptCache(lengths)
            if buffers is None
            else ChunkCache(buffers, start, lengths, self._backend)
        )
        positions = _positions(hidden_states.shape[1], start)
        hidden_states = layer(hidden_states, positions=positions, cache=cache, rotation=rotation)
        return hidden_states, cache.buffers

    def _final(self, *, hidden_states: Any, start: Any | None, lengths: Any) -> tuple[Any, Any]:
        prompts, length = hidden_states.shape[:2]
        hidden_states = self._decoder.normalized(hidden_states)
        last = ops.clip(lengths - 1 - (0 if start is None else start), 0, length - 1)
        last = ops.reshape(last, (prompts, 1, 1))
        return hidden_states, ops.take_along_axis(hidden_states, last, axis=1)[:, 0]

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


def _positions(length: int, start: Any | None) -> Any:
    """Return the positions of a chunk's tokens, `[1, length]`."""
    positions = ops.expand_dims(ops.arange(length, dtype="int32"), 0)
    return positions if start is None else positions + start
