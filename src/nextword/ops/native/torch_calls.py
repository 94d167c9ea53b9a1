"""The native kernels as PyTorch operators, `torch.ops.nextword`.

They have no gradients, and differentiating them is an error. PyTorch's arrays are handed over by
their addresses, through ctypes, so that neither needs the other when it is built.
"""

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import torch

from nextword.ops.native.library import load_library
from nextword.ops.packed_layout import TILE

_MOST_DIMENSIONS = 4
_TYPES = {
    torch.float32: 0,
    torch.bfloat16: 1,
    torch.float16: 2,
    torch.uint8: 3,
    torch.int8: 4,
    torch.int32: 5,
}
"""By the order in array.h."""
_OTHER = 6


@functools.cache
def is_available() -> bool:
    """Return whether Keras has PyTorch compute where the kernels do."""
    return load_library() is not None and keras.ops.zeros(()).device.type == "cpu"


def takes(inputs: Any) -> bool:
    """Return whether the kernels can compute with a tensor: here, and without a gradient."""
    is_here = isinstance(inputs, torch.Tensor) and inputs.device.type == "cpu"
    return is_here and not torch.is_grad_enabled()


def float_linear(inputs: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Return `inputs @ kernel.T`.

    Args:
        inputs: float tensor of shape `[rows, in]`.
        kernel: float32 or bfloat16 tensor of shape `[out, in]`.

    Returns:
        Tensor of shape `[rows, out]` in the dtype of `inputs`, summed in float32.
    """
    return _float_linear(inputs.float(), kernel).to(inputs.dtype)


def int8_linear(inputs: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return `inputs @ weights.T`; see `nextword.ops.int8_weight_linear`.

    Args:
        inputs: float tensor of shape `[rows, in]`.
        codes: int8 tensor of shape `[out, in]`.
        scales: float32 tensor of shape `[out]`.

    Returns:
        Tensor of shape `[rows, out]` in the dtype of `inputs`.
    """
    return _int8_linear(inputs.float(), codes, scales).to(inputs.dtype)


def packed_linear(
    inputs: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    minimums: torch.Tensor | None,
    *,
    bits: int,
    zero_point: int,
) -> torch.Tensor:
    """Return `inputs @ weights.T`; see `nextword.ops.native.jax_calls.packed_linear`."""
    outputs = _packed_linear(inputs.float(), codes, scales, minimums, bits, zero_point)
    return outputs.to(inputs.dtype)


def decode_step(
    hidden_states: torch.Tensor,
    positions: torch.Tensor,
    operands: Sequence[torch.Tensor],
    *,
    num_caches: int,
    program: np.ndarray,
    factors: np.ndarray,
    widths: np.ndarray,
    result: int,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Run one decoding step; see `nextword.ops.native.jax_calls.decode_step`.

    The caches are changed in place.
    """
    caches = list(operands[:num_caches])
    outputs = _decode_step(
        hidden_states.float(),
        positions.int(),
        caches,
        list(operands[num_caches:]),
        *(torch.from_numpy(numbers) for numbers in (program, factors, widths)),
        result,
    )
    return outputs.to(hidden_states.dtype), caches


def _call(function: str, tensors: Sequence[torch.Tensor], *arguments: Any) -> None:
    """Call a function of c_functions.cc.

    Args:
        function: its name, without what all the names begin with.
        tensors: the arrays that it takes; those that it changes are contiguous.
        *arguments: what it takes beside them and the number of threads.

    Raises:
        ValueError: the tensors do not fit.
    """
    library = load_library()
    call: Callable[..., bytes | None] = getattr(library, f"nextword_c_{function}")
    call.restype = ctypes.c_char_p  # type: ignore[attr-defined]
    dense = [tensor.contiguous() for tensor in tensors]  # alive until the call has ended
    numbers: list[int] = []
    for tensor in dense:
        dimensions = tensor.dim()
        if dimensions > _MOST_DIMENSIONS:
            raise ValueError(f"A tensor has too many axes. Received: shape={tuple(tensor.shape)}.")
        numbers += (tensor.data_ptr(), _TYPES.get(tensor.dtype, _OTHER), dimensions, *tensor.shape)
        numbers += (0,) * (_MOST_DIMENSIONS - dimensions)
    arrays = (ctypes.c_int64 * len(numbers))(*numbers)
    integers = (ctypes.c_int64(argument) for argument in (*arguments, torch.get_num_threads()))
    if error := call(arrays, *integers):
        raise ValueError(error.decode())


@torch.library.custom_op("nextword::float_linear", mutates_args=(), device_types="cpu")
def _float_linear(inputs: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    outputs = inputs.new_empty(inputs.shape[0], kernel.shape[0])
    _call("float_linear", [inputs, kernel, outputs])
    return outputs


@_float_linear.register_fake
def _(inputs: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    return inputs.new_empty(inputs.shape[0], kernel.shape[0])


@torch.library.custom_op("nextword::int8_linear", mutates_args=(), device_types="cpu")
def _int8_linear(inputs: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    outputs = inputs.new_empty(inputs.shape[0], codes.shape[0])
    _call("int8_linear", [inputs, codes, scales, outputs])
    return outputs


@_int8_linear.register_fake
def _(inputs: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return inputs.new_empty(inputs.shape[0], codes.shape[0])


@torch.library.custom_op("nextword::packed_linear", mutates_args=(), device_types="cpu")
def _packed_linear(
    inputs: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    minimums: torch.Tensor | None,
    bits: int,
    zero_point: int,
) -> torch.Tensor:
    outputs = inputs.new_empty(inputs.shape[0], TILE * codes.shape[0])
    none = scales.new_empty(0)
    arrays = [inputs, codes, scales, none if minimums is None else minimums, outputs]
    _call("packed_linear", arrays, bits, zero_point)
    return outputs


@_packed_linear.register_fake
def _(
    inputs: torch.Tensor,
    codes: torch.Tensor,
    scales: torch.Tensor,
    minimums: torch.Tensor | None,
    bits: int,
    zero_point: int,
) -> torch.Tensor:
    return inputs.new_empty(inputs.shape[0], TILE * codes.shape[0])


@torch.library.custom_op("nextword::decode_step", mutates_args=("caches",), device_types="cpu")
def _decode_step(
    hidden_states: torch.Tensor,
    positions: torch.Tensor,
    caches: Sequence[torch.Tensor],
    operands: Sequence[torch.Tensor],
    program: torch.Tensor,
    factors: torch.Tensor,
    widths: torch.Tensor,
    result: int,
) -> torch.Tensor:
    if not all(cache.is_contiguous() for cache in caches):
        raise ValueError("A step's caches must be contiguous, as they are changed in place.")
    outputs = torch.empty(hidden_states.shape)
    arrays = [hidden_states, positions, outputs, *caches, *operands]
    numbers = [
        number for each in (program, factors, widths) for number in (each.data_ptr(), each.numel())
    ]
    _call("decode_step", arrays, len(arrays), len(caches), *numbers, result)
    return outputs


@_decode_step.register_fake
def _(
    hidden_states: torch.Tensor,
    positions: torch.Tensor,
    caches: Sequence[torch.Tensor],
    operands: Sequence[torch.Tensor],
    program: torch.Tensor,
    factors: torch.Tensor,
    widths: torch.Tensor,
    result: int,
) -> torch.Tensor:
    return torch.empty_like(hidden_states)
