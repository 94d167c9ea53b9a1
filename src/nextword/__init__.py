"""Causal language models for Keras 3: load one from a preset, generate, stream, fine-tune, save."""

import importlib
from typing import TYPE_CHECKING, Any

from nextword._backend import require_backend, select_backend
from nextword._garbage import collection_paused

if TYPE_CHECKING:
    from nextword import layers, models, presets, samplers, tokenizers
    from nextword.presets.upload import upload_preset

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "layers",
    "models",
    "presets",
    "samplers",
    "tokenizers",
    "upload_preset",
]

_NEED_KERAS = {"layers", "models", "samplers"}
_LAZY_SUBMODULES = _NEED_KERAS | {"presets", "tokenizers"}

select_backend()


def __getattr__(name: str) -> Any:
    # Submodules are imported on first use, so that `import nextword` costs next to nothing.
    if name == "upload_preset":
        return importlib.import_module("nextword.presets.upload").upload_preset
    if name not in _LAZY_SUBMODULES:
        raise AttributeError(f"module 'nextword' has no attribute {name!r}")
    if name in _NEED_KERAS:
        require_backend()
    with collection_paused():
        return importlib.import_module(f"nextword.{name}")


def __dir__() -> list[str]:
    return sorted(__all__)


def family_tokenizers() -> "dict[str, type[tokenizers.Tokenizer]]":
    """Return the tokenizers of all families by name.

    `nextword.tokenizers` shows them, too. They are declared in a room above it, so it asks here.

    Example:
    >>> family_tokenizers()["GPT2Tokenizer"].default_split
    'gpt-2'
    """
    models, tokenizers = __getattr__("models"), __getattr__("tokenizers")
    classes = {name: getattr(models, name) for name in dir(models)}
    return {name: cls for name, cls in classes.items() if issubclass(cls, tokenizers.Tokenizer)}
