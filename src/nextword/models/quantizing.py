"""Which matrices of a backbone `quantize` rounds, and how."""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import keras

from nextword.models.formats.keras_layers import keras_names
from nextword.models.lora import keras_format_of
from nextword.models.matrices import matrix_layers, modes
from nextword.quantization import FORMATS, WeightFormat

if TYPE_CHECKING:
    from nextword.models.backbone import Backbone


def without_wrapper(model: Any) -> Any:
    """Return a new model whose `quantize` is its own.

    Keras puts a function before it that takes other arguments, and knows modes that are none here.
    """
    model.__dict__.pop("quantize", None)
    return model


def quantize(backbone: "Backbone", mode: Any, config: Any, filters: Any) -> None:
    """Round matrices of a backbone; see `Backbone.quantize`."""
    form = _format(mode, config)
    if present := modes(backbone):
        raise ValueError(
            "`quantize` can be called once, and this backbone has been quantized already: "
            f"{min(present)!r} is {present[min(present)]}."
        )
    is_chosen = _filter(backbone, filters)
    layers = [layer for layer in matrix_layers(backbone) if is_chosen(layer)]
    if not layers:
        raise ValueError(
            f"`filters` must leave layers to quantize. Received: filters={filters!r}, which match "
            f"none of {', '.join(sorted({layer.name for layer in matrix_layers(backbone)}))}."
        )
    chosen = [matrix for layer in layers for matrix in layer.matrices]
    for matrix in chosen:
        if not form.fits(matrix.shape):
            raise ValueError(
                f"`mode={mode!r}` rounds inputs in groups of 32, and {matrix.path!r} has "
                f"{matrix.shape[1]} inputs. Choose another mode, or leave it out with `filters`."
            )
    for matrix in chosen:
        matrix.quantize(form)


def _format(mode: Any, config: Any) -> WeightFormat:
    if config is not None:
        default = keras.quantizers.Int8QuantizationConfig()
        if type(config) is not type(default) or config.get_config() != default.get_config():
            raise ValueError(
                "`config` must be None, or a keras.quantizers.Int8QuantizationConfig with its "
                f"defaults. Received: config={config!r}."
            )
        mode = config.mode if mode is None else mode
    if mode not in FORMATS:
        known = " or ".join(map(repr, FORMATS))
        raise ValueError(f"`mode` must be {known}. Received: mode={mode!r}.")
    return FORMATS[mode]


def _filter(backbone: "Backbone", filters: Any) -> Callable[[Any], bool]:
    """Return which layers some filters choose, with the names that KerasHub gives them, too."""
    if filters is None:
        return lambda layer: True
    if callable(filters):
        return lambda layer: bool(filters(layer))
    patterns = [filters] if isinstance(filters, str) else filters
    if not isinstance(patterns, Iterable) or not all(isinstance(p, str) for p in patterns):
        raise TypeError(
            "`filters` must be a regular expression, a list of them, or a function of a layer. "
            f"Received: filters={filters!r}."
        )
    compiled = [re.compile(pattern) for pattern in patterns]
    stored = keras_format_of(backbone)
    theirs = keras_names(stored.paths) if stored else {}

    def is_chosen(layer: Any) -> bool:
        names = {layer.name, theirs.get(layer.name, layer.name)}
        return any(pattern.search(name) for pattern in compiled for name in names)

    return is_chosen
