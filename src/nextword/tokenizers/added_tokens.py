"""Tokens that are found in a text before anything else."""

from collections.abc import Mapping

import tokenizers
from tokenizers import AddedToken
from tokenizers.models import BPE


class AddedTokenScanner:
    """Finds added tokens in a text, as the `tokenizers` library does.

    Args:
        added_tokens: id -> token.
    """

    def __init__(self, added_tokens: Mapping[int, AddedToken]) -> None:
        self._special = frozenset(id for id, token in added_tokens.items() if token.special)
        self._others = frozenset(added_tokens.keys() - self._special)
        self._all = self._front(added_tokens)
        # The library decides per object whether special tokens are found.
        self._plain = self._front(added_tokens)
        self._plain.encode_special_tokens = True

    @staticmethod
    def _front(added_tokens: Mapping[int, AddedToken]) -> tokenizers.Tokenizer:
        vocabulary = {token.content: id for id, token in added_tokens.items()}
        front = tokenizers.Tokenizer(BPE(vocab=vocabulary, merges=[]))
        front.add_tokens([token for _, token in sorted(added_tokens.items())])
        return front

    def special_spans(self, text: str) -> list[tuple[int, int, int]]:
        """Return id, beginning and end of the special tokens, as if there were no others.

        A span includes white space that the token swallows.
        """
        return self._spans(self._all, text, self._special)

    def spans(self, text: str, *, parse_special: bool) -> list[tuple[int, int, int]]:
        """Return id, beginning and end of the added tokens in a text.

        Args:
            text: any text.
            parse_special: whether special ones count.
        """
        if parse_special:
            return self._spans(self._all, text, self._special | self._others)
        return self._spans(self._plain, text, self._others) if self._others else []

    @staticmethod
    def _spans(
        front: tokenizers.Tokenizer, text: str, wanted: frozenset[int]
    ) -> list[tuple[int, int, int]]:
        encoding = front.encode(text, add_special_tokens=False)
        return [
            (id, start, end)
            for id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if id in wanted
        ]
