"""What the tests of the native kernels share."""

from collections.abc import Iterator

import pytest

from backends import without_gradients
from nextword.ops.native import kernels_used, uses_kernels


@pytest.fixture(params=["avx512-vnni", "avx2", "portable"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compute with the kernels of each instruction set that this machine has."""
    assert uses_kernels()  # which tells JAX of the kernels
    try:
        with without_gradients(), kernels_used(request.param):
            yield request.param
    except ValueError:
        pytest.skip("not on this machine")
