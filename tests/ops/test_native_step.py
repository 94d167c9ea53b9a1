"""The instructions of a native step give what float64 NumPy gives, on every instruction set."""

from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
from scipy import special

from nextword.ops.native import kernel_calls, kernels_in_use
from nextword.ops.native.step_program import NativeMatrix, Register, StepProgram

pytestmark = [
    pytest.mark.skipif(kernels_in_use() is None, reason="built without native kernels"),
    pytest.mark.usefixtures("instruction_set"),
]

tensor, to_numpy = keras.ops.convert_to_tensor, keras.ops.convert_to_numpy

ROWS, LENGTH, CAPACITY = 3, 2, 40
HEADS, SHARED, KEY_WIDTH, VALUE_WIDTH = 6, 2, 24, 20
WIDTH = HEADS * KEY_WIDTH
POSITIONS = np.array([0, 17, CAPACITY - LENGTH], "int32")
RANDOM = np.random.default_rng(0)
HIDDEN = RANDOM.normal(size=(ROWS, LENGTH, WIDTH)).astype("float32")


def caches(dtype: str = "float32") -> tuple[Any, Any]:
    keys = RANDOM.normal(size=(ROWS, SHARED, CAPACITY, KEY_WIDTH))
    values = RANDOM.normal(size=(ROWS, SHARED, CAPACITY, VALUE_WIDTH))
    return tensor(keys, dtype), tensor(values, dtype)


