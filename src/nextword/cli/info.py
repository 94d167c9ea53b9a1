"""`nextword info`: what computes here, for whoever wonders about speed or reports an error."""

import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from nextword import __version__

HELP = (
    "Show what computes here: the Keras backend, its devices, whether the native kernels are in "
    "use, and where downloads and compiled programs are kept. Paste it into a bug report."
    """

[bold]Examples[/bold]
  nextword info
  nextword info --json"""
)

_PACKAGES = ("keras", "jax", "torch", "tensorflow", "tokenizers", "safetensors", "keras-hub")


def info(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for other programs.")
    ] = False,
) -> None:
    """Show what computes here."""
    found = _facts()
    if as_json:
        print(json.dumps(found, indent=2))
        return
    width = max(map(len, found)) + 2
    for name, value in found.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        print(f"{name.replace('_', ' '):{width}}{shown}")


def _facts() -> dict[str, Any]:
    import keras

    from nextword.presets.cache import cache_directory

    return {
        "nextword": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": [f"{name} {number}" for name in _PACKAGES if (number := _version_of(name))],
        "backend": keras.backend.backend(),
        "devices": keras.distribution.list_devices() or ["cpu:0"],
        "processors": str(os.cpu_count()),
        "native_kernels": _kernels(),
        "cache": str(cache_directory()),
    }


def _version_of(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _kernels() -> str:
    from nextword.ops.native import kernels_in_use, uses_kernels

    name = kernels_in_use()
    if name is None:
        return "not built: install a C++ compiler, then nextword again"
    return name if uses_kernels() else f"{name}, but the backend computes without them"
