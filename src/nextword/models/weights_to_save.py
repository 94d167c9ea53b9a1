"""What a preset holds of a backbone's weights: LoRA merged, matrices in the format asked for."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nextword.errors import PresetError
from nextword.layers import Matrix, part_path
from nextword.models.formats.keras_quantization import in_blocks
from nextword.models.lora import weights_without_adapters
from nextword.models.matrices import matrices
from nextword.models.task_weights import as_array
from nextword.quantization import BLOCK_FORMATS, FLOAT, GROUP

if TYPE_CHECKING:
    from nextword.models.backbone import Backbone

_ITEM_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}


class WeightsToSave:
    """The values to store, by path, each made when it is asked for.

    Args:
        backbone: the backbone.
        modes: path of each matrix that is stored as it is quantized to its mode; a matrix in blocks
            of GGUF is one value. Other quantized matrices become floats.
        constants: path of each value that is stored and is no variable to the value.

    Attributes:
        sizes: path of every value there is to its size in bytes.
        parameter_count: number of weights, whatever they are held in.

    Raises:
        PresetError: a variable is of a dtype that cannot be stored.
    """

    def __init__(
        self, backbone: "Backbone", modes: Mapping[str, str], constants: Mapping[str, np.ndarray]
    ) -> None:
        self._variables = {**weights_without_adapters(backbone), **constants}
        self._matrices = matrices(backbone)
        self._converted: dict[str, Callable[[], np.ndarray]] = {}
        self._ready: dict[str, np.ndarray] = {}
        self.sizes: dict[str, int] = {}
        self.parameter_count = 0
        dtype = backbone.variable_dtype
        for path, matrix in self._matrices.items():
            if matrix.form is FLOAT or (path in modes and not in_blocks(modes[path])):
                continue
            self.parameter_count += math.prod(matrix.shape)
            for part in matrix.variables:
                del self._variables[part_path(path, part)]
            if path in modes:
                self._converted[path] = matrix.merged_blocks
                block_bytes = BLOCK_FORMATS[modes[path].upper()].block_bytes
                self.sizes[path] = math.prod(matrix.shape) // GROUP * block_bytes
            else:
                self._converted[path] = functools.partial(_floats, matrix, dtype)
                self.sizes[path] = math.prod(matrix.shape) * _ITEM_SIZES[dtype]
        for path, variable in self._variables.items():
            self.parameter_count += math.prod(variable.shape)
            self.sizes[path] = _size(variable)

    def value(self, path: str) -> np.ndarray:
        """Return the value at a path."""
        if path in self._converted:
            return self._converted[path]()
        if path in self._matrices:
            self._ready.update(self._matrices[path].merged())  # the scale, too: asked for next
        return self._ready.pop(path) if path in self._ready else as_array(self._variables[path])


def _floats(matrix: Matrix, dtype: str) -> np.ndarray:
    return matrix.dense().astype(dtype)


def _size(variable: Any) -> int:
    if str(variable.dtype) not in _ITEM_SIZES:
        raise PresetError(
            "Only weights in float32, float16, bfloat16 and int8 can be saved as a preset. "
            f"Received: {variable.path!r} in {variable.dtype}."
        )
    return math.prod(variable.shape) * _ITEM_SIZES[str(variable.dtype)]
