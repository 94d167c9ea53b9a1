"""The garbage collector is left as it was found, and finds later what is garbage."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from nextword._garbage import collection_paused


class Node:
    """An object that can refer to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize("is_enabled", [True, False])
def test_the_collector_pauses_and_goes_on(is_enabled: bool) -> None:
    (gc.enable if is_enabled else gc.disable)()
    with pytest.raises(RuntimeError, match="inside"), collection_paused():
        assert not gc.isenabled()
        raise RuntimeError("inside")
    assert gc.isenabled() is is_enabled


def test_what_was_made_in_the_pause_is_collected_when_it_is_garbage() -> None:
    with collection_paused():
        node = Node()
    found = weakref.ref(node)
    del node
    gc.collect()
    assert found() is None


def test_what_a_caller_has_frozen_stays_frozen() -> None:
    kept = Node()
    gc.freeze()
    with collection_paused():
        made = Node()
    assert not is_collectable(kept)
    assert is_collectable(made)


def is_collectable(node: Node) -> bool:
    """Whether the collector looks at an object: what is frozen is not among these."""
    return any(found is node for found in gc.get_objects())
