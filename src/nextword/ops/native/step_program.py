"""One decoding step through a stack of layers, written as a program for the native kernels.

Each layer says in its `emit` what it computes, in the instructions below; `StepProgram.run` then
calls the kernels once for all of them. `step.cc` executes them, and `step_operations.cc` says what
their numbers mean.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any

import keras


class NotCoveredError(Exception):
    """The instructions do not cover something that a model does; the portable operations do."""


class Code(enum.IntEnum):
    """What an instruction does."""

    NORM = 0
    QUANTIZE = 1
    LINEAR = 2
    ROTATE = 3
    STORE = 4
    ATTEND = 5
    ACTIVATE = 6
    ADD = 7


_ACTIVATIONS = ("silu", "gelu_tanh", "quick_gelu", "gelu", "relu")


class _MatrixKind(enum.IntEnum):
    FLOAT32 = 0
    BFLOAT16 = 1
    PACKED = 2
    INT8 = 3


@dataclasses.dataclass(frozen=True)
class Register:
    """What an instruction has computed: `width` floats for each token."""

    number: int
    width: int


@dataclasses.dataclass(frozen=True)
class NativeMatrix:
    """A matrix `[outputs, inputs]` as the kernels read it.

    Attributes:
        outputs: number of rows.
        inputs: number of columns.
        values: float32, bfloat16 or int8 tensor `[outputs, inputs]`, or codes of packed weights.
        scales: of packed weights, see `nextword.ops.packed_linear`; of int8, see
            `nextword.ops.int8_weight_linear`.
        minimums: of packed weights.
        bits: of packed weights.
        zero_point: of packed weights.
    """

    outputs: int
    inputs: int
    values: Any
    scales: Any | None = None
    minimums: Any | None = None
    bits: int = 0
    zero_point: int = 0


class StepProgram:
    """A program and its operands. Only JAX can run it.

    Args:
        width: number of floats of each token's hidden state.
        caches: keys and values of each layer, float tensors of shape
            `[rows, heads, capacity, width]` in float32 or bfloat16.

    Attributes:
        hidden_states: the register with what the program is given.
    """

    def __init__(self, width: int, caches: Sequence[tuple[Any, Any]]) -> None:
        self._instructions: list[tuple[Code, list[int], list[float]]] = []
        self._widths: list[int] = []
        self._free: list[int] = []
        self._operands = [buffer for layer in caches for buffer in layer]
        self._num_caches = len(self._operands)
        self._cache_numbers = {id(cache): i for i, cache in enumerate(self._operands)}
        self._quantized: Register | None = None
        for operand in self._operands:
            _check_dtype(operand, "float32", "bfloat16")
        self.hidden_states = self._register(width)

    def norm(
        self,
        inputs: Register,
        scale: Any,
        bias: Any | None,
        *,
        heads: int,
        is_centered: bool,
        epsilon: float,
        offset: float,
    ) -> Register:
        """Normalize each of a number of heads; see `nextword.layers.Normalization`."""
        outputs = self._register(inputs.width)
        integers = [outputs.number, inputs.number, heads, inputs.width // heads, int(is_centered)]
        integers += [self._floats(scale), self._floats(bias)]
        self._add(Code.NORM, integers, epsilon, offset)
        return outputs

    def linear(
        self, inputs: Register, *layers: tuple[NativeMatrix, Any | None]
    ) -> tuple[Register, ...]:
        """Multiply with several matrices.

        Args:
            inputs: what they share.
            *layers: matrices, each with its bias or None.
        """
        if any(matrix.bits for matrix, _ in layers) and self._quantized != inputs:
            self._add(Code.QUANTIZE, [inputs.number, inputs.width])
            self._quantized = inputs
        integers = [inputs.number, inputs.width]
        outputs = []
        for matrix, bias in layers:
            if matrix.inputs != inputs.width or (matrix.bits and matrix.outputs % 16):
                raise NotCoveredError
            outputs.append(self._register(matrix.outputs))
            integers += [outputs[-1].number, matrix.outputs, *self._matrix(matrix)]
            integers += [matrix.bits, matrix.zero_point, self._floats(bias)]
        self._add(Code.LINEAR, integers)
        return tuple(outputs)

    def rotate(self, heads: Register, count: int, table: Any) -> None:
        """Rotate heads in place.

        Args:
            heads: the heads of each token, one after the other.
            count: number of heads.
            table: float32 tensor of shape `[rows, length, 2 * pairs]`, cosines and then sines.
        """
        integers = [heads.number, count, heads.width // count, table.shape[-1] // 2]
        self._add(Code.ROTATE, [*integers, self._operand(table)])

    def store(self, heads: Register, count: int, cache: Any) -> None:
        """Write heads into one of the program's caches."""
        self._add(
            Code.STORE, [heads.number, count, heads.width // count, self._cache_numbers[id(cache)]]
        )

    def attend(
        self,
        query: Register,
        heads: int,
        cache: tuple[Any, Any],
        *,
        scale: float,
        soft_cap: float | None,
        slopes: Any | None,
        sinks: Any | None,
        window: int | None,
    ) -> Register:
        """Attend to what is cached up to each token; see `nextword.ops.attention`.

        Args:
            query: the queries of each token, head by head.
            heads: number of query heads.
            cache: two of the program's caches, keys and values, with the new tokens' in them.
            scale: factor of the dot products.
            soft_cap: their bound, or None.
            slopes: factors `[heads]` of the keys' positions, which are added; or None.
            sinks: see `nextword.ops.attention`.
            window: number of tokens, itself included, that a token sees; None for all.
        """
        keys, values = cache
        outputs = self._register(heads * values.shape[-1])
        integers = [outputs.number, query.number, heads, keys.shape[1]]
        integers += [keys.shape[-1], values.shape[-1]]
        integers += [self._cache_numbers[id(keys)], self._cache_numbers[id(values)]]
        integers += [self._floats(slopes), self._floats(sinks), window or 0]
        self._add(Code.ATTEND, integers, scale, soft_cap or 0.0)
        return outputs

    def activate(
        self,
        activation: str,
        gate: Register,
        gated: Register | None = None,
        *,
        limit: float | None = None,
    ) -> Register:
        """Activate, and multiply with what is gated if that is given; see `FeedForward`."""
        outputs = self._register(gate.width)
        integers = [outputs.number, gate.number, gated.number if gated else -1, gate.width]
        self._add(Code.ACTIVATE, [*integers, _ACTIVATIONS.index(activation)], limit or 0.0)
        return outputs

    def add(self, first: Register, second: Register, factor: float = 1.0) -> Register:
        """Return `first + factor * second`."""
        outputs = self._register(first.width)
        integers = [outputs.number, first.number, second.number, first.width]
        self._add(Code.ADD, integers, factor)
        return outputs

    def run(
        self, hidden_states: Any, positions: Any, result: Register
    ) -> tuple[Any, list[tuple[Any, Any]]]:
        """Run the program.

        Args:
            hidden_states: float tensor of shape `[rows, length, width]`.
            positions: int32 tensor of shape `[rows]`, of each row's first token.
            result: the register to return.

        Returns:
            A tensor like `hidden_states`, and the caches with the new tokens in them, which take
            the place of those that the program was given.
        """
        from nextword.ops.native.jax_calls import decode_step  # which needs JAX

        program: list[int] = []
        factors: list[float] = []
        for code, integers, own_factors in self._instructions:
            program += [code, len(integers), *integers]
            factors += own_factors
        outputs, buffers = decode_step(
            hidden_states,
            positions,
            self._operands,
            num_caches=self._num_caches,
            program=program,
            factors=factors,
            widths=self._widths,
            result=result.number,
        )
        return outputs, list(zip(buffers[::2], buffers[1::2], strict=True))

    def keep_only(self, register: Register) -> None:
        """Use the memory of every other register again."""
        self._quantized = None
        self._free = [number for number in range(len(self._widths)) if number != register.number]

    def _register(self, width: int) -> Register:
        for number in self._free:
            if self._widths[number] == width:
                self._free.remove(number)
                return Register(number, width)
        self._widths.append(width)
        return Register(len(self._widths) - 1, width)

    def _add(self, code: Code, integers: list[int], *factors: float) -> None:
        self._instructions.append((code, integers, [*factors, 0.0, 0.0][:2]))

    def _operand(self, array: Any) -> int:
        self._operands.append(keras.ops.convert_to_tensor(array))
        return len(self._operands) - 1

    def _floats(self, array: Any | None) -> int:
        if array is None:
            return -1
        _check_dtype(array, "float32", "bfloat16")
        return self._operand(array)

    def _matrix(self, matrix: NativeMatrix) -> list[int]:
        """Return the kind of a matrix and the numbers of its arrays."""
        arrays = (matrix.values, matrix.scales, matrix.minimums)
        if matrix.bits:
            kind = _MatrixKind.PACKED
        else:
            dtype = _check_dtype(matrix.values, "float32", "bfloat16", "int8")
            kind = _MatrixKind[dtype.upper()]
        return [kind, *(-1 if array is None else self._operand(array) for array in arrays)]


def _check_dtype(array: Any, *accepted: str) -> str:
    """Return the dtype of an array that is one of those that the kernels read."""
    dtype = keras.backend.standardize_dtype(array.dtype)
    if dtype not in accepted:
        raise NotCoveredError
    return str(dtype)
