"""Choose the Keras backend before Keras is first imported.

Keras settles its backend at import time, and the first time it runs anywhere it writes `keras.json`
with "tensorflow" in it, whether or not TensorFlow is installed. So a backend named there counts as
the user's choice only if it is installed; the `KERAS_BACKEND` variable always counts.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

PREFERRED_BACKENDS = ("jax", "torch", "tensorflow")
OTHER_BACKENDS = ("numpy", "openvino")


def _is_installed(package: str) -> bool:
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # already imported, by something that left it without a spec
        return package in sys.modules
    # A folder without `__init__.py`, as an uninstalled package may leave behind, has no origin.
    return spec is not None and spec.origin is not None


def _keras_json_backend() -> str | None:
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras")
    try:
        backend = json.loads((home.expanduser() / "keras.json").read_text()).get("backend")
    except (OSError, ValueError, AttributeError, RuntimeError):  # RuntimeError: no home
        return None
    return backend if isinstance(backend, str) else None


def select_backend() -> None:
    """Set `KERAS_BACKEND` to the first installed of jax, torch and tensorflow.

    Does nothing where the user has already chosen: Keras is imported, `KERAS_BACKEND` is set, or
    `keras.json` names a backend that is installed. Nor where no backend is installed:
    `require_backend` says so when one is first needed, so that `nextword --help` works without.
    """
    if "keras" in sys.modules or os.environ.get("KERAS_BACKEND"):
        return
    configured = _keras_json_backend()
    if configured in OTHER_BACKENDS:
        return
    if configured in PREFERRED_BACKENDS and _is_installed(configured):
        return
    for backend in PREFERRED_BACKENDS:
        if _is_installed(backend):
            os.environ["KERAS_BACKEND"] = backend
            return


def require_backend() -> None:
    """Raise if no Keras backend is installed.

    Raises:
        ImportError: none of jax, torch and tensorflow is installed, or not the one that
            `KERAS_BACKEND` names.
    """
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen in PREFERRED_BACKENDS and not _is_installed(chosen):
        raise ImportError(
            f"The variable KERAS_BACKEND chooses {chosen}, which is not installed: "
            f'run `pip install "nextword[{chosen}]"`, or choose another.'
        )
    if "keras" not in sys.modules and not any(map(_is_installed, PREFERRED_BACKENDS)):
        raise ImportError(
            "nextword needs a Keras backend, and none of jax, torch and tensorflow is installed: "
            'run `pip install "nextword[jax]"`.'
        )
