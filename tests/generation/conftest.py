"""Fixtures of the tests of generation."""

from collections.abc import Iterator
from typing import Any

import jax
import pytest


@pytest.fixture
def compilations() -> Iterator[list[str]]:
    """The names of events by which JAX reports that it traces or compiles something."""
    events: list[str] = []

    def listen(event: str, duration: float, **details: Any) -> None:
        if "compile" in event:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield events
    jax.monitoring.unregister_event_duration_listener(listen)
