"""Generation on torch: steps run eagerly, all layers at once where the native kernels can.

The cache is written in place.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import torch
from keras import ops

from nextword.layers import TransformerLayer
from nextword.ops.native.step_program import StepProgram, programs_kept
from nextword.ops.native.torch_calls import threads_handed_over


class TorchBackend:
    """See `nextword.generation.backend.Backend`."""

    compile_seconds = 0.0

    def compile(
        self,
        step: Callable[..., Any],
        variables: Sequence[keras.Variable],
        donated: Sequence[str] = (),
    ) -> Callable[..., Any]:
        """Run the step on tensors, without recording gradients.

        What is compiled is the native program of its layers, which the first call writes.
        """
        programs: dict[Any, StepProgram | None] = {}

        @torch.inference_mode()
        def run(**arguments: Any) -> Any:
            tensors = {
                # What is donated is what an earlier step has returned.
                name: value if name in donated else keras.tree.map_structure(_to_tensor, value)
                for name, value in arguments.items()
            }
            with programs_kept(programs), threads_handed_over():
                return step(**tensors)

        return run

    def compile_for_each(
        self,
        step: Callable[..., Any],
        layers: Sequence[TransformerLayer],
        donated: Sequence[str] = (),
    ) -> list[Callable[..., Any]]:
        """Run the step on each layer."""
        return [
            self.compile(functools.partial(step, layer), layer.variables, donated)
            for layer in layers
        ]

    def write_block(self, buffer: Any, block: Any, row: Any, start: Any) -> Any:
        """Overwrite a slice in place."""
        row, start = int(row), int(start)
        buffer[row : row + block.shape[0], :, start : start + block.shape[2]] = block
        return buffer

    def write_tokens(self, buffer: Any, tokens: Any, positions: Any) -> Any:
        """Overwrite some positions of every row in place."""
        rows = torch.arange(buffer.shape[0], device=buffer.device)
        length = torch.arange(tokens.shape[2], device=buffer.device)
        buffer[rows[:, None], :, positions[:, None] + length] = tokens.transpose(1, 2)
        return buffer

    def top_k(self, scores: Any, k: int) -> tuple[Any, Any]:
        """Select by integers that order like the scores, and equal ones by their indices."""
        bits = torch.where(scores == 0, 0.0, scores).view(torch.int32).long()  # -0.0 is 0.0
        ordered = torch.where(bits < 0, -(2**31) - bits, bits)
        places = torch.arange(scores.shape[-1], device=scores.device)
        indices = torch.topk(ordered * 2**32 - places, k).indices
        return torch.gather(scores, -1, indices), indices.int()


def _to_tensor(value: Any) -> Any:
    return ops.convert_to_tensor(value) if isinstance(value, np.ndarray | np.generic) else value


BACKEND = TorchBackend()
