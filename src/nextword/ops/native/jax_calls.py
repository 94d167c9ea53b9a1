"""The native kernels as JAX functions."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from nextword.ops.native.jax_addresses import addressed
from nextword.ops.native.library import load_library
from nextword.ops.packed_layout import TILE, unpack

_FLOAT, _INT8 = "nextword_float_linear", "nextword_int8_linear"
_PACKED, _STEP = "nextword_packed_linear", "nextword_decode_step"


@functools.cache
def is_available() -> bool:
    """Return whether JAX computes where the kernels do, and has been told of them.

    It must be one device: what is spread over several, a call of ours would gather again.
    """
    library = load_library()
    if library is None or jax.default_backend() != "cpu" or jax.device_count() > 1:
        return False
    for name in (_FLOAT, _INT8, _PACKED, _STEP):
        handler = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(name, handler, platform="cpu")
    return True


def takes(inputs: Any) -> bool:
    """Return whether the kernels can compute with an array."""
    return True


def float_linear(inputs: Any, kernel: Any) -> Any:
    """Return `inputs @ kernel.T`.

    Args:
        inputs: float array of shape `[rows, in]`.
        kernel: float32 or bfloat16 array of shape `[out, in]`.

    Returns:
        Array of shape `[rows, out]` in the dtype of `inputs`, summed in float32.
    """
    return _float_linear(inputs, kernel)


@jax.custom_vjp
def _float_linear(inputs: Any, kernel: Any) -> Any:
    shape = jax.ShapeDtypeStruct((inputs.shape[0], kernel.shape[0]), jnp.float32)
    call = jax.ffi.ffi_call(_FLOAT, shape)
    return call(inputs.astype(jnp.float32), kernel).astype(inputs.dtype)


def _product(inputs: Any, kernel: Any) -> Any:
    return jnp.einsum("ri,oi->ro", inputs, kernel)


def _forward(inputs: Any, kernel: Any) -> Any:
    return _float_linear(inputs, kernel), (inputs, kernel)


def _backward(saved: Any, gradient: Any) -> Any:
    return jax.vjp(_product, *saved)[1](gradient)


_float_linear.defvjp(_forward, _backward)


@jax.custom_vjp
def int8_linear(inputs: Any, codes: Any, scales: Any) -> Any:
    """Return `inputs @ weights.T`; see `nextword.ops.int8_weight_linear`. Weights have no gradient.

    Args:
        inputs: float array of shape `[rows, in]`.
        codes: int8 array of shape `[out, in]`.
        scales: float32 array of shape `[out]`.

    Returns:
        Array of shape `[rows, out]` in the dtype of `inputs`.
    """
    shape = jax.ShapeDtypeStruct((inputs.shape[0], codes.shape[0]), jnp.float32)
    outputs = jax.ffi.ffi_call(_INT8, shape)(inputs.astype(jnp.float32), codes, scales)
    return outputs.astype(inputs.dtype)


def _int8_forward(inputs: Any, codes: Any, scales: Any) -> Any:
    return int8_linear(inputs, codes, scales), (codes, scales)


def _int8_backward(saved: Any, gradient: Any) -> Any:
    codes, scales = saved
    inputs = jnp.matmul(gradient / scales, codes.astype(jnp.float32)).astype(gradient.dtype)
    return inputs, np.zeros(codes.shape, jax.dtypes.float0), jnp.zeros_like(scales)


int8_linear.defvjp(_int8_forward, _int8_backward)


def packed_linear(
    inputs: Any, codes: Any, scales: Any, minimums: Any | None, *, bits: int, zero_point: int
) -> Any:
    """Return `inputs @ weights.T`; see `nextword.ops.packed_linear`.

    Activations are quantised to 15 bits in groups of 32 on the way, which changes less than the
    order of additions in float32 does. Weights have no gradient.

    Args:
        inputs: float array of shape `[rows, in]`.
        codes: see `nextword.ops.packed_linear`.
        scales: see `nextword.ops.packed_linear`.
        minimums: see `nextword.ops.packed_linear`.
        bits: see `nextword.ops.packed_linear`.
        zero_point: see `nextword.ops.packed_linear`.

    Returns:
        Array of shape `[rows, out]` in the dtype of `inputs`.
    """
    parameters = tuple(jnp.asarray(p) for p in (codes, scales, minimums) if p is not None)
    return _packed_linear(bits, zero_point, inputs, parameters)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _packed_linear(bits: int, zero_point: int, inputs: Any, parameters: tuple[Any, ...]) -> Any:
    codes, scales, *minimums = parameters
    shape = jax.ShapeDtypeStruct((inputs.shape[0], codes.shape[0] * TILE), jnp.float32)
    outputs = jax.ffi.ffi_call(_PACKED, shape)(
        inputs.astype(jnp.float32),
        codes,
        scales,
        minimums[0] if minimums else jnp.zeros((0,), jnp.float16),
        bits=np.int64(bits),
        zero_point=np.int64(zero_point),
    )
    return outputs.astype(inputs.dtype)


def _packed_forward(bits: int, zero_point: int, inputs: Any, parameters: tuple[Any, ...]) -> Any:
    return _packed_linear(bits, zero_point, inputs, parameters), parameters


def _packed_backward(bits: int, zero_point: int, parameters: Any, gradient: Any) -> Any:
    codes, scales, *minimums = parameters
    weights = unpack(
        codes, scales, minimums[0] if minimums else None, bits=bits, zero_point=zero_point
    )
    no_gradients = [
        np.zeros(p.shape, jax.dtypes.float0) if p.dtype == jnp.uint8 else jnp.zeros_like(p)
        for p in parameters
    ]
    return jnp.matmul(gradient, weights.astype(gradient.dtype)), tuple(no_gradients)


_packed_linear.defvjp(_packed_forward, _packed_backward)


Operands = list
"""Variables or arrays that every step of a program reads; None where `decode_step` is given one."""


def decode_step(
    hidden_states: Any,
    positions: Any,
    caches: Sequence[Any],
    operands: Sequence[Any],
    tables: Mapping[int, Any],
    *,
    program: np.ndarray,
    factors: np.ndarray,
    widths: np.ndarray,
    result: int,
) -> tuple[Any, Sequence[Any]]:
    """Run one decoding step; see `nextword.ops.native.step_program`.

    Args:
        hidden_states: float array of shape `[rows, length, width]`.
        positions: int32 array of shape `[rows]`.
        caches: the first of the arrays that the program names.
        operands: the others, `Operands`.
        tables: those that are not among `operands`, by their places there.
        program: the instructions, int64.
        factors: two of each instruction, float32.
        widths: of each register, int64.
        result: number of the register to return.

    Returns:
        An array like `hidden_states`, and the caches, which take the place of those given.
    """
    operands = [tables.get(place, operand) for place, operand in enumerate(operands)]
    addresses, places = addressed(operands)
    handed_over = [
        keras.ops.convert_to_tensor(operand)
        for operand, place in zip(operands, places, strict=True)
        if place < 0
    ]
    shapes = [
        jax.ShapeDtypeStruct(hidden_states.shape, jnp.float32),
        *(jax.ShapeDtypeStruct(cache.shape, cache.dtype) for cache in caches),
    ]
    call = jax.ffi.ffi_call(
        _STEP,
        shapes,
        input_output_aliases={3 + i: 1 + i for i in range(len(caches))},
    )
    outputs, *buffers = call(
        hidden_states.astype(jnp.float32),
        positions.astype(jnp.int32),
        addresses,
        *caches,
        *handed_over,
        places=places,
        program=program,
        factors=factors,
        widths=widths,
        result=np.int64(result),
    )
    return outputs.astype(hidden_states.dtype), buffers
