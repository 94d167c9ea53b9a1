"""The arguments of a backbone as presets store them, read by the types that `describe` gives."""

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.presets.config_reader import ConfigReader

# Arguments that may be 0, as other numbers may not.
_RATE = re.compile("dropout|noise|coef")


def keras_arguments(config: ConfigReader, backbone_cls: type[Backbone]) -> dict[str, Any]:
    """Return the arguments of a backbone from the config.json of a preset.

    Args:
        config: what is stored.
        backbone_cls: the family's backbone, whose `describe` says which arguments there are.

    Raises:
        PresetError: an argument is missing or of the wrong type.
    """
    annotations = typing.get_type_hints(backbone_cls.describe)
    arguments = {}
    for name, parameter in inspect.signature(backbone_cls.describe).parameters.items():
        kinds = _kinds(annotations[name])
        # Null is a value of its own where it is not the default: a window of no width.
        is_null = types.NoneType in kinds and config.is_null(name)
        is_required = parameter.default is inspect.Parameter.empty and not is_null
        required = {} if is_required else {"default": None}
        value = _reader(config, name, *(kinds - {types.NoneType}))(name, **required)
        if value is not None or is_null:
            arguments[name] = value
    return arguments


def _kinds(annotation: Any) -> set[Any]:
    """Return the types that an argument may have."""
    is_union = typing.get_origin(annotation) in (types.UnionType, typing.Union)
    return set(typing.get_args(annotation)) if is_union else {annotation}


def _reader(config: ConfigReader, name: str, kind: Any) -> Callable[..., Any]:
    """Return what reads an argument of one type."""
    if typing.get_origin(kind) is typing.Literal:
        return functools.partial(config.choice, choices=typing.get_args(kind))
    readers: dict[Any, Callable[..., Any]] = {
        bool: config.boolean,
        int: config.integer,
        float: config.fraction if _RATE.search(name) else config.number,
        Sequence[bool]: config.booleans,
        Sequence[int]: functools.partial(config.indices, size=DecoderConfig.MAX_LAYERS),
        Sequence[float]: config.numbers,
        Sequence[str]: config.strings,
        Mapping[str, Any]: config.mapping,
    }
    return readers[kind]
