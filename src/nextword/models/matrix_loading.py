"""How each matrix of a checkpoint is held: as it is stored, or rounded while it is read."""

from collections.abc import Mapping

import numpy as np

from nextword.errors import PresetError
from nextword.layers import Accepts, Held, part_path, rows_shape
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.stored_tensors import StoredTensors, check_finite
from nextword.presets.weight_layouts import moves_rows
from nextword.presets.weight_table import CheckpointWeights, Stored, WeightTable
from nextword.quantization import FLOAT, WeightFormat


class StoredMatrices:
    """A source of matrices, see `held_as`: reads each from a checkpoint as it is asked for.

    One that is to be held otherwise than it is stored is converted at once, so that no more than
    one is ever there in floats.

    Args:
        checkpoint: the stored model.
        table: where each variable is stored.
        weights: reads the variables.
        packed: matrices that are stored as variables of a packed format, and their formats.
        form: the format of all matrices; None for those in which they are stored.
        keeps_blocks: whether matrices stay in the blocks of GGUF that they are stored in. Else they
            become floats.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        table: WeightTable,
        weights: CheckpointWeights,
        packed: Mapping[str, WeightFormat],
        *,
        form: WeightFormat | None,
        keeps_blocks: bool,
    ) -> None:
        self._checkpoint = checkpoint
        self._table = table
        self._weights = weights
        self._packed = packed
        self._form = form
        self._keeps_blocks = keeps_blocks

    def __call__(self, path: str, shape: tuple[int, ...], accepts: Accepts) -> Held:
        """Return how the matrix at a path is held, or the stack of some.

        Raises:
            PresetError: what is stored is not what it should be.
            ValueError: the format that is asked for cannot hold it.
        """
        rows = rows_shape(shape)
        stored = self._stored(path, rows, accepts)
        if self._form in (None, stored.form) or not accepts(self._form):
            return stored
        check_fits(self._form, path, rows)
        if stored.form is FLOAT:
            matrix = self._weights(path, shape, "float32").reshape(rows)
        else:
            matrix = stored.form.dequantize(stored.parts)[: rows[0]]
        return Held(self._form, self._form.quantize(matrix))

    def _stored(self, path: str, shape: tuple[int, int], accepts: Accepts) -> Held:
        if path in self._packed:
            form = self._packed[path]
            return Held(
                form,
                {
                    name: self._weights(part_path(path, name), part.shape, str(part.dtype))
                    for name, part in form.parts(shape).items()
                },
            )
        entry = self._table[path]
        if entry.stacked is None and self._keeps_blocks and all(map(moves_rows, entry.layouts)):
            return self._blocks(path, entry, shape, accepts)
        return Held()

    def _blocks(self, path: str, entry: Stored, shape: tuple[int, int], accepts: Accepts) -> Held:
        """Return a matrix in the blocks that it is stored in, if it is stored in blocks."""
        if not isinstance(self._checkpoint, StoredTensors):
            return Held()
        stored = rows_shape(self._checkpoint.shape(entry.name))
        form = self._checkpoint.block_format(entry.name)
        if form is None or not accepts(form):
            return Held()
        try:
            blocks = entry.read(self._checkpoint.blocks(entry.name))
        except (ValueError, IndexError):  # rows that cannot be taken apart
            blocks = np.empty((0, 0), np.uint8)
        if (len(blocks), stored[1]) != shape:
            raise PresetError(
                f"The tensor {entry.name!r} of {self._checkpoint.name} must give {path!r} the "
                f"shape {shape}. Received: shape {stored}."
            )
        self._weights.on_read(shape[0] * shape[1])
        parts = form.from_gguf(blocks)
        for value in parts.values():
            check_finite(value, f"The tensor {entry.name!r} of {self._checkpoint.name}")
        return Held(form, parts)


def check_fits(form: WeightFormat, path: str, shape: tuple[int, int]) -> None:
    """Check that a format can hold a matrix.

    Raises:
        ValueError: it cannot.
    """
    if not form.fits(shape):
        raise ValueError(
            f"{form.mode!r} rounds inputs in groups of 32, and {path!r} has {shape[1]} inputs. "
            "Choose another mode, or leave it out with the `filters` of `quantize`."
        )
