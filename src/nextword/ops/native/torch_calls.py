"""The native kernels as PyTorch operators, `torch.ops.nextword`.

They have no gradients, and differentiating them is an error. PyTorch's arrays are handed over by
their addresses, through ctypes, so that neither needs the other when it is built.
"""

import contextlib
import contextvars
import ctypes
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import torch

from nextword.ops.native.described import MOST_DIMENSIONS, TYPES, described, description
from nextword.ops.native.library import load_library
from nextword.ops.packed_layout import TILE

_NAMES = {getattr(torch, name): name for name in TYPES}


@functools.cache
def is_available() -> bool:
    """Return whether Keras has PyTorch compute where the kernels do."""
    return load_library() is not None and keras.ops.zeros(()).device.type == "cpu"


_num_threads: contextvars.ContextVar[int | None] = contextvars.ContextVar(
    "num_threads", default=None
)


@contextlib.contextmanager
def threads_handed_over() -> Iterator[None]:
    """Let a decoding step in this context take PyTorch's threads, until the context ends.

    OpenMP's threads, on which PyTorch's operators run, go on looking for work for milliseconds, in
    the way of the kernels' own. What there is to do beside a step one thread does as well.
    """
    num_threads = torch.get_num_threads()
    token = _num_threads.set(num_threads)
    try:
        yield
    finally:
        _num_threads.reset(token)
        _set_openmp_threads(num_threads)


def _set_openmp_threads(count: int) -> None:
    """Set the number of threads for operators that this thread calls.

    Not by `torch.set_num_threads`, which sets it for threads that start meanwhile, too.
    """
    if torch.get_num_threads() != count and hasattr(_process(), "omp_set_num_threads"):
        _process().omp_set_num_threads(count)


@functools.cache
def _process() -> ctypes.CDLL:
    """Return what this process has loaded, with PyTorch OpenMP."""
    return ctypes.CDLL(None)


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


class Operands:
    """What every step of a program reads, described once.

    Args:
        operands: variables or tensors; None where `decode_step` is given one.
    """

    def __init__(self, operands: Sequence[Any]) -> None:
        self._tensors = [
            each.value if isinstance(each, keras.Variable) else each for each in operands
        ]
        self._addresses: list[int] | None = None
        self._kept: list[torch.Tensor] = []  # so that the addresses stay theirs
        self._described: torch.Tensor

    def described(self) -> torch.Tensor:
        """Return the numbers of an array of array.h for each, int64 `[tensors, numbers]`."""
        addresses = [0 if each is None else each.data_ptr() for each in self._tensors]
        if addresses != self._addresses:  # the first time, or when one is given other memory
            none = torch.zeros(0)
            dense = [none if each is None else each.detach() for each in self._tensors]
            self._kept = [each.contiguous() for each in dense]
            self._described = torch.from_numpy(_described(self._kept))
            self._addresses = addresses
        return self._described


def decode_step(
    hidden_states: torch.Tensor,
    positions: torch.Tensor,
    caches: Sequence[torch.Tensor],
    operands: Operands,
    tables: Mapping[int, torch.Tensor],
    *,
    program: np.ndarray,
    factors: np.ndarray,
    widths: np.ndarray,
    result: int,
) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
    """Run one decoding step; see `nextword.ops.native.jax_calls.decode_step`.

    The caches are changed in place.
    """
    if _num_threads.get() is not None:
        _set_openmp_threads(1)
    outputs = _decode_step(
        hidden_states.float(),
        positions.int(),
        caches,
        operands.described(),
        list(tables.values()),
        list(tables),
        *(torch.from_numpy(numbers) for numbers in (program, factors, widths)),
        result,
    )
    return outputs.to(hidden_states.dtype), caches


