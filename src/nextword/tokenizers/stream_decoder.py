"""Token ids become text piece by piece, without ever showing half a character."""

import codecs
from collections.abc import Callable, Iterable


class StreamDecoder:
    r"""Turns token ids into text as they arrive.

    A token is a run of bytes and may end in the middle of a UTF-8 character; such bytes wait for
    the rest of their character. Bytes that can no longer become a character turn into U+FFFD.
    However the ids are divided into calls of `push`, the pieces and the final `flush` join to the
    same text, which is what `Tokenizer.detokenize` returns for all the ids at once.

    Args:
        token_bytes: function from a token id to the bytes that the token stands for.
        leading_spaces: how many spaces at the start of the text are not part of it. Tokenizers
            that put a space in front of every text take it away again here.

    Example:
    >>> decoder = StreamDecoder({0: b"caf", 1: b"\xc3", 2: b"\xa9"}.__getitem__)
    >>> decoder.push([0]), decoder.push([1]), decoder.push([2]), decoder.flush()
    ('caf', '', 'é', '')
    """

    def __init__(self, token_bytes: Callable[[int], bytes], leading_spaces: int = 0) -> None:
        self._token_bytes = token_bytes
        self._leading_spaces = leading_spaces
        self._strip = leading_spaces
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, ids: int | Iterable[int]) -> str:
        """Take the next ids and return the text that they complete.

        Args:
            ids: one token id or several.

        Returns:
            The new text, often empty.

        Raises:
            ValueError: an id is outside the vocabulary.
        """
        ids = ids if isinstance(ids, Iterable) else (ids,)
        return self._text(b"".join(map(self._token_bytes, ids)), final=False)

    def flush(self) -> str:
        """Return what is still waiting, and make the decoder ready for another text."""
        text = self._text(b"", final=True)
        self._utf8.reset()
        self._strip = self._leading_spaces
        return text

    def _text(self, data: bytes, *, final: bool) -> str:
        text = self._utf8.decode(data, final)
        if self._strip and text:
            kept = text.lstrip(" ")
            taken = min(self._strip, len(text) - len(kept))
            text = text[taken:]
            # The first character that is no space ends the leading spaces.
            self._strip = 0 if text else self._strip - taken
        return text
