"""Backbones, preprocessors and models as KerasHub serializes them."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nextword.errors import PresetError
from nextword.models.formats.keras import KerasClasses, PresetFormat, snake_case
from nextword.presets.keras import INT8_MODE
from nextword.presets.keras_config import (
    PREPROCESSOR,
    TOKENIZER,
    SerializedObject,
    serialized_dtype,
)
from nextword.quantization import INT8_WEIGHT_ONLY
from nextword.tokenizers import Tokenizer

if TYPE_CHECKING:
    from nextword.models.backbone import Backbone
    from nextword.models.preprocessor import Preprocessor
    from nextword.models.task import Task


def serialized_backbone(
    backbone: "Backbone", stored: PresetFormat, classes: KerasClasses, modes: Mapping[str, str]
) -> dict[str, Any]:
    """Return what config.json holds.

    Args:
        backbone: the backbone.
        stored: how its family is stored.
        classes: KerasHub's classes to name.
        modes: path of each matrix that is stored quantized to its mode.
    """
    config, _ = stored.arguments_to_save(backbone)
    config["dtype"] = stored.dtype_of(backbone.dtype_policy.name, modes)
    serialized = _serialized(classes, "Backbone", config)
    if INT8_WEIGHT_ONLY.mode in modes.values():
        serialized[INT8_MODE] = INT8_WEIGHT_ONLY.mode
    return serialized


def serialized_tokenizer(tokenizer: Tokenizer, classes: KerasClasses) -> dict[str, Any]:
    """Return what tokenizer.json holds: no vocabulary, which is in files of its own."""
    config: dict[str, Any] = {
        **_layer_config(f"{classes.module}_tokenizer", "int32"),
        "config_file": TOKENIZER,
        **_vocabulary_arguments(classes),
        **_settings(tokenizer, classes),
    }
    roles = {"bos_token": tokenizer.start_token, "eos_token": tokenizer.end_token}
    for role in classes.tokenizer_roles:
        if roles[role] is not None:
            config[role] = roles[role]
    return _serialized(classes, "Tokenizer", config)


def serialized_preprocessor(
    preprocessor: "Preprocessor", task_kind: str, classes: KerasClasses
) -> dict[str, Any]:
    """Return what preprocessor.json holds.

    Args:
        preprocessor: the preprocessor.
        task_kind: see `Task.kind`.
        classes: KerasHub's classes to name.
    """
    kind = f"{task_kind}Preprocessor"
    config = {
        **_layer_config(f"{classes.module}_{snake_case(kind)}", "float32"),
        "tokenizer": serialized_tokenizer(preprocessor.tokenizer, classes),
        "config_file": PREPROCESSOR,
        **{key: getattr(preprocessor, key) for key in preprocessor.config_keys},
    }
    return _serialized(classes, kind, config)


def serialized_task(
    task: "Task", stored: PresetFormat, classes: KerasClasses, modes: Mapping[str, str]
) -> dict[str, Any]:
    """Return what task.json holds; for the arguments see `serialized_backbone`."""
    preprocessor, own = task.preprocessor, task.own_config()
    for key, value in own.items():
        if not isinstance(value, str | int | float | None):
            raise PresetError(
                f"`{key}` must have a name in Keras to be saved in a preset. Received: "
                f"{getattr(task, key)!r:.80}."
            )
    config = {
        "backbone": serialized_backbone(task.backbone, stored, classes, modes),
        "preprocessor": preprocessor and serialized_preprocessor(preprocessor, task.kind, classes),
        "name": task.name,
        **own,
    }
    return _serialized(classes, task.kind, config)


def _vocabulary_arguments(classes: KerasClasses) -> dict[str, None]:
    """Return the arguments for the vocabulary, which KerasHub must find, and find empty."""
    if classes.tokenizer_cls is None:
        return {}
    parameters = inspect.signature(classes.tokenizer_cls).parameters.values()
    return {
        p.name: None
        for p in parameters
        if p.default is inspect.Parameter.empty and p.kind is not inspect.Parameter.VAR_KEYWORD
    }


def _settings(tokenizer: Tokenizer, classes: KerasClasses) -> dict[str, Any]:
    """Return the other arguments, also of a tokenizer that is of the kind but not of the class."""
    settings = tokenizer.get_config()
    known = classes.tokenizer_cls
    if known is None or known.asset_files != tokenizer.asset_files:
        return settings
    return {k: settings[k] if k in settings else getattr(known, k) for k in known.config_keys}


def _layer_config(name: str, dtype: str) -> dict[str, Any]:
    return {"name": name, "trainable": True, "dtype": serialized_dtype(dtype)}


def _serialized(classes: KerasClasses, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    serialized = SerializedObject(classes.name_of(kind), config, classes.package)
    return serialized.to_json(classes.module_of(kind))
