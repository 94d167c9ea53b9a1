"""`TextClassifierPreprocessor` against KerasHub's, and `pack_segments` against a plain count."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nextword
from nextword.preprocessing import pack_segments
from tiny_bert import LENGTH, TEXTS, VOCABULARY

LONG = "what a good film, what a bad film! the quick brown fox jumped."
FIRST, SECOND = [*TEXTS, LONG, LONG, "what"], ["the fox", "jumped.", "a", LONG, "fox", LONG, LONG]


def ours(**arguments: Any) -> Any:
    tokenizer = nextword.models.BertTokenizer(VOCABULARY, lowercase=True)
    return nextword.models.BertTextClassifierPreprocessor(tokenizer, **arguments)


def assert_same(found: dict[str, np.ndarray], expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, np.asarray(expected[name]), name)
        assert array.dtype == ("bool" if name == "padding_mask" else "int32")


@pytest.mark.parametrize("truncate", ["round_robin", "waterfall"])
@pytest.mark.parametrize("length", [LENGTH, 40])
@pytest.mark.parametrize(
    "x",
    ["a film", TEXTS, ("a film", "the fox"), (FIRST, SECOND), (FIRST, SECOND, FIRST)],
    ids=["text", "texts", "pair", "pairs", "triples"],
)
def test_the_same_as_keras_hub(truncate: str, length: int, x: Any) -> None:
    keras_hub = pytest.importorskip("keras_hub")
    theirs = keras_hub.models.BertTextClassifierPreprocessor(
        keras_hub.models.BertTokenizer(VOCABULARY, lowercase=True), length, truncate
    )
    # By its name: KerasHub takes a tuple alone for inputs and labels.
    assert_same(ours(sequence_length=length, truncate=truncate)(x), theirs(x=x))


def test_labels_and_weights_are_passed_on() -> None:
    preprocessor = ours(sequence_length=LENGTH)
    y, weights = object(), object()
    x = preprocessor(TEXTS)
    for found in (preprocessor(TEXTS, y), preprocessor.call(TEXTS, y, weights)):
        assert_same(found[0], x)
        assert list(found[1:]) == [y, weights][: len(found) - 1]


@pytest.mark.parametrize(
    "batch",
    [
        np.array(TEXTS),
        np.array([text.encode() for text in TEXTS], "O"),
        [t.encode() for t in TEXTS],
    ],
    ids=["array", "bytes", "list of bytes"],
)
def test_other_containers(batch: Any) -> None:
    preprocessor = ours(sequence_length=LENGTH)
    assert_same(preprocessor(batch), preprocessor(TEXTS))
    assert_same(preprocessor((batch, batch)), preprocessor((TEXTS, TEXTS)))


def test_no_texts() -> None:
    assert ours(sequence_length=LENGTH)([])["token_ids"].shape == (0, LENGTH)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (3, TypeError, "must be a string.*Received.*3"),
        ({"token_ids": [1]}, TypeError, "must be a string"),
        ([("a film", "the fox")], TypeError, "must be a string.*'a film', 'the fox'"),
        ((["a film"], ["the", "fox"]), ValueError, r"as many texts. Received: lengths \[1, 2\]"),
        (("a film", ["the fox"]), ValueError, "must all be texts, or all be lists"),
        ((), ValueError, "at least one"),
    ],
)
def test_what_is_no_sample(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ours()(x)


def test_arguments() -> None:
    assert (ours().sequence_length, ours().truncate) == (512, "round_robin")
    with pytest.raises(ValueError, match="`truncate` must be 'round_robin' or 'waterfall'"):
        ours(truncate="longest_first")
    with pytest.raises(ValueError, match="`sequence_length` must be a positive integer"):
        ours(sequence_length=0)
    with pytest.raises(ValueError, match="room for the 3 tokens around.*sequence_length=2"):
        ours(sequence_length=2)(("a", "b"))
    tokenizer = nextword.tokenizers.WordPieceTokenizer(["[UNK]", "a"])
    with pytest.raises(ValueError, match="must have a start and an end token"):
        nextword.models.BertTextClassifierPreprocessor(tokenizer)


def test_configuration() -> None:
    preprocessor = ours(sequence_length=9, truncate="waterfall")
    again = type(preprocessor).from_config(preprocessor.get_config())
    assert (again.sequence_length, again.truncate) == (9, "waterfall")
    assert type(again.tokenizer) is nextword.models.BertTokenizer
    assert_same(again((FIRST, SECOND)), preprocessor((FIRST, SECOND)))


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.integers(0, 30),
    st.sampled_from(["round_robin", "waterfall"]),
)
def test_parts_share_the_room(lengths: list[int], room: int, truncate: str) -> None:
    segments = [[10 * (part + 1) + i for i in range(n)] for part, n in enumerate(lengths)]
    order = [(i, part) for part, n in enumerate(lengths) for i in range(n)]
    if truncate == "waterfall":
        order.sort(key=lambda token: token[1])
    else:
        order.sort()
    kept = order[:room]
    packed = pack_segments(
        segments,
        room + 1 + len(lengths),
        start_token_id=1,
        end_token_id=2,
        truncate=truncate,
    )
    expected = [
        [segment[i] for i in range(len(segment)) if (i, part) in kept]
        for part, segment in enumerate(segments)
    ]
    assert packed.token_ids == [1, *(id for part in expected for id in (*part, 2))]
    assert packed.segment_ids == [0, *(n for n, part in enumerate(expected) for _ in (*part, 2))]
