"""The kernels as PyTorch operators: what is said of them, and when they are called.

What they compute is tested as on JAX, by the same tests in another process.
"""

import os
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch

from backends import only_on_jax, only_on_torch, run_on_torch
from nextword.ops import int8_weight_linear, linear, packed_linear
from nextword.ops.native import can_call_kernels, kernels_in_use, torch_calls
from nextword.quantization.grouped import Q4_1

pytestmark = pytest.mark.skipif(kernels_in_use() is None, reason="built without native kernels")

RANDOM = np.random.default_rng(0)
X = torch.tensor(RANDOM.normal(size=(3, 64)), dtype=torch.float32)
KERNEL = torch.tensor(RANDOM.normal(size=(32, 64)), dtype=torch.float32)
PACKED = {name: torch.tensor(part) for name, part in Q4_1.quantize(KERNEL.numpy()).items()}
CODES, SCALES = (KERNEL * 50).to(torch.int8), torch.ones(32)


@only_on_jax
def test_what_is_computed() -> None:
    summary = run_on_torch(
        "ops/test_native.py",
        "ops/test_native_experts.py",
        "ops/test_native_step.py",
        "ops/test_torch_calls.py",
        "quantization/test_grouped.py",
    )
    assert "failed" not in summary and "passed" in summary


def step(**changes: Any) -> dict[str, Any]:
    """Return arguments of a step that adds the hidden states to themselves."""
    return {
        "hidden_states": X[:, None],
        "positions": torch.zeros(3, dtype=torch.int32),
        "caches": [torch.zeros(3, 1, 4, 8), torch.zeros(3, 1, 4, 8)],
        "operands": torch.zeros(0, 7, dtype=torch.int64),
        "tables": [],
        "places": [],
        "program": torch.tensor([7, 4, 0, 0, 0, 64]),
        "factors": torch.tensor([1.0, 0.0]),
        "widths": torch.tensor([64]),
        "result": 0,
        **changes,
    }


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("float_linear", (X, KERNEL)),
        ("float_linear", (X, KERNEL.bfloat16())),
        ("int8_linear", (X, CODES, SCALES)),
        ("packed_linear", (X, *PACKED.values(), 4, 0)),
        ("packed_linear", (X, *list(PACKED.values())[:2], None, 4, 8)),
        ("decode_step", tuple(step().values())),
    ],
)
def test_operators_are_what_they_say(name: str, arguments: tuple[Any, ...]) -> None:
    """Check what is changed, the shapes without values, and that gradients are refused."""
    torch.library.opcheck(getattr(torch.ops.nextword, name).default, arguments)


