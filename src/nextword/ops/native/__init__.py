"""Native kernels for the processor: what XLA does not do at the speed of memory.

An optional extension, built where a C++ compiler is at hand. Without it, and for whatever it does
not cover, the portable operations beside this folder run.
"""

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from nextword.ops.native.library import kernels_in_use, kernels_used

__all__ = [
    "MOST_ROWS",
    "can_call_kernels",
    "has_few_rows",
    "kernel_calls",
    "kernels_in_use",
    "kernels_used",
    "on_rows",
    "uses_kernels",
]

MOST_ROWS = 16
"""More rows of floats than these share each weight that is read: the backend is as good then."""


_BACKENDS = ("jax", "torch")


@functools.cache
def kernel_calls() -> Any:
    """Return the module that calls the kernels from the Keras backend, which is one of these."""
    return importlib.import_module(f"nextword.ops.native.{keras.backend.backend()}_calls")


def uses_kernels() -> bool:
    """Return whether the kernels compute: they are built, and Keras is on JAX or PyTorch here."""
    if keras.backend.backend() not in _BACKENDS or kernels_in_use() is None:
        return False
    return bool(kernel_calls().is_available())


def has_few_rows(inputs: Any) -> bool:
    """Return whether the kernels are there for a tensor, and the faster way for its rows."""
    return can_call_kernels(inputs) and math.prod(inputs.shape[:-1]) <= MOST_ROWS


def on_rows(kernel: Callable[..., Any], inputs: Any, *weights: Any) -> Any:
    """Call a kernel for arrays of shape `[rows, in]` with a tensor of shape `[..., in]`."""
    inputs = ops.convert_to_tensor(inputs)
    tensors = (None if each is None else ops.convert_to_tensor(each) for each in weights)
    outputs = kernel(inputs.reshape(-1, inputs.shape[-1]), *tensors)
    return outputs.reshape(*inputs.shape[:-1], outputs.shape[-1])


def can_call_kernels(inputs: Any) -> bool:
    """Return whether the kernels are there for a tensor, one with a shape.

    On PyTorch, whose operators of ours have no gradients, only where none are recorded; and what
    PyTorch compiles it computes by itself.
    """
    if isinstance(inputs, keras.KerasTensor) or None in inputs.shape or _is_compiled_by_torch():
        return False
    return uses_kernels() and kernel_calls().takes(inputs)


def _is_compiled_by_torch() -> bool:
    if keras.backend.backend() != "torch":
        return False
    import torch

    return torch.compiler.is_compiling()
