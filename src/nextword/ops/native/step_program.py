"""One decoding step through a stack of layers, written as a program for the native kernels.

Each layer says in its `emit` what it computes, in the instructions below; `StepProgram.run` then
calls the kernels once for all of them, as often as there are steps. `step.cc` executes them, and
`step_operations.cc` and `expert_operations.h` say what their numbers mean.
"""

import contextlib
import contextvars
import dataclasses
import enum
import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from nextword.ops.native import kernel_calls


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
    ROUTE = 8
    EXPERT_LINEAR = 9
    MIX = 10


_ACTIVATIONS = ("silu", "gelu_tanh", "quick_gelu", "gelu", "relu", "relu_squared")


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
        values: float32, bfloat16 or int8 variable `[outputs, inputs]`, or codes of packed weights.
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


@dataclasses.dataclass(frozen=True)
class Cache:
    """The keys or the values of a layer, among the caches that a program is run with.

    Attributes:
        number: its place among them.
        heads: number of heads.
        width: of a head.
    """

    number: int
    heads: int
    width: int


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which experts were chosen for each token, and their weights.

    Attributes:
        register: both, where the instructions find them.
        num_experts: number of all experts.
        chosen: number of those that were chosen for a token.
    """

    register: Register
    num_experts: int
    chosen: int


class Rotation(Protocol):
    """What heads are rotated by, see `nextword.layers.rotary_embedding.RotaryEmbedding`.

    Attributes:
        angles: what the angles follow from: two rotations that agree on it are alike.
        pairs: number of pairs of a head's numbers that are rotated.
    """

    @property
    def angles(self) -> Hashable: ...

    @property
    def pairs(self) -> int: ...

    def table(self, positions: Any, lengths: Any) -> Any:
        """Return the cosines and then the sines, float32 `[rows, length, 2 * pairs]`.

        Args:
            positions: int32 tensor of shape `[rows, length]`.
            lengths: int32 tensor of shape `[rows]`, the number of tokens of each row.
        """
        ...


class StepProgram:
    """A program and the weights that it reads.

    Args:
        width: number of floats of each token's hidden state.
        caches: keys and values of each layer, as `run` will be given them, or others like them.

    Attributes:
        hidden_states: the register with what the program is given.
        caches: keys and values of each layer.
        result: the register with what the program returns, at first that of what it is given.
    """

    def __init__(self, width: int, caches: Sequence[tuple[Any, Any]]) -> None:
        self._instructions: list[tuple[Code, list[int], list[float]]] = []
        self._widths: list[int] = []
        self._free: list[int] = []
        self._rotations: dict[Hashable, tuple[int, Rotation]] = {}
        self._quantized: Register | None = None
        buffers = [buffer for layer in caches for buffer in layer]
        for buffer in buffers:
            _check_dtype(buffer, "float32", "bfloat16")
        slots = [
            Cache(number, buffer.shape[1], buffer.shape[3]) for number, buffer in enumerate(buffers)
        ]
        self.caches = list(zip(slots[::2], slots[1::2], strict=True))
        self._num_caches = len(slots)
        self._operands: list[Any] = []  # behind the caches; None for a table
        self.hidden_states = self.result = self._register(width)

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
            integers.append(self._floats(bias))
        self._add(Code.LINEAR, integers)
        return tuple(outputs)

    def rotate(self, heads: Register, count: int, rotation: Rotation) -> None:
        """Rotate heads in place.

        Args:
            heads: the heads of each token, one after the other.
            count: number of heads.
            rotation: what they are rotated by.
        """
        if rotation.angles not in self._rotations:
            self._rotations[rotation.angles] = self._place(None), rotation
        table, _ = self._rotations[rotation.angles]
        self._add(Code.ROTATE, [heads.number, count, heads.width // count, rotation.pairs, table])

    def store(self, heads: Register, count: int, cache: Cache) -> None:
        """Write heads into one of the caches."""
        self._add(Code.STORE, [heads.number, count, heads.width // count, cache.number])

    def attend(
        self,
        query: Register,
        heads: int,
        cache: tuple[Cache, Cache],
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
            cache: keys and values, with the new tokens' in them.
            scale: factor of the dot products.
            soft_cap: their bound, or None.
            slopes: factors `[heads]` of the keys' positions, which are added; or None.
            sinks: see `nextword.ops.attention`.
            window: number of tokens, itself included, that a token sees; None for all.
        """
        keys, values = cache
        outputs = self._register(heads * values.width)
        integers = [outputs.number, query.number, heads, keys.heads]
        integers += [keys.width, values.width, keys.number, values.number]
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

    def route(
        self,
        logits: Register,
        choice_bias: Any | None,
        *,
        chosen: int,
        is_sigmoid: bool,
        is_normalized: bool,
        scale: float = 1.0,
        groups: int = 1,
        chosen_groups: int = 1,
        scores_per_group: int = 1,
    ) -> Choice:
        """Choose experts for each token by a router's logits; see `ExpertsConfig`."""
        outputs = self._register(2 * chosen)
        integers = [outputs.number, logits.number, logits.width, chosen, int(is_sigmoid)]
        integers += [int(is_normalized), groups, chosen_groups, scores_per_group]
        self._add(Code.ROUTE, [*integers, self._floats(choice_bias)], scale)
        return Choice(outputs, logits.width, chosen)

    def expert_linear(
        self, inputs: Register, choice: Choice, *layers: tuple[NativeMatrix, Any | None]
    ) -> tuple[Register, ...]:
        """Multiply with matrices of the experts that were chosen for each token.

        Args:
            inputs: what the chosen share, or what each of them has for itself, one after the other.
            choice: which were chosen.
            *layers: the matrices of all experts, one behind the other as one matrix, each with
                its biases `[num_experts, outputs]` or None.

        Returns:
            For each matrix what the chosen make of it, one after the other.
        """
        width = layers[0][0].inputs
        integers = [inputs.number, choice.register.number, choice.num_experts, choice.chosen]
        integers += [width, int(inputs.width != width)]
        outputs = []
        for matrix, biases in layers:
            own = matrix.outputs // choice.num_experts
            if matrix.bits and own % 16:
                raise NotCoveredError
            outputs.append(self._register(choice.chosen * own))
            integers += [outputs[-1].number, own, *self._matrix(matrix), self._floats(biases)]
        self._add(Code.EXPERT_LINEAR, integers)
        return tuple(outputs)

    def mix(self, inputs: Register, choice: Choice) -> Register:
        """Add up what each of the chosen experts says, times its weight."""
        outputs = self._register(inputs.width // choice.chosen)
        integers = [outputs.number, inputs.number, choice.register.number, choice.chosen]
        self._add(Code.MIX, [*integers, outputs.width])
        return outputs

    def run(
        self,
        hidden_states: Any,
        positions: Any,
        lengths: Any,
        caches: Sequence[tuple[Any, Any]],
    ) -> tuple[Any, list[tuple[Any, Any]]]:
        """Run the program.

        Args:
            hidden_states: float tensor of shape `[rows, length, width]`.
            positions: int32 tensor of shape `[rows, length]`; those of a row are consecutive.
            lengths: see `Rotation.table`.
            caches: keys and values of each layer, float tensors of shape
                `[rows, heads, capacity, width]` in float32 or bfloat16.

        Returns:
            A tensor like `hidden_states`, and the caches with the new tokens in them, which take
            the place of those that were given.
        """
        program, factors, widths = self._numbers
        outputs, buffers = kernel_calls().decode_step(
            hidden_states,
            positions[:, 0],
            [buffer for layer in caches for buffer in layer],
            self._prepared_operands,
            {
                number - self._num_caches: rotation.table(positions, lengths)
                for number, rotation in self._rotations.values()
            },
            program=program,
            factors=factors,
            widths=widths,
            result=self.result.number,
        )
        return outputs, list(zip(buffers[::2], buffers[1::2], strict=True))

    def run_without_caches(self, hidden_states: Any) -> Any:
        """Run a program that no cache belongs to, for any number of tokens.

        Args:
            hidden_states: float tensor of shape `[rows, length, width]`.

        Returns:
            A tensor like it.
        """
        nowhere = keras.ops.zeros(hidden_states.shape[:2], "int32")
        return self.run(hidden_states, nowhere, nowhere[:, 0], [])[0]

    @functools.cached_property
    def _prepared_operands(self) -> Any:
        return kernel_calls().Operands(self._operands)

    @functools.cached_property
    def _numbers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The instructions, two factors of each, and the registers' widths."""
        program: list[int] = []
        factors: list[float] = []
        for code, integers, own_factors in self._instructions:
            program += [code, len(integers), *integers]
            factors += own_factors
        return (
            np.array(program, np.int64),
            np.array(factors, np.float32),
            np.array(self._widths, np.int64),
        )

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

    def _place(self, operand: Any | None) -> int:
        self._operands.append(operand)
        return self._num_caches + len(self._operands) - 1

    def _floats(self, array: Any | None) -> int:
        if array is None:
            return -1
        _check_dtype(array, "float32", "bfloat16")
        return self._place(array)

    def _matrix(self, matrix: NativeMatrix) -> list[int]:
        """Return the kind of a matrix, the numbers of its arrays, its bits and its zero point."""
        arrays = (matrix.values, matrix.scales, matrix.minimums)
        if matrix.bits:
            kind = _MatrixKind.PACKED
        else:
            dtype = _check_dtype(matrix.values, "float32", "bfloat16", "int8")
            kind = _MatrixKind[dtype.upper()]
        places = [-1 if array is None else self._place(array) for array in arrays]
        return [kind, *places, matrix.bits, matrix.zero_point]


_kept: contextvars.ContextVar[dict[Any, StepProgram | None] | None] = contextvars.ContextVar(
    "kept", default=None
)


@contextlib.contextmanager
def programs_kept(programs: dict[Any, StepProgram | None]) -> Iterator[None]:
    """Let programs be written once in all contexts that are given the same dictionary.

    Args:
        programs: where they are kept. It must not outlive the weights that the programs read.
    """
    token = _kept.set(programs)
    try:
        yield
    finally:
        _kept.reset(token)


def written(key: Hashable, write: Callable[[], StepProgram]) -> StepProgram | None:
    """Return a program that is kept, or else write it.

    Args:
        key: what the program is for.
        write: writes it.

    Returns:
        The program; None if its instructions do not cover what the model does.
    """
    kept = _kept.get()
    if kept is not None and key in kept:
        return kept[key]
    program = None
    with contextlib.suppress(NotCoveredError):
        program = write()
    if kept is not None:
        kept[key] = program
    return program


def _check_dtype(array: Any, *accepted: str) -> str:
    """Return the dtype of an array that is one of those that the kernels read."""
    dtype = keras.backend.standardize_dtype(array.dtype)
    if dtype not in accepted:
        raise NotCoveredError
    return str(dtype)
