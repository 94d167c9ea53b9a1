"""A tokenizer as one JSON value, for Keras' own model files and `from_config`."""

import base64
import binascii
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nextword.errors import PresetError, did_you_mean
from nextword.tokenizers import Tokenizer


def serialize_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return a tokenizer as a JSON value: its class, its configuration and its files.

    Args:
        tokenizer: any tokenizer.

    Returns:
        A dict of "class_name", "config" and "assets" (file name -> content in base64).
    """
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save_assets(Path(directory))
        assets = {
            path.name: base64.b64encode(path.read_bytes()).decode("ascii")
            for path in sorted(Path(directory).iterdir())
        }
    return {
        "class_name": type(tokenizer).__name__,
        "config": tokenizer.get_config(),
        "assets": assets,
    }


def deserialize_tokenizer(state: Any) -> Tokenizer:
    """Return the tokenizer that `serialize_tokenizer` was given.

    Args:
        state: what it returned.

    Raises:
        PresetError: the value is no tokenizer, or not one of a class that is known.
    """
    if not isinstance(state, Mapping) or state.keys() != {"class_name", "config", "assets"}:
        found = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise PresetError(
            "A stored tokenizer must have the keys 'assets', 'class_name' and 'config'. "
            f"Received: {found}."
        )
    class_name, config, assets = state["class_name"], state["config"], state["assets"]
    classes = {cls.__name__: cls for cls in _subclasses(Tokenizer)}  # type: ignore[type-abstract]
    if not isinstance(class_name, str) or class_name not in classes:
        raise PresetError(
            f"A stored tokenizer must be of a known class. Received: {class_name!r:.80}."
            f"{did_you_mean(str(class_name)[:80], classes)}"
        )
    if not isinstance(config, Mapping) or not isinstance(assets, Mapping):
        raise PresetError("The 'config' and 'assets' of a stored tokenizer must be objects.")
    cls = classes[class_name]
    with tempfile.TemporaryDirectory() as directory:
        for name, content in assets.items():
            if name not in (*cls.asset_files, *cls.own_asset_files):
                raise PresetError(
                    f"A {class_name} has no file of this name. Received: {str(name)[:80]!r}."
                )
            Path(directory, name).write_bytes(_decoded(name, content))
        return cls.from_assets(config, Path(directory))


def _subclasses(cls: type[Tokenizer]) -> Iterator[type[Tokenizer]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _decoded(name: str, content: Any) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise PresetError(f"The file {name} of a stored tokenizer must be base64.") from None
