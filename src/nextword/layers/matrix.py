"""`Matrix`: the matrix of a layer, how it is held, and the low-rank update that LoRA trains."""

import contextlib
import contextvars
import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from nextword.layers.layer import Layer, initialize_from
from nextword.ops import linear
from nextword.ops.native.step_program import NativeMatrix, NotCoveredError
from nextword.quantization import FLOAT, GroupedFormat, Part, WeightFormat


class Held(NamedTuple):
    """How a matrix is held from its beginning.

    Attributes:
        form: the format.
        parts: its values; empty for those that `initialize_from` gives, or random ones.
    """

    form: WeightFormat = FLOAT
    parts: Mapping[str, np.ndarray] = MappingProxyType({})


def rows_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the number of all rows and that of columns of a matrix, or of a stack of some.

    Example:
    >>> rows_shape((4, 16, 32))
    (64, 32)
    """
    return math.prod(shape[:-1]), shape[-1]


def part_path(path: str, part: str) -> str:
    """Return the path of the variable that holds a part of the matrix at a path."""
    return path if part == "values" else f"{path}_{part}"


Accepts = Callable[[WeightFormat], bool]
"""Whether a matrix may be rounded to a format."""

MatrixSource = Callable[[str, tuple[int, ...], Accepts], Held]
"""Maps a matrix's path, its shape and what it accepts to how it is held."""

_source: contextvars.ContextVar[MatrixSource] = contextvars.ContextVar(
    "matrix_source", default=lambda path, shape, accepts: Held()
)


@contextlib.contextmanager
def held_as(source: MatrixSource | Mapping[str, WeightFormat]) -> Iterator[None]:
    """Let matrices that are made in this context be held in other formats than floats.

    Args:
        source: says how each matrix is held; or path of each such matrix to its format.
    """
    if isinstance(source, Mapping):
        formats = source
        token = _source.set(lambda path, *_: Held(formats.get(path, FLOAT)))
    else:
        token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


@dataclass(frozen=True)
class LowRankUpdate:
    """What LoRA adds to a matrix: `alpha / rank * b @ a` (https://arxiv.org/abs/2106.09685).

    It is kept and computed in float32, whatever the dtype of the matrix.

    Attributes:
        a: variable of shape `[rank, in]`.
        b: variable of shape `[out, rank]`.
        alpha: the strength of the update.
    """

    a: keras.Variable
    b: keras.Variable
    alpha: float

    @property
    def rank(self) -> int:
        """The most dimensions that the update has."""
        rank: int = self.a.shape[0]
        return rank

    @property
    def factors(self) -> tuple[keras.Variable, keras.Variable]:
        """The variables."""
        return self.a, self.b

    @property
    def scale(self) -> float:
        """The factor of `b @ a`."""
        return self.alpha / self.rank

    def apply(self, inputs: Any) -> Any:
        """Return what is added to `inputs @ matrix.T`."""
        outputs = linear(linear(ops.cast(inputs, "float32"), self.a), self.b)
        return ops.cast(outputs * self.scale, inputs.dtype)

    def rows(self, indices: Any) -> Any:
        """Return what is added to some rows of the matrix, in float32."""
        return ops.matmul(ops.take(self.b, indices, axis=0), self.a) * self.scale


