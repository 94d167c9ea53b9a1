"""A native step's experts give what float64 NumPy gives, on every instruction set."""

from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from backends import without_gradients
from nextword.ops.native import kernels_in_use, uses_kernels
from nextword.ops.native.step_program import NativeMatrix, NotCoveredError, StepProgram
from nextword.quantization import FORMATS

pytestmark = pytest.mark.skipif(kernels_in_use() is None, reason="built without native kernels")

tensor, to_numpy = keras.ops.convert_to_tensor, keras.ops.convert_to_numpy


def run(program: StepProgram, hidden_states: np.ndarray, cache: tuple[Any, Any]) -> np.ndarray:
    rows, length, _ = hidden_states.shape
    positions = np.zeros((rows, 1), "int32") + np.arange(length, dtype="int32")
    lengths = np.full(rows, length, "int32")
    outputs, _ = program.run(tensor(hidden_states), tensor(positions), tensor(lengths), [cache])
    return np.asarray(to_numpy(outputs))


def empty_cache(rows: int) -> tuple[Any, Any]:
    keys, values = (tensor(np.zeros((rows, 1, 8, 16), "float32")) for _ in range(2))
    return keys, values


def chosen_weights(
    logits: np.ndarray,
    bias: np.ndarray | None,
    *,
    chosen: int,
    is_sigmoid: bool,
    is_normalized: bool,
    scale: float,
    groups: int,
    chosen_groups: int,
    scores_per_group: int,
) -> np.ndarray:
    """Return each expert's weight for each token, in float64."""
    scores = special.expit(logits) if is_sigmoid else special.softmax(logits, axis=-1)
    preferences = scores if bias is None else scores + bias
    weights = np.zeros_like(scores)
    for token in np.ndindex(scores.shape[:-1]):
        of_groups = preferences[token].reshape(groups, -1)
        best = np.sort(of_groups, axis=-1)[:, -scores_per_group:].sum(-1)
        allowed = np.full_like(of_groups, -np.inf)
        for group in np.argsort(best)[-chosen_groups:]:
            allowed[group] = of_groups[group]
        experts = np.argsort(allowed.ravel())[-chosen:]
        own = scores[token][experts]
        weights[token][experts] = own / (own.sum() if is_normalized else 1) * scale
    return weights


def native_experts(kernels: np.ndarray, form: str) -> tuple[NativeMatrix, np.ndarray]:
    """Return kernels `[experts, out, in]` held in a dtype or a format, and what they are then."""
    shape = kernels.shape[0] * kernels.shape[1], kernels.shape[2]
    if form not in FORMATS:
        return NativeMatrix(*shape, tensor(kernels, form)), kernels
    parts = FORMATS[form].quantize(kernels.reshape(shape))
    tensors = {name: tensor(part) for name, part in parts.items()}
    rounded = FORMATS[form].dequantize(parts).reshape(kernels.shape)
    return FORMATS[form].native(shape, tensors), rounded


