"""Native kernels for the processor: what XLA does not do at the speed of memory.

An optional extension, built where a C++ compiler is at hand. Without it, and for whatever it does
not cover, the portable operations beside this folder run.
"""

from typing import Any

import keras

from nextword.ops.native.library import kernels_in_use, kernels_used

__all__ = ["MOST_ROWS", "can_call_kernels", "kernels_in_use", "kernels_used", "uses_kernels"]

MOST_ROWS = 16
"""More rows of floats than these share each weight that is read: the backend is as good then."""


def uses_kernels() -> bool:
    """Return whether the kernels compute: they are built, and Keras is on JAX, on the processor."""
    if keras.backend.backend() != "jax" or kernels_in_use() is None:
        return False
    from nextword.ops.native import jax_calls  # which needs JAX

    return jax_calls.is_available()


def can_call_kernels(inputs: Any) -> bool:
    """Return whether the kernels are there for a tensor, one with a shape."""
    if isinstance(inputs, keras.KerasTensor) or None in inputs.shape:
        return False
    return uses_kernels()
