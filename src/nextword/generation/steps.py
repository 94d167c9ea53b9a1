"""The compiled programs of generation.

Prefill computes prompts by themselves, so that its programs depend on the length of prompts alone;
insert moves a prompt into a row of a batch; decode computes one more token of every row.
"""

from typing import Any, NamedTuple, Protocol

import keras
from keras import ops

from nextword.generation.backend import Backend
from nextword.generation.cache import Buffers, ChunkCache, DecodeCache, WholePromptCache
from nextword.layers import DecoderConfig
from nextword.samplers import Sampler


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


class SamplingInputs(NamedTuple):
    """What the choice of a row's next token depends on, apart from its logits.

    Attributes:
        parameters: the sampler's parameters, each an array of shape `[rows]`.
        seeds: int32 array of shape `[rows, 2]`, the two words of each request's seed.
    """

    parameters: dict[str, Any]
    seeds: Any


class Steps:
    """The compiled programs for one decoder and one kind of sampler.

    Args:
        decoder: the model.
        sampler: chooses tokens; its parameters' values are inputs of the programs, so any sampler
            of the same kind can use them.
        backend: compiles them.

    Attributes:
        prefill: see `_prefill`.
        insert: see `_insert`.
        decode: see `_decode`.
    """

    def __init__(self, decoder: Decoder, sampler: Sampler, backend: Backend) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._backend = backend
        variables = decoder.variables
        self.prefill = backend.compile(self._prefill, variables, donated=["buffers"])
        self.insert = backend.compile(self._insert, [], donated=["buffers"])
        self.decode = backend.compile(self._decode, variables, donated=["buffers"])

    def _prefill(
        self,
        *,
        buffers: Buffers | None,
        token_ids: Any,
        start: Any | None,
        lengths: Any,
        steps: Any,
        sampling: SamplingInputs | None,
    ) -> tuple[Buffers, Any]:
        """Compute one chunk of some prompts, and with the last chunk their next tokens.

        Args:
            buffers: the prompts' KV cache; None if the chunk is the whole prompt.
            token_ids: int32 tensor of shape `[prompts, chunk_length]`, padded on the right.
            start: int32 scalar, position of the chunk's first token; None with `buffers`.
            lengths: int32 tensor of shape `[prompts]`, number of tokens of each prompt.
            steps: int32 tensor of shape `[prompts]`, how many of them were generated.
            sampling: for the prompts; None unless it is the last chunk.

        Returns:
            The prompts' KV cache, and the next tokens or None.
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
        buffers = [cache.buffers for cache in caches]
        if sampling is None:
            return buffers, None
        first = 0 if start is None else start
        last = ops.reshape(lengths - 1 - first, (prompts, 1, 1))
        hidden_states = ops.take_along_axis(hidden_states, last, axis=1)[:, 0]
        return buffers, self._choose(hidden_states, sampling, steps)

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

    def _decode(
        self, *, buffers: Buffers, tokens: Any, positions: Any, steps: Any, sampling: SamplingInputs
    ) -> tuple[Buffers, Any, Any, Any]:
        """Compute the next token of every row.

        Args:
            buffers: the KV cache.
            tokens: int32 tensor of shape `[rows]`, each row's newest token.
            positions: int32 tensor of shape `[rows]`, its position.
            steps: int32 tensor of shape `[rows]`, how many tokens each row has generated.
            sampling: for the rows.

        Returns:
            The cache, the next tokens, and `positions` and `steps` for them.
        """
        # A row whose request has ended goes on until the others have; it must stay inside.
        positions = ops.minimum(positions, buffers[0][0].shape[2] - 1)
        caches = [DecodeCache(layer, positions, self._backend) for layer in buffers]
        hidden_states = self._decoder.hidden_states(
            ops.expand_dims(tokens, 1), ops.expand_dims(positions, 1), caches
        )
        chosen = self._choose(hidden_states[:, 0], sampling, steps)
        return [cache.buffers for cache in caches], chosen, positions + 1, steps + 1

    def _choose(self, hidden_states: Any, sampling: SamplingInputs, steps: Any) -> Any:
        logits = ops.cast(self._decoder.logits(hidden_states), "float32")
        return self._sampler.next_tokens(logits, sampling.parameters, sampling.seeds, steps)
