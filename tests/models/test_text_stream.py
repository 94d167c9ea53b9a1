"""Stop strings in streamed text, for any text, any stops, any cut into tokens."""

from hypothesis import given
from hypothesis import strategies as st

from nextword.models.text_stream import CompletionDecoder


class CharacterTokenizer:
    """A stand-in whose token ids are code points, and whose decoder delays each by one token."""

    def vocabulary_size(self) -> int:
        return 0x10FFFF

    def stream_decoder(self) -> "CharacterTokenizer":
        self.pending = ""
        return self

    def push(self, token_ids: list[int]) -> str:
        text = self.pending + "".join(map(chr, token_ids))
        self.pending = text[-1:]
        return text[:-1]

    def flush(self) -> str:
        text, self.pending = self.pending, ""
        return text


TEXT = st.text(alphabet="abé", max_size=30)
STOPS = st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=3)


@given(text=TEXT, stops=STOPS)
def test_text_ends_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    decoder = CompletionDecoder(CharacterTokenizer(), [], stops)
    pieces = []
    for character in text:
        pieces.append(decoder.push(ord(character)))
        if decoder.is_stopped:
            break
    else:
        pieces.append(decoder.flush())
    # The stop that is complete first ends the text; of several complete at once, the earliest.
    ends = sorted((text.index(s) + len(s), text.index(s)) for s in stops if s in text)
    expected = text
    if ends:
        first_complete = ends[0][0]
        expected = text[: min(start for end, start in ends if end == first_complete)]
    assert "".join(pieces) == expected
    assert decoder.is_stopped == bool(ends)


@given(text=TEXT)
def test_nothing_is_held_back_without_stop_strings(text: str) -> None:
    decoder = CompletionDecoder(CharacterTokenizer(), [], [])
    for length, character in enumerate(text):
        piece = decoder.push(ord(character))
        assert piece == text[max(0, length - 1) : length]  # only what the tokenizer itself delays
    assert decoder.flush() == text[-1:]


def test_tokens_beyond_the_vocabulary_stand_for_no_text() -> None:
    decoder = CompletionDecoder(CharacterTokenizer(), [])
    assert decoder.push(ord("a")) + decoder.push(2**21) + decoder.flush() == "a"