@pytest.mark.parametrize(
    "form", ["float32", "bfloat16", "int8_weight_only", "q8_0", "q4_1", "q4_0"]
)
@pytest.mark.parametrize("has_biases", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2)], ids=str)
def test_experts(
    instruction_set: str, shape: tuple[int, int], grouped: bool, has_biases: bool, form: str
) -> None:
    random = np.random.default_rng(1)
    width, inner, number = (96, 64, 12) if form.startswith("q") else (48, 40, 12)
    routing: dict[str, Any] = {
        "chosen": 3,
        "is_sigmoid": grouped,
        "is_normalized": grouped,
        "scale": 2.5 if grouped else 1.0,
        "groups": 4 if grouped else 1,
        "chosen_groups": 2 if grouped else 1,
        "scores_per_group": 2 if grouped else 1,
    }

    def numbers(*size: int) -> np.ndarray:
        values = random.normal(size=size).astype(ml_dtypes.bfloat16)
        return values.astype("float32")

    hidden = numbers(*shape, width)
    router = numbers(number, width) / 8
    choice_bias = numbers(number) / 8 if grouped else None
    kernels = [numbers(number, inner, width), numbers(number, inner, width)]
    kernels.append(numbers(number, width, inner))
    biases = [numbers(number, kernel.shape[1]) if has_biases else None for kernel in kernels]
    held, kernels = zip(*(native_experts(kernel, form) for kernel in kernels), strict=True)
    given = [
        (matrix, None if bias is None else tensor(bias))
        for matrix, bias in zip(held, biases, strict=True)
    ]

    cache = empty_cache(shape[0])
    program = StepProgram(width, [cache])
    (logits,) = program.linear(
        program.hidden_states, (NativeMatrix(number, width, tensor(router)), None)
    )
    bias = None if choice_bias is None else tensor(choice_bias)
    choice = program.route(logits, bias, **routing)
    gate, up = program.expert_linear(program.hidden_states, choice, *given[:2])
    activated = program.activate("silu", gate, up)
    program.result = program.mix(program.expert_linear(activated, choice, given[2])[0], choice)
    found = run(program, hidden, cache)

    x = hidden.astype("float64")
    weights = chosen_weights(x @ router.T.astype("float64"), choice_bias, **routing)

    def product(inputs: np.ndarray, which: int) -> np.ndarray:
        outputs = np.einsum(
            "bt...i,eoi->bteo" if inputs.ndim == 3 else "btei,eoi->bteo",
            inputs,
            kernels[which].astype("float64"),
        )
        return outputs if biases[which] is None else outputs + biases[which]

    one, other = product(x, 0), product(x, 1)
    said = product(one * special.expit(one) * other, 2)
    expected = np.einsum("bte,bteo->bto", weights, said)
    # For packed weights activations have 15 bits, in both products.
    tolerance = 2e-4 if form.startswith("q") else 1e-5
    atol = tolerance * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=atol)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.data(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_routing(
    groups: int, size: int, data: st.DataObject, is_sigmoid: bool, is_normalized: bool, seed: int
) -> None:
    assert uses_kernels()
    chosen_groups = data.draw(st.integers(1, groups))
    routing: dict[str, Any] = {
        "chosen": data.draw(st.integers(1, size * chosen_groups)),
        "is_sigmoid": is_sigmoid,
        "is_normalized": is_normalized,
        "scale": 1.5,
        "groups": groups,
        "chosen_groups": chosen_groups,
        "scores_per_group": data.draw(st.integers(1, size)),
    }
    number = groups * size
    random = np.random.default_rng(seed)
    # Scores that are far enough from each other for float32 to order them alike.
    logits = random.permutation(np.arange(number) / 8).reshape(1, 1, number).astype("float32")
    with without_gradients():
        cache = empty_cache(1)
        program = StepProgram(number, [cache])
        choice = program.route(program.hidden_states, None, **routing)
        # Each expert says its number: a matrix of zeros, and a bias.
        kernel, _ = native_experts(np.zeros((number, number, number), "float32"), "float32")
        unit = tensor(np.eye(number, dtype="float32"))
        (said,) = program.expert_linear(program.hidden_states, choice, (kernel, unit))
        program.result = program.mix(said, choice)
        found = run(program, logits, cache)
    expected = chosen_weights(logits.astype("float64"), None, **routing)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_equal_scores_choose_the_first() -> None:
    assert uses_kernels()
    with without_gradients():
        cache = empty_cache(1)
        program = StepProgram(4, [cache])
        choice = program.route(
            program.hidden_states, None, chosen=2, is_sigmoid=False, is_normalized=True
        )
        kernel, _ = native_experts(np.zeros((4, 4, 4), "float32"), "float32")
        unit = tensor(np.eye(4, dtype="float32"))
        (said,) = program.expert_linear(program.hidden_states, choice, (kernel, unit))
        program.result = program.mix(said, choice)
        found = run(program, np.zeros((1, 1, 4), "float32"), cache)
    np.testing.assert_allclose(found[0, 0], [0.5, 0.5, 0, 0])


@pytest.mark.parametrize(
    ("outputs", "form"),
    [pytest.param(32, "float16", id="dtype"), pytest.param(8, "q8_0", id="experts share a tile")],
)
def test_what_is_left_to_the_portable_operations(outputs: int, form: str) -> None:
    program = StepProgram(32, [empty_cache(1)])
    choice = program.route(
        program.hidden_states, None, chosen=1, is_sigmoid=False, is_normalized=True
    )
    matrix, _ = native_experts(np.zeros((32, outputs, 32), "float32"), form)
    with pytest.raises(NotCoveredError):
        program.expert_linear(program.hidden_states, choice, (matrix, None))
