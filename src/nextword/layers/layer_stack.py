"""The layers of a decoder one after the other: layer by layer, or at once by the native kernels."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from nextword.layers.attention import LayerCache
from nextword.layers.rotary_embedding import RotaryTables
from nextword.layers.transformer_layer import TransformerLayer
from nextword.ops.native import has_few_rows
from nextword.ops.native.step_program import NotCoveredError, StepProgram


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
        try:
            return _native(layers, hidden_states, positions, caches)
        except NotCoveredError:
            pass
    for layer, cache in zip(layers, caches, strict=True):
        hidden_states = layer(hidden_states, positions=positions, cache=cache)
    return hidden_states


def _native(
    layers: Sequence[TransformerLayer],
    hidden_states: Any,
    positions: Any,
    caches: Sequence[LayerCache],
) -> Any:
    buffers = [cache.buffers for cache in caches]
    positions = ops.broadcast_to(positions, hidden_states.shape[:2])
    tables = RotaryTables(positions, caches[0].lengths)
    program = StepProgram(hidden_states.shape[-1], buffers)
    register = program.hidden_states
    for layer, buffer in zip(layers, buffers, strict=True):
        register = layer.emit(program, register, tables, buffer)
        program.keep_only(register)
    outputs, buffers = program.run(hidden_states, positions[:, 0], register)
    for cache, buffer in zip(caches, buffers, strict=True):
        cache.buffers = buffer
    return outputs
