"""Files of LoRA weights: those of KerasHub, and with all that was trained.

KerasHub keeps the factors of each adapted layer under the layer's number, and nothing else. Beside
them, in a group that KerasHub does not look at, is every variable that was trained under its path.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nextword.errors import PresetError
from nextword.models.formats.keras_lora import RANK, Factors, keras_hub_lora, read_keras_hub_lora
from nextword.models.lora import adapt, adaptable_matrices, adapters, keras_format_of
from nextword.models.task_weights import as_array
from nextword.presets.directories import replaced_file
from nextword.presets.h5_files import read_h5_header, write_h5_files
from nextword.presets.stored_tensors import FLOATS, StoredTensors, check_finite

if TYPE_CHECKING:
    from nextword.models.backbone import Backbone

_GROUP = "nextword/"
_FACTOR = re.compile(r"(?P<layer>.+)/lora_(?P<matrix>\w+)_(?P<part>a|b|alpha)")


@dataclass(frozen=True)
class _Trained:
    """What a file holds.

    Attributes:
        factors: path of each adapted matrix to its factors.
        others: path of each other variable to its value.
    """

    factors: dict[str, Factors] = field(default_factory=dict)
    others: dict[str, np.ndarray] = field(default_factory=dict)


def save_lora_weights(backbone: "Backbone", path: Path, *, for_keras_hub: bool) -> None:
    """Write what was trained; see `Backbone.save_lora_weights`."""
    if not path.name.endswith(".lora.h5"):
        raise ValueError(f"`filepath` must end in '.lora.h5'. Received: filepath={str(path)!r}.")
    updates = adapters(backbone)
    if not updates:
        raise ValueError("This backbone has no LoRA weights to save: call `enable_lora` first.")
    tensors = {f"{_GROUP}{v.path}": as_array(v) for v in backbone.trainable_variables}
    for matrix, update in updates.items():
        layer, _, name = matrix.rpartition("/")
        tensors[f"{_GROUP}{layer}/lora_{name}_alpha"] = np.array(update.alpha, "float32")
    stored = keras_format_of(backbone)
    if for_keras_hub and stored is not None:
        factors = {p: Factors(as_array(u.a), as_array(u.b), u.alpha) for p, u in updates.items()}
        tensors |= keras_hub_lora(factors, stored.table(backbone.config), _shapes(backbone))
    with replaced_file(path) as new:
        write_h5_files(new.parent, tensors.items(), dict.fromkeys(tensors, new.name))


def load_lora_weights(backbone: "Backbone", path: Path) -> None:
    """Load what was trained; see `Backbone.load_lora_weights`."""
    stored = StoredTensors(str(path), read_h5_header(path))
    _check_numbers(stored)
    trained = _read(backbone, stored)
    updates = adapters(backbone)
    wanted = {p: (len(f.a), f.alpha) for p, f in trained.factors.items()}
    if updates:
        present = {p: (u.rank, u.alpha) for p, u in updates.items()}
        if differing := {p for p in wanted | present if wanted.get(p) != present.get(p)}:
            first = min(differing)
            raise PresetError(
                f"The adapters of this backbone must be those of {str(path)!r}. Received: "
                f"{first!r}, where the file has {_adapter(wanted.get(first))} and the backbone "
                f"{_adapter(present.get(first))}. Load the file without calling `enable_lora` "
                "before: the backbone gets the adapters of the file."
            )
    else:
        adapt(backbone, wanted)
        updates = adapters(backbone)
    for matrix, factors in trained.factors.items():
        updates[matrix].a.assign(factors.a)
        updates[matrix].b.assign(factors.b)
    variables = {variable.path: variable for variable in backbone.weights}
    for name, value in trained.others.items():
        variables[name].assign(value)


def _check_numbers(stored: StoredTensors) -> None:
    """Check that all that a file holds are floats, and finite."""
    for name in sorted(stored.tensor_names() - {RANK}):
        tensor = stored.tensor(name)
        if tensor.dtype.name not in FLOATS:
            raise PresetError(
                f"{name!r} of {stored.name!r} must be floats. Received: {tensor.dtype.name}."
            )
        check_finite(tensor, f"{name!r} of {stored.name!r}")


def _read(backbone: "Backbone", stored: StoredTensors) -> _Trained:
    """Return what a file holds, checked against the backbone."""
    names = {name.removeprefix(_GROUP) for name in stored.tensor_names() if name.startswith(_GROUP)}
    if names:
        return _read_own(backbone, stored, names)
    keras_format = keras_format_of(backbone)
    if keras_format is None:
        raise PresetError(
            f"{stored.name!r} must hold LoRA weights by the paths of variables, since nextword "
            f"does not know how KerasHub stores a {type(backbone).__name__}."
        )
    table = keras_format.table(backbone.config)
    factors = read_keras_hub_lora(stored, table, _shapes(backbone))
    if not factors:
        raise PresetError(f"{stored.name!r} must hold LoRA weights. Received: a file without any.")
    return _Trained(factors=factors)


def _read_own(backbone: "Backbone", stored: StoredTensors, names: set[str]) -> _Trained:
    shapes = _shapes(backbone)
    variables = {variable.path: tuple(variable.shape) for variable in backbone.weights}
    trained = _Trained()
    for name in sorted(names):
        match = _FACTOR.fullmatch(name)
        if match is None:
            _check_shape(stored, name, variables.get(name))
            trained.others[name] = stored.tensor(f"{_GROUP}{name}")
        elif match["part"] == "a":
            path, prefix = f"{match['layer']}/{match['matrix']}", name[:-1]
            rows, columns = shapes.get(path, (None, None))
            rank = (stored.shape(f"{_GROUP}{name}") or (0,))[0]
            is_known = rows is not None and rank > 0
            _check_shape(stored, name, (rank, columns) if is_known else None)
            _check_shape(stored, f"{prefix}b", (rows, rank))
            _check_shape(stored, f"{prefix}alpha", ())
            a, b, alpha = (stored.tensor(f"{_GROUP}{prefix}{part}") for part in ("a", "b", "alpha"))
            if not alpha > 0:
                raise PresetError(
                    f"{stored.name!r} must have a positive alpha for {path!r}. Received: {alpha}."
                )
            trained.factors[path] = Factors(a, b, float(alpha))
    if not trained.factors:
        raise PresetError(f"{stored.name!r} must hold LoRA weights. Received: a file without any.")
    return trained


def _check_shape(stored: StoredTensors, name: str, shape: tuple[int | None, ...] | None) -> None:
    found = stored.shape(f"{_GROUP}{name}")
    if found != shape:
        wanted = "no such variable" if shape is None else f"the shape {shape}"
        raise PresetError(
            f"{stored.name!r} must hold LoRA weights of this model, which has {wanted} for "
            f"{name!r}. Received: shape {found}."
        )


def _shapes(backbone: "Backbone") -> dict[str, tuple[int, int]]:
    """Return the shapes of the matrices that can be adapted, by the paths of their variables."""
    return {path: matrix.rows_shape for path, matrix in adaptable_matrices(backbone).items()}


def _adapter(adapter: tuple[int, float] | None) -> str:
    return "none" if adapter is None else f"rank {adapter[0]} and alpha {adapter[1]:g}"
