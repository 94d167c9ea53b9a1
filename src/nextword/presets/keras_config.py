"""The JSON files of KerasHub presets: a class name and the arguments of its constructor.

Keras would import what such a file names. Here a name is looked up in the tables of the families,
or it is an error.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nextword.errors import PresetError
from nextword.presets.handles import show
from nextword.presets.json_files import read_json

CONFIG = "config.json"
TASK = "task.json"
PREPROCESSOR = "preprocessor.json"
TOKENIZER = "tokenizer.json"
METADATA = "metadata.json"

KERAS_HUB = "keras_hub"
NEXTWORD = "nextword"
# What KerasHub was called until 2024, and what it is called now.
_PACKAGES = {"keras_nlp": KERAS_HUB, KERAS_HUB: KERAS_HUB, NEXTWORD: NEXTWORD}
_REGISTERED = re.compile(rf"({'|'.join(_PACKAGES)})>([A-Za-z_][A-Za-z0-9_]{{0,99}})")


@dataclass(frozen=True)
class SerializedObject:
    """A class and the arguments of its constructor, as Keras serializes an object.

    Attributes:
        class_name: the class's name, as it is registered.
        config: the arguments.
        package: whose class it is: `KERAS_HUB` or `NEXTWORD`.
    """

    class_name: str
    config: Mapping[str, Any]
    package: str = KERAS_HUB

    def to_json(self, module: str) -> dict[str, Any]:
        """Return the object as KerasHub writes it.

        Args:
            module: the module that the class is defined in.
        """
        return {
            "module": module,
            "class_name": self.class_name,
            "config": dict(self.config),
            "registered_name": f"{self.package}>{self.class_name}",
        }


def read_serialized(path: Path) -> SerializedObject:
    """Read a file that holds one serialized object.

    Raises:
        PresetError: it does not, or the object is of another library's class.
    """
    return parse_serialized(read_json(path), name=str(path))


def parse_serialized(value: Any, *, name: str) -> SerializedObject:
    """Take a serialized object apart. Nothing that it names is looked up.

    Args:
        value: the object, from JSON.
        name: where it is from, for messages.

    Raises:
        PresetError: it is no serialized object, or of another library's class.
    """
    registered = value.get("registered_name") if isinstance(value, Mapping) else None
    match = _REGISTERED.fullmatch(registered) if isinstance(registered, str) else None
    if match is None:
        raise PresetError(
            f"{show(name)} must have a 'registered_name' such as 'keras_hub>GPT2Backbone'. "
            f"Received: {show(str(registered))}."
        )
    config = value.get("config")
    if not isinstance(config, Mapping):
        raise PresetError(f"{show(name)} must have a 'config', an object.")
    return SerializedObject(match[2], config, _PACKAGES[match[1]])


def serialized_dtype(name: str) -> dict[str, Any]:
    """Return a Keras dtype policy as Keras serializes it.

    Args:
        name: the policy, such as `"bfloat16"` or `"mixed_bfloat16"`.
    """
    return {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": name},
        "registered_name": None,
    }


def serialized_policies(name: str, modes: Mapping[str, str]) -> dict[str, Any]:
    """Return the dtype policy of a model some of whose layers are quantized.

    Args:
        name: the policy of the others.
        modes: path of each quantized layer to what Keras calls its mode, such as "int8".
    """
    # Without a name of its own, the model takes Keras' global policy, as KerasHub's do.
    own = None if name == "float32" else name
    policies = {
        path: _serialized_policy("QuantizedDTypePolicy", {"mode": mode, "source_name": own})
        for path, mode in modes.items()
    }
    default = None if own is None else serialized_dtype(own)
    config = {"default_policy": default, "policy_map": policies}
    return _serialized_policy("DTypePolicyMap", config)


def _serialized_policy(class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": "keras.dtype_policies",
        "class_name": class_name,
        "config": config,
        "registered_name": None,
    }


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a file as KerasHub formats its own."""
    path.write_text(json.dumps(value, indent=4), encoding="utf-8")