def test_a_gradient_is_an_error() -> None:
    outputs = torch.ops.nextword.float_linear(X, KERNEL.clone().requires_grad_())
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        outputs.sum().backward()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("float_linear", (X, KERNEL[:, :63])),
        ("float_linear", (X, KERNEL.double())),
        ("float_linear", (X[None], KERNEL)),
        ("int8_linear", (X, CODES, SCALES[:31])),
        ("packed_linear", (X, *PACKED.values(), 8, 0)),
        ("packed_linear", (X, PACKED["values"], PACKED["scales"][:1], None, 4, 8)),
        ("decode_step", tuple(step(positions=torch.zeros(2, dtype=torch.int32)).values())),
        ("decode_step", tuple(step(positions=torch.zeros(3)).values())),
    ],
)
def test_what_does_not_fit_is_refused(name: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises((ValueError, RuntimeError), match="do not fit"):
        getattr(torch.ops.nextword, name)(*arguments)


def test_caches_that_are_views_are_refused() -> None:
    arguments = step(caches=[torch.zeros(3, 1, 8, 4).mT] * 2)
    with pytest.raises(ValueError, match="must be contiguous.* Received: shape=.3, 1, 4, 8."):
        torch.ops.nextword.decode_step(*arguments.values())


def test_views_are_read_as_they_are() -> None:
    x, kernel = X.T.contiguous().T, KERNEL.T.contiguous().T
    assert not x.is_contiguous()
    found = torch.ops.nextword.float_linear(x, kernel)
    torch.testing.assert_close(found, (x.double() @ kernel.double().T).float())


@only_on_torch
def test_what_is_recorded_for_gradients_is_portable() -> None:
    x = X.clone().requires_grad_()
    kernel = KERNEL.clone().requires_grad_()
    assert not can_call_kernels(x)
    linear(x, kernel).sum().backward()
    torch.testing.assert_close(x.grad, KERNEL.double().sum(0).expand(X.shape).float())
    torch.testing.assert_close(kernel.grad, X.double().sum(0).expand(KERNEL.shape).float())

    for product, weights in (
        (lambda x: int8_weight_linear(x, CODES, SCALES), CODES.double()),
        (
            lambda x: packed_linear(x, *PACKED.values(), bits=4, zero_point=0),
            torch.tensor(Q4_1.dequantize({n: p.numpy() for n, p in PACKED.items()})).double(),
        ),
    ):
        x = X.clone().requires_grad_()
        product(x).sum().backward()
        torch.testing.assert_close(x.grad, weights.sum(0).expand(X.shape).float())


@only_on_torch
def test_what_is_elsewhere_is_portable() -> None:
    with torch.no_grad():
        assert can_call_kernels(X)
        assert not can_call_kernels(X.to("meta"))
        assert linear(X.to("meta"), KERNEL.to("meta")).shape == (3, 32)


@only_on_torch
def test_what_is_compiled_is_portable() -> None:
    with torch.no_grad():
        compiled = torch.compile(linear, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(X, KERNEL), X @ KERNEL.T)


@only_on_torch
@pytest.mark.filterwarnings("ignore")  # Python and JAX advise against forks
def test_a_process_that_was_forked_has_threads_of_its_own() -> None:
    big = torch.ones(1, 512), torch.ones(4096, 512)
    expected = torch.ops.nextword.float_linear(*big)
    code = os.fork()
    if code == 0:
        same = torch.equal(torch.ops.nextword.float_linear(*big), expected)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(code, 0)[1]) == 0


@pytest.mark.parametrize("threads", [1, 2, 3, 7, 16])
@pytest.mark.parametrize("outputs", [1, 63, 64, 513, 4096])
def test_work_is_shared_by_any_number_of_threads(threads: int, outputs: int) -> None:
    random = torch.Generator().manual_seed(outputs)
    inputs, kernel = (torch.randn(rows, 700, generator=random) for rows in (2, outputs))
    expected = inputs.double() @ kernel.double().T
    token = torch_calls._num_threads.set(threads)
    try:
        for _ in range(20):  # whichever thread takes which part
            found = torch.ops.nextword.float_linear(inputs, kernel)
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    finally:
        torch_calls._num_threads.reset(token)


def test_threads_are_handed_over_and_given_back() -> None:
    before, elsewhere = torch.get_num_threads(), []
    arguments = step() | {"operands": torch_calls.Operands([]), "tables": {}}
    arguments = {name: value for name, value in arguments.items() if name != "places"}
    for name in ("program", "factors", "widths"):
        arguments[name] = arguments[name].numpy()
    with torch_calls.threads_handed_over():
        assert torch.get_num_threads() == before
        torch_calls.decode_step(**arguments)
        if sys.platform == "linux":
            assert torch.get_num_threads() == 1
        other = threading.Thread(target=lambda: elsewhere.append(torch.get_num_threads()))
        other.start()
        other.join()
    assert [torch.get_num_threads()] == elsewhere == [before]
    torch_calls.decode_step(**arguments)
    assert torch.get_num_threads() == before


def test_what_steps_read_may_move() -> None:
    weight = torch.nn.Parameter(torch.ones(64))
    operands = torch_calls.Operands([weight])
    arguments = step(program=torch.tensor([0, 7, 0, 0, 1, 64, 0, 2, -1]), factors=torch.zeros(2))
    expected = X[:, None] / (X.double() ** 2).mean(-1)[:, None, None].sqrt()
    for factor in (1, 3):
        weight.data = torch.full((64,), float(factor))  # as `torch.nn.Module.to` does
        arguments["operands"] = operands.described()
        found = torch.ops.nextword.decode_step(*arguments.values())
        torch.testing.assert_close(found, (factor * expected).float())
