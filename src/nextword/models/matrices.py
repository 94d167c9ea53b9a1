"""The matrices of a backbone: what LoRA adapts and `quantize` rounds."""

from typing import TYPE_CHECKING

from nextword.layers import Linear, Matrix, TokenEmbedding

if TYPE_CHECKING:
    from nextword.models.backbone import Backbone


def matrix_layers(backbone: "Backbone") -> list[Linear | TokenEmbedding]:
    """Return the layers that have matrices."""
    layers = backbone._flatten_layers(include_self=False)
    return [layer for layer in layers if isinstance(layer, Linear | TokenEmbedding)]


def matrices(backbone: "Backbone") -> dict[str, Matrix]:
    """Return the matrices by path, the untied head's among them."""
    return {matrix.path: matrix for layer in matrix_layers(backbone) for matrix in layer.matrices}


def modes(backbone: "Backbone") -> dict[str, str]:
    """Return what `quantize` calls the format of each packed matrix, by its path."""
    found = {path: matrix.form.mode for path, matrix in matrices(backbone).items()}
    return {path: mode for path, mode in found.items() if mode != "float"}
