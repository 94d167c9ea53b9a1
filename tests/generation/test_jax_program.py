"""Programs are called with the values that they read, and no others."""

import gc
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import nextword
from nextword.generation import Engine, Request
from nextword.generation.jax_program import CompileClock, Program
from nextword.ops.native import kernels_in_use, kernels_used
from nextword.ops.native.jax_addresses import Addresses
from nextword.samplers import GreedySampler


def greedy(engine: Engine, length: int = 6) -> list[int]:
    request = Request(token_ids=[3, 1, 4], max_new_tokens=length)
    return [token.token_id for token in engine.generate([request], GreedySampler())]


@pytest.fixture
def backbone() -> Any:
    keras.utils.set_random_seed(1)
    return nextword.models.LlamaBackbone(50, 2, 2, 32, 32, 1)


def test_what_a_step_does_not_read_is_not_handed_over() -> None:
    read, unread = (keras.Variable(np.full(3, value, "float32")) for value in (1, 2))

    def step(*, inputs: Any) -> Any:
        return inputs + read

    program = Program(step, [unread, read], (), CompileClock())
    np.testing.assert_array_equal(program(inputs=jnp.ones(3)), np.full(3, 2))
    (jitted,) = program._jitted.values()
    assert [id(each) for each in jitted.variables] == [id(read)]
    read.assign([5, 5, 5])
    np.testing.assert_array_equal(program(inputs=jnp.ones(3)), np.full(3, 6))


def test_what_a_first_trace_did_not_read_is_no_constant_of_the_program() -> None:
    variables = [keras.Variable(np.ones(3, "float32")) for _ in range(2)]
    reads = [0]

    def step(*, inputs: list[Any]) -> Any:
        return inputs[0] + sum(variables[number] for number in reads)

    program = Program(step, variables, (), CompileClock())
    program(inputs=[jnp.ones(3, "float32")])
    reads.append(1)
    with pytest.raises(RuntimeError, match="which a first trace did not"):
        program(inputs=[jnp.ones(3, "int32")])  # which is traced anew


def test_each_number_of_rows_has_a_program_of_its_own() -> None:
    variables = [keras.Variable(np.full(3, value, "float32")) for value in (1, 2)]

    def step(*, nested: dict[str, Any]) -> Any:
        return nested["inputs"] + variables[len(nested["inputs"]) > 1]

    program = Program(step, variables, (), CompileClock())
    for _ in range(2):
        for rows, value in ((1, 1), (2, 2)):
            outputs = program(nested={"inputs": jnp.zeros((rows, 3))})
            np.testing.assert_array_equal(outputs, np.full((rows, 3), value))


@pytest.mark.skipif(kernels_in_use() is None, reason="built without native kernels")
def test_a_native_step_is_handed_what_lies_outside_of_the_layers(backbone: Any) -> None:
    engine = Engine(backbone)
    greedy(engine)
    ((_, steps),) = [(k, v) for k, v in engine._programs.items() if hasattr(v, "decode")]
    (jitted,) = steps.decode._jitted.values()
    paths = {variable.path.split("/")[0] for variable in jitted.variables}
    assert paths == {"token_embedding", "output_norm"}


@pytest.mark.parametrize("kernels", [kernels_in_use(), None])
def test_weights_are_those_of_the_moment(backbone: Any, kernels: str | None) -> None:
    engine = Engine(backbone)
    request = Request(token_ids=[3, 1, 4], max_new_tokens=6)
    with kernels_used(kernels):
        before = greedy(engine)
        generation = engine.generate([request], GreedySampler())
        first = next(generation).token_id
        for variable in backbone.transformer_layers[1].trainable_variables:
            variable.assign(-variable)
        changed = [first, *(token.token_id for token in generation)]
        after = greedy(engine)
        assert first == before[0]
        assert after != before
        assert changed != before
        assert after == greedy(Engine(backbone))


def test_kernels_may_be_taken_away_between_calls(backbone: Any) -> None:
    engine = Engine(backbone)
    expected = greedy(engine)
    with kernels_used(None):
        assert greedy(engine, length=100)[:6] == expected
    assert greedy(engine) == expected


def slow() -> Any:
    """Return what is not there for a while."""
    matrix = jnp.ones((1500, 1500))
    return jax.jit(lambda x: jax.lax.fori_loop(0, 4, lambda _, y: y @ x / 1500, x))(matrix)


def test_values_are_kept_until_the_program_that_reads_them_has_ended() -> None:
    addresses, value, results = Addresses(), jnp.zeros(3) + 1, [jnp.zeros(3) + 2]
    addresses.table([value])
    end = slow()
    addresses.keep([value], results, end)
    alive = weakref.ref(value)
    del value, addresses
    gc.collect()
    assert alive() is not None
    results.clear()  # which nobody goes on from
    gc.collect()
    assert end.is_ready()
    assert alive() is None


def test_values_of_an_earlier_program_are_let_go_by_the_last_one_alone() -> None:
    addresses, value = Addresses(), jnp.zeros(3) + 1
    first, second = [jnp.zeros(3) + 2], [jnp.zeros(3) + 3]
    addresses.keep([value], first, jnp.zeros(1))
    addresses.keep([value], second, jnp.zeros(1))
    alive = weakref.ref(value)
    del value
    first.clear()
    gc.collect()
    assert alive() is not None
    second.clear()
    gc.collect()
    assert alive() is None


def test_a_table_describes_new_values_when_the_old_ones_are_read() -> None:
    addresses, before, after = Addresses(), jnp.zeros(3) + 1, jnp.zeros((2, 3)) + 2
    first = addresses.table([before])
    assert addresses.table([before]) is first
    end = slow()
    results = [jnp.zeros(3) + 2]
    addresses.keep([before], results, end)
    row = np.asarray(addresses.table([after])).view(np.int64)[0]
    assert end.is_ready()
    assert list(row) == [after.unsafe_buffer_pointer(), 0, 2, 2, 3, 0, 0]


def test_replaced_weights_are_let_go_after_a_generation(backbone: Any) -> None:
    engine = Engine(backbone)
    greedy(engine)
    variable = backbone.transformer_layers[0].trainable_variables[0]
    before = weakref.ref(variable.value)
    variable.assign(variable + 1)
    gc.collect()
    assert before() is None
