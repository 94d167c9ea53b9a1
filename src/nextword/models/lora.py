"""LoRA on a backbone: which layers are adapted, and what trains (https://arxiv.org/abs/2106.09685)."""

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nextword.errors import PresetError, did_you_mean
from nextword.layers import Experts, LowRankUpdate, Matrix
from nextword.models.family import family_of
from nextword.models.formats.keras_layers import LAYER_PATHS, layer_aliases
from nextword.models.matrices import matrices, matrix_layers

if TYPE_CHECKING:
    from nextword.models.backbone import Backbone
    from nextword.models.formats.keras import KerasFormat


def default_targets(backbone: "Backbone") -> list[str]:
    """Return the names of the layers that are adapted by default: those of them that there are."""
    present = {layer.name for layer in _adaptable_layers(backbone).values()}
    return [name for name in ("query", "value") if name in present]


def enable_lora(backbone: "Backbone", rank: int, targets: Any, alpha: float | None) -> None:
    """Adapt layers of a backbone; see `Backbone.enable_lora`."""
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise TypeError(f"`rank` must be an integer. Received: rank={rank!r}.")
    if rank < 1:
        raise ValueError(f"`rank` must be positive. Received: rank={rank}.")
    alpha = rank if alpha is None else alpha
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise TypeError(f"`alpha` must be a number. Received: alpha={alpha!r}.")
    alpha = float(np.float32(alpha))  # as files keep it
    if not (math.isfinite(alpha) and alpha > 0):
        raise ValueError(f"`alpha` must be positive. Received: alpha={alpha}.")
    names = _layer_names(backbone, default_targets(backbone) if targets is None else targets)
    layers = _adaptable_layers(backbone)
    adapt(backbone, {path: (rank, alpha) for path in layers if layers[path].name in names})


def adapt(backbone: "Backbone", ranks: Mapping[str, tuple[int, float]]) -> None:
    """Add adapters to layers of a backbone, and freeze all else.

    Args:
        backbone: the backbone.
        ranks: path of each matrix to adapt to the rank and the alpha of its adapter.

    Raises:
        ValueError: the backbone has adapters already.
    """
    if present := adapters(backbone):
        raise ValueError(
            "`enable_lora` can be called once, and this backbone has adapters already: that of "
            f"{min(present)!r} has the rank {present[min(present)].rank}."
        )
    layers = _adaptable_layers(backbone)
    backbone.trainable = True
    for layer in backbone._flatten_layers(include_self=False):
        layer.trainable = False
    for path, (rank, alpha) in ranks.items():
        layers[path].trainable = True
        layers[path].matrices[0].enable_lora(rank, alpha)


def adaptable_matrices(backbone: "Backbone") -> dict[str, Matrix]:
    """Return the matrices that can be adapted, by path."""
    return {path: layer.matrices[0] for path, layer in _adaptable_layers(backbone).items()}


def adapters(backbone: "Backbone") -> dict[str, LowRankUpdate]:
    """Return the low-rank updates of a backbone's matrices, by the paths of these."""
    updates = {path: matrix.update for path, matrix in adaptable_matrices(backbone).items()}
    return {path: update for path, update in updates.items() if update is not None}


def weights_without_adapters(backbone: "Backbone") -> dict[str, Any]:
    """Return the variables that a backbone has without LoRA, by path."""
    factors = {id(factor) for update in adapters(backbone).values() for factor in update.factors}
    return {weight.path: weight for weight in backbone.weights if id(weight) not in factors}


def weights_in_floats(backbone: "Backbone") -> dict[str, Any]:
    """Return what a backbone has without LoRA and without packing, by path.

    Returns:
        A `Matrix` for each matrix, whatever holds it, and the other variables.
    """
    found = matrices(backbone)
    packed = {path for matrix in found.values() for path in matrix.variable_paths}
    weights = weights_without_adapters(backbone).items()
    return {**{path: each for path, each in weights if path not in packed}, **found}


def keras_format_of(backbone: "Backbone") -> "KerasFormat | None":
    """Return how KerasHub stores the family of a backbone, or None where that is not known."""
    from nextword.models.formats.keras import keras_hub_format  # which needs the backbone

    try:
        return keras_hub_format(family_of(backbone))
    except PresetError:
        return None


def _adaptable_layers(backbone: "Backbone") -> dict[str, Any]:
    """Return the layers that can be adapted, by the paths of their matrices."""
    layers = [each for each in matrix_layers(backbone) if not isinstance(each, Experts)]
    return {layer.matrices[0].path: layer for layer in layers}


def _layer_names(backbone: "Backbone", targets: Any) -> set[str]:
    """Return the names of the layers that some targets stand for."""
    if isinstance(targets, str) or not isinstance(targets, Iterable):
        raise TypeError(
            "`target_layer_names` must be a list of names of layers. Received: "
            f"target_layer_names={targets!r}."
        )
    known = {layer.name: {layer.name} for layer in _adaptable_layers(backbone).values()}
    stored = keras_format_of(backbone)
    for alias, meant in layer_aliases(stored.paths if stored else LAYER_PATHS).items():
        if meant <= known.keys():
            known.setdefault(alias, meant)
    names: set[str] = set()
    for target in (targets := list(targets)):
        if target not in known:
            raise ValueError(
                f"`target_layer_names` must name layers that can be adapted. Received: {target!r}."
                f"{did_you_mean(str(target), known)} There are: {', '.join(sorted(known))}."
            )
        names |= known[target]
    if not names:
        raise ValueError("`target_layer_names` must name a layer. Received: [].")
    return names
