"""The weights that a model has beside its backbone's, in a file of their own, as KerasHub's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nextword.errors import PresetError
from nextword.models.formats.keras_head import NO_HEAD_WEIGHTS
from nextword.presets.h5_files import write_h5_files
from nextword.presets.keras import KerasTaskWeights
from nextword.presets.weight_table import CheckpointWeights, WeightTable, stored_tensors


def write_task_weights(path: Path, table: WeightTable, variables: Mapping[str, Any]) -> None:
    """Write variables.

    Args:
        path: the file.
        table: where each variable is stored.
        variables: path to variable.

    Raises:
        PresetError: the table has no place for a variable.
    """
    if unknown := variables.keys() ^ table.keys():
        raise PresetError(f"A preset has no place for the variable {min(unknown)!r}.")
    tensors = stored_tensors(table, lambda name: as_array(variables[name]))
    write_h5_files(path.parent, tensors, {each.name: path.name for each in table.values()})


def read_task_weights(
    path: Path, table: WeightTable, variables: Mapping[str, Any], *, architecture: str
) -> None:
    """Assign to variables what is stored.

    Args:
        path: the file.
        table: where each variable is stored.
        variables: path to variable.
        architecture: the name of the model's class.

    Raises:
        PresetError: the file cannot be read or holds other weights; then none is assigned.
    """
    stored = KerasTaskWeights(path, architecture)
    weights = CheckpointWeights(stored, table, ignored=NO_HEAD_WEIGHTS)
    values = {
        name: weights(name, tuple(variable.shape), variable.dtype)
        for name, variable in variables.items()
    }
    for name, value in values.items():
        variables[name].assign(value)


def as_array(variable: Any) -> np.ndarray:
    """Return a variable's value in its own dtype, also where numpy itself does not have it."""
    return np.asarray(keras.ops.convert_to_numpy(variable)).astype(variable.dtype, copy=False)
