"""Which matrices of a backbone `quantize` rounds, and how."""

import re
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import keras

from nextword.models.formats.keras_layers import keras_names
from nextword.models.lora import adapters, keras_format_of
from nextword.models.matrices import matrix_layers
from nextword.models.matrix_loading import check_fits
from nextword.quantization import FLOAT, FORMATS, INT8, INT8_WEIGHT_ONLY, Q4_1, WeightFormat

if TYPE_CHECKING:
    from nextword.models.backbone import Backbone

_INT4 = {"int4": Q4_1}

WEIGHT_ONLY: dict[str, WeightFormat] = {
    "int8": INT8_WEIGHT_ONLY,
    **_INT4,
    **{mode: form for mode, form in FORMATS.items() if mode.startswith("q")},
}
"""What `from_preset` calls the formats that round weights alone.

Keras' own "int8" rounds inputs, too, and `quantize` keeps its name: there weights alone are
"int8_weight_only".
"""

_MODES: dict[str, WeightFormat] = {**FORMATS, **_INT4}


def without_wrapper(model: Any) -> Any:
    """Return a new model whose `quantize` is its own.

    Keras puts a function before it that takes other arguments, and knows modes that are none here.
    """
    model.__dict__.pop("quantize", None)
    return model


def quantize(backbone: "Backbone", mode: Any, config: Any, filters: Any) -> None:
    """Round matrices of a backbone; see `Backbone.quantize`."""
    form = _format(mode, config)
    is_chosen = _filter(backbone, filters)
    layers = [layer for layer in matrix_layers(backbone) if is_chosen(layer)]
    if not layers:
        raise ValueError(
            f"`filters` must leave layers to quantize. Received: filters={filters!r}, which match "
            f"none of {', '.join(sorted({layer.name for layer in matrix_layers(backbone)}))}."
        )
    chosen = [each for layer in layers for each in layer.matrices if each.accepts(form)]
    if not chosen:
        raise ValueError(
            f"`filters` must leave a matrix that {form.mode!r} can hold: of experts the blocks of "
            f"GGUF do, of what chooses them 8 bits do. Received: filters={filters!r}."
        )
    changed = [matrix for matrix in chosen if matrix.form is not form]
    if not changed:
        raise ValueError(
            f"The layers have been quantized already: {chosen[0].path!r} is {form.mode!r}."
        )
    for matrix in changed:
        check_fits(form, matrix.path, matrix.rows_shape)
    for matrix in changed:
        matrix.quantize(form)


def weight_format(quantization: Any) -> WeightFormat:
    """Return the format that `from_preset(..., quantization=...)` asks for.

    Raises:
        ValueError: there is none of the name.
    """
    if quantization not in WEIGHT_ONLY:
        raise ValueError(
            f"`quantization` must be {_listing(WEIGHT_ONLY)}. Received: "
            f"quantization={quantization!r}."
        )
    return WEIGHT_ONLY[quantization]


def _format(mode: Any, config: Any) -> WeightFormat:
    if config is not None:
        by_config = {form: _keras_config(form) for form in (INT8, INT8_WEIGHT_ONLY)}
        for form, known in by_config.items():
            if type(config) is type(known) and config.get_config() == known.get_config():
                return form if mode is None else _format(mode, None)
        raise ValueError(
            "`config` must be None, or a keras.quantizers.Int8QuantizationConfig with its "
            f"defaults or without an activation quantizer. Received: config={config!r}."
        )
    if mode not in _MODES:
        raise ValueError(f"`mode` must be {_listing(_MODES)}. Received: mode={mode!r}.")
    return _MODES[mode]


def _keras_config(form: WeightFormat) -> Any:
    """Return how Keras describes one of its own formats."""
    rounds_inputs = {} if form is INT8 else {"activation_quantizer": None}
    return keras.quantizers.Int8QuantizationConfig(**rounds_inputs)


def _listing(names: Iterable[str]) -> str:
    return " or ".join(map(repr, names))


def unpack_trained(backbone: "Backbone") -> bool:
    """Turn the matrices that are about to train into floats, with a warning.

    Those of Keras' own "int8" stay, as in Keras, and all stay under LoRA, which trains its updates.

    Returns:
        Whether there were any.
    """
    layers = [] if adapters(backbone) else matrix_layers(backbone)
    trained = [matrix for layer in layers if layer.trainable for matrix in layer.matrices]
    packed = [matrix for matrix in trained if matrix.form not in (FLOAT, INT8)]
    if packed:
        modes = " and ".join(sorted({matrix.form.mode for matrix in packed}))
        warnings.warn(
            f"Weights in {modes} cannot train: they become {backbone.variable_dtype} from now on. "
            "Call `backbone.enable_lora` first to keep them and train an update of them, or load "
            "the model with a `dtype`.",
            stacklevel=4,
        )
    for matrix in packed:
        matrix.quantize(FLOAT)
    return bool(packed)


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
