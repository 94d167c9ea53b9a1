"""What downloads from hubs and uploads to them have in common: the clients and their errors."""

import logging
import os
import sys
from types import ModuleType


def kagglehub_client() -> ModuleType:
    """Return Kaggle's client library, which is imported when it is first needed."""
    first = "kagglehub" not in sys.modules
    import kagglehub

    # It logs every step to stdout, which belongs to the generated text; its progress bar stays.
    if first and "KAGGLEHUB_VERBOSITY" not in os.environ:
        logging.getLogger("kagglehub").setLevel(logging.WARNING)
    return kagglehub


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status that a hub answered with, `None` for an error of another kind."""
    return getattr(getattr(error, "response", None), "status_code", None)


def first_line(error: BaseException) -> str:
    """Return what a client's error says first, to be quoted in a sentence."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:200]