class Matrix:
    """A matrix `[out, in]` that a layer projects with, or looks rows up in; or a stack of several.

    It is held as floats, or packed: a stack as one matrix, with all of their rows one behind the
    other. The variables belong to the layer and bear the layer's path.

    Args:
        layer: the layer, while it is built.
        name: name of the matrix, which its variable has where it is held in one.
        shape: `(out, in)`; of a stack `(number, out, in)`.
        accepts: which formats it may be rounded to; by default all.

    Attributes:
        shape: as given.
        accepts: as given.
        form: how the matrix is held.
        variables: what holds it, by the names of the format's parts.
        update: the low-rank update that is trained instead of it, or None.
    """

    def __init__(
        self,
        layer: Layer,
        name: str,
        shape: tuple[int, ...],
        accepts: Accepts = lambda form: True,
    ) -> None:
        self._layer = layer
        self._name = name
        self.shape = shape
        self.accepts = accepts
        self.form, parts = _source.get()(self.path, shape, accepts)
        self.variables = self._add_variables(parts)
        self.update: LowRankUpdate | None = None

    @property
    def path(self) -> str:
        """The path of the matrix, which is that of its values."""
        return f"{self._layer.path}/{self._name}"

    @property
    def kind(self) -> Hashable:
        """What tells from matrices that project otherwise, given other values."""
        return self.form, self.update and self.update.scale

    @property
    def rows_shape(self) -> tuple[int, int]:
        """The number of all rows, and that of columns."""
        return rows_shape(self.shape)

    def apply(self, inputs: Any, bias: Any | None = None) -> Any:
        """Return `inputs @ matrix.T + bias`.

        Args:
            inputs: float tensor of shape `[..., in]`.
            bias: optional tensor of shape `[out]`.

        Returns:
            Float tensor of shape `[..., out]`.
        """
        outputs = self.form.apply(inputs, self.variables)
        if outputs.shape[-1] != self.shape[0]:
            outputs = outputs[..., : self.shape[0]]
        if self.update is not None:
            outputs = outputs + self.update.apply(inputs)
        return outputs if bias is None else ops.add(outputs, bias)

    def native(self) -> NativeMatrix:
        """Return the matrix for a `StepProgram`.

        Raises:
            NotCoveredError: the kernels do not read it as it is held.
        """
        if self.update is not None:
            raise NotCoveredError
        return self.form.native(self.rows_shape, self.variables)

    def floats(self, dtype: str) -> Any:
        """Return the matrix without its update as a float tensor, however it is held.

        Args:
            dtype: of the tensor.
        """
        floats = ops.cast(self.form.floats(self.variables), dtype)
        if self.form is not FLOAT:
            floats = floats[: self.rows_shape[0]]
        return ops.reshape(floats, self.shape)

    def rows(self, indices: Any) -> Any:
        """Return some rows.

        Args:
            indices: integer tensor of any shape `[...]`.

        Returns:
            Float tensor of shape `[..., in]`.
        """
        rows = ops.cast(self.form.rows(indices, self.variables), self._layer.compute_dtype)
        if self.update is None:
            return rows
        return rows + ops.cast(self.update.rows(indices), rows.dtype)

    def quantize(self, form: WeightFormat) -> None:
        """Hold the matrix in another format from now on; its update stays as it is.

        Args:
            form: the format.
        """
        parts = form.quantize(self._dequantized().reshape(self.rows_shape))
        with self._layer.unlocked():
            for variable in self.variables.values():
                self._layer._untrack_variable(variable)
            self.form = form
            self.variables = self._add_variables(parts)

    def enable_lora(self, rank: int, alpha: float) -> None:
        """Add a low-rank update, zero at first, and freeze the matrix itself.

        Args:
            rank: rank of the update.
            alpha: the update is `alpha / rank` times the product of its factors.
        """
        rows, columns = self.rows_shape
        limit = math.sqrt(6 / columns)  # He's uniform initialization of `columns` inputs
        uniform = keras.initializers.RandomUniform(-limit, limit)
        with self._layer.unlocked():
            self.update = LowRankUpdate(
                a=self._add_factor("a", (rank, columns), uniform),
                b=self._add_factor("b", (rows, rank), "zeros"),
                alpha=alpha,
            )
        for variable in self.variables.values():
            variable.trainable = False

    def merged(self) -> dict[str, np.ndarray]:
        """Return what holds the matrix with its update, by the paths of the variables."""
        return {part_path(self.path, part): v for part, v in self.merged_parts().items()}

    def merged_parts(self) -> dict[str, np.ndarray]:
        """Return what holds the matrix with its update, by the names of the format's parts."""
        floats = None if self.update is None else self.dense()
        parts = self._parts() if floats is None else self.form.quantize(floats)
        return {
            part: value.astype(self.variables[part].dtype, copy=False)
            for part, value in parts.items()
        }

    def dense(self) -> np.ndarray:
        """Return the matrix with its update in float32, however it is held."""
        if self.update is None:
            return self._dequantized()
        a, b = map(_to_numpy, self.update.factors)
        return self._dequantized() + np.float32(self.update.scale) * (b @ a)

    def merged_blocks(self) -> np.ndarray:
        """Return the blocks of GGUF that hold the matrix with its update.

        Returns:
            uint8 array of shape `[rows, bytes of a row]`.

        Raises:
            TypeError: the matrix is not held in blocks.
        """
        if not isinstance(self.form, GroupedFormat):
            raise TypeError(f"{self.path!r} is not held in blocks of GGUF: it is {self.form.mode}.")
        return self.form.to_gguf(self.merged_parts())[: self.rows_shape[0]]

    @property
    def variable_paths(self) -> list[str]:
        """The paths of the variables that hold the matrix."""
        return [part_path(self.path, part) for part in self.variables]

    def _dequantized(self) -> np.ndarray:
        if self.form is FLOAT:
            return self.form.dequantize(self._parts())
        return self.form.dequantize(self._parts())[: self.rows_shape[0]].reshape(self.shape)

    def _parts(self) -> dict[str, np.ndarray]:
        return {name: _to_numpy(variable) for name, variable in self.variables.items()}

    def _add_variables(self, values: Mapping[str, np.ndarray]) -> dict[str, keras.Variable]:
        """Add the variables that hold the matrix.

        Args:
            values: their values by part, or nothing for those of `initialize_from`, or random ones.
        """
        parts = self._parts_of_form()
        given = {
            part_path(self.path, name): value.reshape(parts[name].shape)
            for name, value in values.items()
        }
        with initialize_from(lambda path, *_: given[path]) if given else contextlib.nullcontext():
            return {
                name: self._layer.add_weight(
                    name=part_path(self._name, name),
                    shape=part.shape,
                    initializer=self._initializer(part),
                    dtype=part.dtype,
                    trainable=self.form is FLOAT,
                    autocast=self.form is FLOAT,
                )
                for name, part in parts.items()
            }

    def _parts_of_form(self) -> dict[str, Part]:
        if self.form is FLOAT:
            return FLOAT.parts(self.shape)
        return self.form.parts(self.rows_shape)

    def _initializer(self, part: Part) -> Any:
        if part.dtype is None:
            return keras.initializers.RandomNormal(stddev=0.02)
        return "zeros" if part.dtype in ("int8", "uint8") else "ones"

    def _add_factor(self, name: str, shape: tuple[int, int], initializer: Any) -> keras.Variable:
        return self._layer.add_weight(
            name=f"lora_{self._name}_{name}",
            shape=shape,
            initializer=initializer,
            dtype="float32",
            autocast=False,
        )


def _to_numpy(variable: keras.Variable) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(variable))
