"""What a layout reads it can write: the two are inverse, whatever the shape and the values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextword.presets.weight_layouts import (
    GroupedHeads,
    InterleavedRotary,
    JoinedHeads,
    Layout,
    Rows,
    Shifted,
    SplitHeads,
    SwappedAxes,
    Transposed,
    UnusedRows,
)
from nextword.presets.weight_table import Stored, per_layer, stored_tensors

deterministic = settings(max_examples=100, deadline=None, derandomize=True)
sizes = st.integers(1, 5)


def numbered(*shape: int) -> np.ndarray:
    """An array no two elements of which are equal."""
    return np.arange(np.prod(shape), dtype="float32").reshape(shape)


@st.composite
def layouts_and_tensors(draw: st.DrawFn) -> tuple[Layout, np.ndarray, tuple[int, ...]]:
    """A layout, a stored tensor that it can take, and the shape of the variable."""
    heads, width, inputs = draw(sizes), draw(sizes), draw(sizes)
    return draw(
        st.sampled_from(
            [
                (Transposed(), numbered(inputs, width), (width, inputs)),
                (Transposed(), numbered(width), (width,)),
                (SplitHeads(heads), numbered(inputs, heads, width), (heads * width, inputs)),
                (SplitHeads(heads), numbered(heads, width), (heads * width,)),
                (SwappedAxes(), numbered(heads, width, inputs), (width, heads, inputs)),
                (JoinedHeads(heads), numbered(heads, width, inputs), (inputs, heads * width)),
                (JoinedHeads(heads), numbered(inputs), (inputs,)),
                (Shifted(0.5), numbered(width), (width,)),
                (
                    GroupedHeads(heads, width),
                    numbered(heads * 4 * width, inputs),
                    (heads * 4 * width, inputs),
                ),
                (GroupedHeads(heads, width), numbered(heads * 3 * width), (heads * 3 * width,)),
                (
                    InterleavedRotary(heads),
                    numbered(heads * 2 * width, inputs),
                    (heads * 2 * width, inputs),
                ),
            ]
        )
    )


@deterministic
@given(layouts_and_tensors())
def test_reading_and_writing_are_inverse(case: tuple[Layout, np.ndarray, tuple[int, ...]]) -> None:
    layout, tensor, shape = case
    value = layout.read(tensor)
    assert value.shape == shape
    if not isinstance(layout, Shifted):
        assert sorted(value.ravel()) == sorted(tensor.ravel())
    np.testing.assert_array_equal(layout.write(value), tensor)
    np.testing.assert_array_equal(layout.read(layout.write(numbered(*shape))), numbered(*shape))


@deterministic
@given(sizes, sizes, sizes)
def test_unused_rows_are_left_out_and_written_as_zeros(count: int, rows: int, width: int) -> None:
    tensor = numbered(count + rows, width)
    value = UnusedRows(count).read(tensor)
    np.testing.assert_array_equal(value, tensor[-rows:])
    written = UnusedRows(count).write(value)
    assert not written[:count].any()
    np.testing.assert_array_equal(UnusedRows(count).read(written), value)
    assert written.dtype == tensor.dtype


@deterministic
@given(st.lists(sizes, min_size=1, max_size=4), sizes, st.booleans(), st.randoms())
def test_a_shared_tensor_is_put_together(
    parts: list[int], inputs: int, transposed: bool, random: object
) -> None:
    before = (Transposed(),) if transposed else ()
    ends = np.cumsum([0, *parts]).tolist()
    table = {
        f"part_{i}": Stored("whole", *before, Rows(ends[i], ends[i + 1])) for i in range(len(parts))
    }
    tensor = numbered(inputs, ends[-1]) if transposed else numbered(ends[-1], inputs)
    values = {path: stored.read(tensor) for path, stored in table.items()}
    shuffled = dict(sorted(table.items(), key=lambda _: random.random()))  # type: ignore[attr-defined]
    [(name, written)] = stored_tensors(shuffled, values.__getitem__)
    assert name == "whole"
    np.testing.assert_array_equal(written, tensor)


@pytest.mark.parametrize(
    "table",
    [
        {"a": Stored("whole", Rows(0, 2)), "b": Stored("whole", Rows(3, 4))},
        {"a": Stored("whole", Rows(1, 2)), "b": Stored("whole", Rows(2, 4))},
        {"a": Stored("whole", Rows(0, 2)), "b": Stored("whole")},
        {"a": Stored("whole", Transposed(), Rows(0, 2)), "b": Stored("whole", Rows(2, 4))},
    ],
)
def test_variables_that_do_not_cover_a_shared_tensor(table: dict[str, Stored]) -> None:
    with pytest.raises(ValueError, match="'whole'"):
        list(stored_tensors(table, lambda _: np.zeros((2, 2))))


@pytest.mark.parametrize("layout", [SplitHeads(3), JoinedHeads(3)])
@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (3, 4, 4, 4), ()])
def test_a_shape_that_a_layout_cannot_take_apart(layout: Layout, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError):
        layout.read(np.zeros(shape))


def test_stacked_tensors_are_written_one_by_one() -> None:
    table = per_layer(range(1), {"experts_{i}": Stored("h.{i}.experts.*.weight", stacked=2)})
    value = np.arange(6.0).reshape(2, 3)
    written = dict(stored_tensors(table, {"experts_0": value}.__getitem__))
    assert {name: tensor.tolist() for name, tensor in written.items()} == {
        "h.0.experts.0.weight": [0, 1, 2],
        "h.0.experts.1.weight": [3, 4, 5],
    }
