"""The layers of a decoder one after the other: layer by layer, or at once by the native kernels."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from nextword.layers.attention import LayerCache
from nextword.layers.transformer_layer import TransformerLayer
from nextword.ops.native import has_few_rows
from nextword.ops.native.step_program import StepProgram, written


def apply_layers(
    layers: Sequence[TransformerLayer],
    hidden_states: Any,
    positions: Any,
    caches: Sequence[LayerCache],
) -> Any:
    """Return what the layers make of new tokens whose predecessors are cached.

    Args:
        layers: the decoder's layers.
        hidden_states: float tensor of shape `[batch, length, hidden_dim]`.
        positions: int32 tensor of shape `[batch or 1, length]`.
        caches: one per layer.

    Returns:
        Float tensor of the shape of `hidden_states`.
    """
    if has_few_rows(hidden_states) and all(cache.in_place for cache in caches):
        buffers = [cache.buffers for cache in caches]
        program = written(layers[0], lambda: _program(layers, hidden_states.shape[-1], buffers))
        if program is not None:
            positions = ops.broadcast_to(positions, hidden_states.shape[:2])
            outputs, buffers = program.run(hidden_states, positions, caches[0].lengths, buffers)
            for cache, buffer in zip(caches, buffers, strict=True):
                cache.buffers = buffer
            return outputs
    for layer, cache in zip(layers, caches, strict=True):
        hidden_states = layer(hidden_states, positions=positions, cache=cache)
    return hidden_states


def _program(
    layers: Sequence[TransformerLayer], width: int, buffers: Sequence[tuple[Any, Any]]
) -> StepProgram:
    program = StepProgram(width, buffers)
    for layer, cache in zip(layers, program.caches, strict=True):
        program.result = layer.emit(program, program.result, cache)
        program.keep_only(program.result)
    return program