def _described(tensors: Sequence[torch.Tensor]) -> np.ndarray:
    """Return the numbers of an array of array.h for each tensor, int64 `[tensors, numbers]`.

    Raises:
        ValueError: array.h has no such arrays.
    """
    rows: list[list[int]] = []
    for tensor in tensors:
        if tensor.dim() > MOST_DIMENSIONS or not tensor.is_contiguous():
            raise ValueError(
                f"A tensor must be contiguous and have at most {MOST_DIMENSIONS} axes. Received: "
                f"shape={tuple(tensor.shape)}, strides={tensor.stride()}."
            )
        name = _NAMES.get(tensor.dtype, "")
        rows.append(description(tensor.data_ptr(), name, tensor.shape))
    return described(rows)


def _call(function: str, arrays: np.ndarray, *arguments: int) -> None:
    """Call a function of c_functions.cc.

    Args:
        function: its name, without what all the names begin with.
        arrays: the arrays that it takes, as `_described` returns them.
        *arguments: what it takes beside them and the number of threads.

    Raises:
        ValueError: the arrays do not fit.
    """
    call = getattr(load_library(), f"nextword_c_{function}")
    call.restype = ctypes.c_char_p
    num_threads = _num_threads.get() or torch.get_num_threads()
    numbers = (arrays.ctypes.data, *arguments, num_threads)
    if error := call(*map(ctypes.c_int64, numbers)):
        raise ValueError(error.decode())


@torch.library.custom_op("nextword::float_linear", mutates_args=(), device_types="cpu")
def _float_linear(inputs: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    outputs = inputs.new_empty(inputs.shape[0], kernel.shape[0])
    dense = [inputs.contiguous(), kernel.contiguous(), outputs]
    _call("float_linear", _described(dense))
    return outputs


def _fake_outputs(inputs: torch.Tensor, weights: torch.Tensor, *_: Any) -> torch.Tensor:
    """Return what stands for the outputs of a linear layer where nothing is computed."""
    return inputs.new_empty(inputs.shape[0], weights.shape[0])


_float_linear.register_fake(_fake_outputs)


@torch.library.custom_op("nextword::int8_linear", mutates_args=(), device_types="cpu")
def _int8_linear(inputs: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    outputs = inputs.new_empty(inputs.shape[0], codes.shape[0])
    dense = [inputs.contiguous(), codes.contiguous(), scales.contiguous(), outputs]
    _call("int8_linear", _described(dense))
    return outputs


_int8_linear.register_fake(_fake_outputs)


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
    arrays = [inputs, codes, scales, scales.new_empty(0) if minimums is None else minimums]
    dense = [*(array.contiguous() for array in arrays), outputs]
    _call("packed_linear", _described(dense), bits, zero_point)
    return outputs


_packed_linear.register_fake(
    lambda inputs, codes, *_: inputs.new_empty(inputs.shape[0], TILE * codes.shape[0])
)


@torch.library.custom_op("nextword::decode_step", mutates_args=("caches",), device_types="cpu")
def _decode_step(
    hidden_states: torch.Tensor,
    positions: torch.Tensor,
    caches: Sequence[torch.Tensor],
    operands: torch.Tensor,
    tables: Sequence[torch.Tensor],
    places: Sequence[int],
    program: torch.Tensor,
    factors: torch.Tensor,
    widths: torch.Tensor,
    result: int,
) -> torch.Tensor:
    outputs = torch.empty(hidden_states.shape)
    dense = [hidden_states.contiguous(), positions.contiguous(), outputs, *caches]
    others = operands.numpy().copy()
    tables = [table.contiguous() for table in tables]
    for place, row in zip(places, _described(tables), strict=True):
        others[place] = row
    arrays = np.concatenate([_described(dense), others])
    numbers = [
        number for each in (program, factors, widths) for number in (each.data_ptr(), each.numel())
    ]
    _call("decode_step", arrays, len(arrays), len(caches), *numbers, result)
    return outputs


_decode_step.register_fake(lambda hidden_states, *_: torch.empty_like(hidden_states))
