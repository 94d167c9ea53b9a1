"""Presets: from a name or handle to local files, and from files to configuration and tensors."""

from typing import TYPE_CHECKING, Any

from nextword.errors import PresetError
from nextword.presets.builtin import DEFAULT_PRESET, BuiltinPreset, builtin_presets
from nextword.presets.resolve import resolve_preset
from nextword.presets.sources import PresetSource

if TYPE_CHECKING:
    from nextword.presets.checkpoint import open_checkpoint

__all__ = [
    "DEFAULT_PRESET",
    "BuiltinPreset",
    "PresetError",
    "PresetSource",
    "builtin_presets",
    "open_checkpoint",
    "resolve_preset",
]


def __getattr__(name: str) -> Any:
    # Reading checkpoints needs numpy, which `nextword --help` and listing presets do not.
    if name == "open_checkpoint":
        from nextword.presets.checkpoint import open_checkpoint

        return open_checkpoint
    raise AttributeError(f"module 'nextword.presets' has no attribute {name!r}")
