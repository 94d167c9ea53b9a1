"""The matrices of a backbone: what `quantize` rounds, and all but experts LoRA adapts."""

import math
from typing import TYPE_CHECKING, Any

from nextword.layers import Experts, Linear, Matrix, TokenEmbedding
from nextword.quantization import FLOAT

if TYPE_CHECKING:
    from nextword.models.backbone import Backbone


def matrix_layers(model: Any) -> list[Linear | TokenEmbedding | Experts]:
    """Return the layers of a Keras model, such as a backbone, that have matrices."""
    layers = model._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, Linear | TokenEmbedding | Experts)]


def matrices(backbone: "Backbone") -> dict[str, Matrix]:
    """Return the matrices by path, the untied head's among them."""
    return {matrix.path: matrix for layer in matrix_layers(backbone) for matrix in layer.matrices}


def parameter_count(model: Any) -> int:
    """Return the number of weights of a model, or a part of one, whatever holds its matrices.

    Args:
        model: a Keras layer or model.
    """
    layers = matrix_layers(model)
    packed = [m for layer in layers for m in layer.matrices if m.form is not FLOAT]
    parts = {id(part) for matrix in packed for part in matrix.variables.values()}
    others = [weight for weight in model.weights if id(weight) not in parts]
    return sum(math.prod(each.shape) for each in (*others, *packed))


def modes(backbone: "Backbone") -> dict[str, str]:
    """Return what `quantize` calls the format of each packed matrix, by its path."""
    found = {path: matrix.form.mode for path, matrix in matrices(backbone).items()}
    return {path: mode for path, mode in found.items() if mode != "float"}
