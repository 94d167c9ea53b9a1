"""Python's garbage collector, and when it is in the way."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Keep the garbage collector from running in this context.

    It looks at every object there is whenever many new ones have come, and where Keras is imported,
    a model is built or a program traced, objects come by the hundred thousand and stay: an eighth
    of the time to the first token goes by with it, and nothing is found. What has come in the
    meantime counts as old afterwards, unless the caller keeps objects frozen.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        if was_enabled:
            gc.enable()