def run(
    program: StepProgram,
    result: Register,
    cached: tuple[Any, Any] | None = None,
    rows: slice = slice(None),
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Run a program on rows of HIDDEN; the result is as wide as that."""
    program.result = result
    positions = POSITIONS[rows, None] + np.arange(LENGTH, dtype="int32")
    outputs, buffers = program.run(
        tensor(HIDDEN[rows]), tensor(positions), tensor(POSITIONS[rows] + 1), [cached or caches()]
    )
    return to_numpy(outputs), [to_numpy(b).astype("float32") for pair in buffers for b in pair]


def matrix(outputs: int, inputs: int) -> tuple[np.ndarray, NativeMatrix]:
    values = RANDOM.normal(size=(outputs, inputs)).astype("float32")
    return values, NativeMatrix(outputs, inputs, tensor(values))


@pytest.mark.parametrize("is_centered", [False, True])
@pytest.mark.parametrize("scales", ["of all", "of each head", "shared by heads"])
def test_norm(scales: str, is_centered: bool) -> None:
    heads = 1 if scales == "of all" else HEADS
    width = WIDTH // heads
    shape = (heads, width) if scales == "of each head" else (width,)
    scale, bias = RANDOM.normal(size=(2, *shape)).astype("float32")
    program = StepProgram(WIDTH, [caches()])
    found, _ = run(
        program,
        program.norm(
            program.hidden_states,
            tensor(scale),
            tensor(bias) if is_centered else None,
            heads=heads,
            is_centered=is_centered,
            epsilon=1e-3,
            offset=1.0,
        ),
    )
    x = HIDDEN.reshape(ROWS, LENGTH, heads, width).astype("float64")
    x = x - x.mean(-1, keepdims=True) * is_centered
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-3) * (scale + 1.0)
    expected = expected + bias * is_centered
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=2e-6, rtol=1e-6)


ACTIVATIONS = {
    "silu": lambda x: x * special.expit(x),
    "gelu": lambda x: x * special.ndtr(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x * special.expit(1.702 * x),
    "relu": lambda x: np.maximum(x, 0),
    "relu_squared": lambda x: np.maximum(x, 0) ** 2,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["alone", "gated", "limited"])
def test_activate(activation: str, kind: str) -> None:
    program = StepProgram(WIDTH, [caches()])
    up, native = matrix(WIDTH, WIDTH)
    gate = program.hidden_states
    limit = 0.7 if kind == "limited" else None
    if kind == "alone":
        found, _ = run(program, program.activate(activation, gate))
        expected = ACTIVATIONS[activation](HIDDEN.astype("float64"))
    else:
        (gated,) = program.linear(gate, (native, None))
        found, _ = run(program, program.activate(activation, gate, gated, limit=limit))
        x = HIDDEN.astype("float64")
        y = x @ up.T.astype("float64")
        if limit:
            x, y = np.minimum(x, limit), np.clip(y, -limit, limit) + 1
        expected = ACTIVATIONS[activation](x) * y
    np.testing.assert_allclose(found, expected, atol=3e-5, rtol=1e-5)


def test_products_biases_and_sums() -> None:
    # Of many outputs, so that threads share them.
    (first, native_first), (second, native_second) = matrix(500, WIDTH), matrix(WIDTH, 500)
    bias = RANDOM.normal(size=500).astype("float32")
    program = StepProgram(WIDTH, [caches()])
    inner, other = program.linear(
        program.hidden_states, (native_first, tensor(bias)), (native_first, None)
    )
    (outputs,) = program.linear(program.add(inner, other, -0.5), (native_second, None))
    found, _ = run(program, program.add(program.hidden_states, outputs))
    x = HIDDEN.astype("float64")
    expected = x + (0.5 * x @ first.T.astype("float64") + bias) @ second.T.astype("float64")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-4)


def test_products_with_int8() -> None:
    codes = RANDOM.integers(-127, 128, size=(70, WIDTH)).astype("int8")
    scales = RANDOM.uniform(1, 100, size=70).astype("float32")
    program = StepProgram(WIDTH, [caches()])
    native = NativeMatrix(70, WIDTH, tensor(codes), tensor(scales))
    back, native_back = matrix(WIDTH, 70)
    (inner,) = program.linear(program.hidden_states, (native, None))
    (outputs,) = program.linear(inner, (native_back, None))
    found, _ = run(program, outputs)
    expected = HIDDEN.astype("float64") @ codes.T.astype("float64") / scales
    np.testing.assert_allclose(found, expected @ back.T.astype("float64"), rtol=1e-5, atol=1e-3)


class Rotation(NamedTuple):
    pairs: int
    numbers: np.ndarray
    angles: int = 0

    def table(self, positions: Any, lengths: Any) -> Any:
        np.testing.assert_array_equal(to_numpy(lengths), POSITIONS + 1)
        return tensor(self.numbers)


def test_rotate() -> None:
    pairs = 9  # the rest of a head stays as it is
    angles = RANDOM.normal(size=(ROWS, LENGTH, pairs))
    table = np.concatenate([np.cos(angles), np.sin(angles)], -1).astype("float32")
    program = StepProgram(WIDTH, [caches()])
    program.rotate(program.hidden_states, HEADS, Rotation(pairs, table))
    found, _ = run(program, program.hidden_states)
    heads = HIDDEN.reshape(ROWS, LENGTH, HEADS, KEY_WIDTH).astype("complex128")
    turned = heads[..., :pairs] + 1j * heads[..., pairs : 2 * pairs]
    turned = turned * np.exp(1j * angles)[:, :, None]
    expected = np.concatenate([turned.real, turned.imag, heads[..., 2 * pairs :].real], -1)
    np.testing.assert_allclose(found, expected.reshape(found.shape), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["plain", "window", "soft cap", "alibi", "sinks"])
def test_attend(kind: str, dtype: str) -> None:
    keys, values = caches(dtype)
    program = StepProgram(WIDTH, [(keys, values)])
    (new_keys, native_keys), (new_values, native_values) = (
        matrix(SHARED * KEY_WIDTH, WIDTH),
        matrix(SHARED * VALUE_WIDTH, WIDTH),
    )
    last, native_last = matrix(WIDTH, HEADS * VALUE_WIDTH)
    key, value = program.linear(program.hidden_states, (native_keys, None), (native_values, None))
    program.store(key, SHARED, program.caches[0][0])
    program.store(value, SHARED, program.caches[0][1])
    window = 5 if kind == "window" else None
    soft_cap = 2.0 if kind == "soft cap" else None
    slopes, sinks = RANDOM.normal(size=(2, HEADS)).astype("float32")
    attended = program.attend(
        program.hidden_states,
        HEADS,
        program.caches[0],
        scale=0.2,
        soft_cap=soft_cap,
        slopes=tensor(slopes) if kind == "alibi" else None,
        sinks=tensor(sinks) if kind == "sinks" else None,
        window=window,
    )
    cached = [np.array(to_numpy(cache), "float32") for cache in (keys, values)]
    (result,) = program.linear(attended, (native_last, None))
    found, buffers = run(program, result, (keys, values))

    expected = np.zeros((ROWS, LENGTH, WIDTH))
    x = HIDDEN.astype("float64")
    for cache, new, width in zip(
        cached, (new_keys, new_values), (KEY_WIDTH, VALUE_WIDTH), strict=True
    ):
        projected = (HIDDEN @ new.T).reshape(ROWS, LENGTH, SHARED, width)
        for row, position in enumerate(POSITIONS):
            block = projected[row].transpose(1, 0, 2)
            cache[row, :, position : position + LENGTH] = to_numpy(tensor(block, dtype))
    for ours, theirs in zip(buffers, cached, strict=True):
        rtol = 2**-7 if dtype == "bfloat16" else 1e-5
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-4)
    for row, token, head in np.ndindex(ROWS, LENGTH, HEADS):
        shared, position = head // (HEADS // SHARED), POSITIONS[row] + token
        seen = slice(max(0, position + 1 - window) if window else 0, position + 1)
        query = x[row, token, head * KEY_WIDTH : (head + 1) * KEY_WIDTH]
        scores = 0.2 * buffers[0][row, shared, seen].astype("float64") @ query
        if soft_cap:
            scores = soft_cap * np.tanh(scores / soft_cap)
        if kind == "alibi":
            scores = scores + slopes[head] * np.arange(seen.stop)
        if kind == "sinks":
            scores = np.append(scores, sinks[head])
        weights = special.softmax(scores)[: seen.stop - seen.start]
        output = weights @ buffers[1][row, shared, seen].astype("float64")
        columns = slice(head * VALUE_WIDTH, (head + 1) * VALUE_WIDTH)
        expected[row, token] += last[:, columns].astype("float64") @ output
    np.testing.assert_allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("width", [12, 20, 64, 128])
@pytest.mark.parametrize("shared_by", [1, 2, 3, 4, 7])
def test_heads_that_share_keys(shared_by: int, width: int, dtype: str) -> None:
    rows, shared, capacity = 4, 3, 48
    heads = shared * shared_by
    keys, values = (
        tensor(RANDOM.normal(size=(rows, shared, capacity, width)), dtype) for _ in range(2)
    )
    hidden = RANDOM.normal(size=(rows, 1, heads * width)).astype("float32")
    positions = np.array([[0], [2], [17], [capacity - 1]], "int32")
    program = StepProgram(heads * width, [(keys, values)])
    program.result = program.attend(
        program.hidden_states,
        heads,
        program.caches[0],
        scale=width**-0.5,
        soft_cap=None,
        slopes=None,
        sinks=None,
        window=None,
    )
    lengths = tensor(positions[:, 0] + 1)
    cached = [to_numpy(cache).astype("float64") for cache in (keys, values)]
    found, _ = program.run(tensor(hidden), tensor(positions), lengths, [(keys, values)])

    expected = np.zeros((rows, heads, width))
    for row, head in np.ndindex(rows, heads):
        seen = row, head // shared_by, slice(positions[row, 0] + 1)
        query = hidden[row, 0, head * width : (head + 1) * width].astype("float64")
        weights = special.softmax(cached[0][seen] @ query * width**-0.5)
        expected[row, head] = weights @ cached[1][seen]
    np.testing.assert_allclose(to_numpy(found).reshape(expected.shape), expected, atol=2e-6)


def test_a_row_is_the_same_alone_and_in_a_batch() -> None:
    values, native = matrix(WIDTH, WIDTH)
    keys, cached = caches()
    alone = []
    for rows in [slice(row, row + 1) for row in range(ROWS)] + [slice(0, ROWS)]:
        buffers = keys[rows], cached[rows]
        program = StepProgram(WIDTH, [buffers])
        (query,) = program.linear(program.hidden_states, (native, None))
        attended = program.attend(
            query,
            HEADS,
            program.caches[0],
            scale=0.3,
            soft_cap=None,
            slopes=None,
            sinks=None,
            window=None,
        )
        last = NativeMatrix(WIDTH, HEADS * VALUE_WIDTH, tensor(values[:, : attended.width]))
        (result,) = program.linear(attended, (last, None))
        alone.append(run(program, result, buffers, rows)[0])
    np.testing.assert_array_equal(np.concatenate(alone[:-1]), alone[-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"program": [99, 0]}, "does not fit"),
        ({"program": [7, 4, 0, 0, 0]}, "does not fit"),
        ({"program": [7, 4, 0, 0, 5, WIDTH]}, "does not fit"),
        ({"program": [7, 4, 0, 0, 0, WIDTH + 1]}, "does not fit"),
        ({"program": [7, 4, 0, 0, 0, WIDTH, 7]}, "does not fit"),
        ({"program": [4, 4, 0, HEADS, KEY_WIDTH, 2]}, "does not fit"),  # what is no cache
        ({"factors": []}, "does not fit"),
        ({"result": 3}, "does not fit"),
        ({"widths": [WIDTH + 1]}, "shapes"),
        ({"positions": np.array([0, 0, CAPACITY - 1], "int32")}, "beyond the cache"),
        ({"positions": np.array([-1, 0, 0], "int32")}, "beyond the cache"),
    ],
)
def test_wrong_programs_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {
        "positions": POSITIONS,
        "program": [7, 4, 0, 0, 0, WIDTH],
        "factors": [1.0, 0.0],
        "widths": [WIDTH],
        "result": 0,
    } | change
    positions = tensor(arguments.pop("positions"))
    for name, dtype in (("program", "int64"), ("factors", "float32"), ("widths", "int64")):
        arguments[name] = np.array(arguments[name], dtype)
    like_a_cache = tensor(np.zeros((ROWS, HEADS, CAPACITY, KEY_WIDTH), "float32"))
    calls = kernel_calls()
    operands = calls.Operands([like_a_cache])
    with pytest.raises(Exception, match=message):
        to_numpy(
            calls.decode_step(tensor(HIDDEN), positions, caches(), operands, {}, **arguments)[0]
        )
