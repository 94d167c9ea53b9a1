"""The weights that a model has beside its backbone's, in a file of their own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from nextword.errors import PresetError
from nextword.presets.h5_files import read_h5_header, write_h5_files
from nextword.presets.stored_tensors import StoredTensors


def write_task_weights(path: Path, variables: Mapping[str, Any]) -> None:
    """Write variables, each under its path.

    Args:
        path: the file.
        variables: path to variable.

    Raises:
        ValueError: there are no variables.
    """
    if not variables:
        raise ValueError("The model has no weights beside its backbone's to save.")
    values = ((name, as_array(variable)) for name, variable in variables.items())
    write_h5_files(path.parent, values, dict.fromkeys(variables, path.name))


def read_task_weights(path: Path, variables: Mapping[str, Any]) -> None:
    """Assign to variables what `write_task_weights` wrote.

    Args:
        path: the file.
        variables: path to variable.

    Raises:
        PresetError: the file cannot be read or holds other weights; then none is assigned.
    """
    stored = StoredTensors(str(path), read_h5_header(path))
    if differing := variables.keys() ^ stored.tensor_names():
        raise PresetError(
            f"{str(path)!r} must hold the weights beside the backbone's and no others. "
            f"Received: {min(differing)!r}, which only one of the two has."
        )
    for name, variable in variables.items():
        if stored.shape(name) != tuple(variable.shape):
            raise PresetError(
                f"{name!r} of {str(path)!r} must have the shape {tuple(variable.shape)}. "
                f"Received: {stored.shape(name)}."
            )
    for name, variable in variables.items():
        variable.assign(stored.tensor(name))


def as_array(variable: Any) -> np.ndarray:
    """Return a variable's value in its own dtype, also where numpy itself does not have it."""
    return np.asarray(keras.ops.convert_to_numpy(variable)).astype(variable.dtype, copy=False)
