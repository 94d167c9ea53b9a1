"""`StreamDecoder` on bytes that are cut anywhere, and on bytes that are no text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextword.tokenizers import StreamDecoder
from trained_tokenizers import deterministic

chunks = st.lists(st.binary(max_size=6), max_size=12)


def stream(decoder: StreamDecoder, ids: list[int], sizes: list[int]) -> list[str]:
    """Push ids in groups of the given sizes, and return all pieces."""
    pieces, position = [], 0
    for size in [*sizes, len(ids)]:
        pieces.append(decoder.push(ids[position : position + size]))
        position += size
    return [*pieces, decoder.flush()]


@deterministic
@given(chunks, st.lists(st.integers(0, 4), max_size=8))
def test_pieces_join_to_the_decoded_bytes(table, sizes):
    decoder = StreamDecoder(table.__getitem__)
    ids = list(range(len(table)))
    expected = b"".join(table).decode("utf-8", "replace")
    assert "".join(stream(decoder, ids, sizes)) == expected
    # And once more: `flush` leaves nothing behind.
    assert "".join(stream(decoder, ids, sizes)) == expected


@deterministic
@given(st.text(), st.lists(st.integers(1, 5), max_size=20))
def test_text_that_is_cut_anywhere_never_shows_a_replacement(text, sizes):
    data = text.encode()
    table = [data[i : i + 1] for i in range(len(data))]
    pieces = stream(StreamDecoder(table.__getitem__), list(range(len(table))), sizes)
    assert "".join(pieces) == text
    assert sum(piece.count("\ufffd") for piece in pieces) == text.count("\ufffd")


@deterministic
@given(chunks, st.integers(0, 3), st.lists(st.integers(0, 4), max_size=8))
def test_leading_spaces_are_taken_from_the_front_only(table, count, sizes):
    table = [b" " * len(chunk) if len(chunk) % 2 else chunk for chunk in table]
    whole = b"".join(table).decode("utf-8", "replace")
    spaces = len(whole) - len(whole.lstrip(" "))
    decoder = StreamDecoder(table.__getitem__, leading_spaces=count)
    ids = list(range(len(table)))
    assert "".join(stream(decoder, ids, sizes)) == whole[min(count, spaces) :]


def test_a_character_appears_with_its_last_byte():
    decoder = StreamDecoder([bytes([byte]) for byte in range(256)].__getitem__)
    assert [decoder.push(byte) for byte in "é👩".encode()] == ["", "é", "", "", "", "👩"]
    assert [decoder.push(0xE2), decoder.push(0x41)] == ["", "\ufffdA"]
    assert [decoder.push(0xE2), decoder.flush()] == ["", "\ufffd"]


def test_an_id_that_is_refused_leaves_the_stream_as_it_was():
    decoder = StreamDecoder({0: b"\xc3", 1: b"\xa9"}.__getitem__)
    decoder.push(0)
    with pytest.raises(KeyError):
        decoder.push([1, 2])
    assert decoder.push(1) == "é"
