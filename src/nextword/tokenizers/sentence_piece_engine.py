"""Tokenization by the `sentencepiece` library, and the added tokens that it knows nothing of."""

from collections.abc import Mapping
from typing import Any

from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken

from nextword.errors import PresetError
from nextword.tokenizers.added_tokens import AddedTokenScanner
from nextword.tokenizers.library_engine import library_errors
from nextword.tokenizers.sentence_piece_proto import PieceType, SentencePieceModel, byte_of

_SPACE = "\u2581"
_ALL = 1 << 30


class SentencePieceEngine:
    """Encodes text and spells tokens.

    Args:
        model: of SentencePiece.
        added_tokens: id -> token that is found in the text before anything else. Pieces that are
            special are among them.
        name: whose tokenizer it is, for messages.

    Raises:
        PresetError: the added tokens do not fit the model.
    """

    def __init__(
        self, model: SentencePieceModel, added_tokens: Mapping[int, AddedToken], name: str
    ) -> None:
        self.model = model
        self.added_tokens = dict(sorted(added_tokens.items()))
        self._name = name
        self.vocabulary = {piece.text: id for id, piece in enumerate(model.pieces)}
        self._tokens = dict(enumerate(piece.text for piece in model.pieces))
        for id, token in self.added_tokens.items():
            known = self.vocabulary.setdefault(token.content, id)
            if (
                not token.content
                or known != id
                or self._tokens.setdefault(id, token.content) != (token.content)
            ):
                raise PresetError(
                    f"In the tokenizer of {name!r}, the added token {token.content[:80]!r} with "
                    f"id {id} is empty, or the vocabulary has another one."
                )
        self.size = max(self._tokens) + 1
        self.special_token_ids = frozenset(
            id for id, token in self.added_tokens.items() if token.special
        )
        with library_errors(f"The tokenizer of {name!r} cannot be built"):
            self._scanner = AddedTokenScanner(self.added_tokens)
            # The library finds such pieces in every text, but special ones must not be found.
            visible = (PieceType.NORMAL, PieceType.USER_DEFINED)
            invisible = {
                id
                for id in self.special_token_ids
                if id < len(model.pieces) and model.pieces[id].type in visible
            }
            self._first, self._further = (
                SentencePieceProcessor(
                    model_proto=model.data_with(invisible=invisible, add_dummy_prefix=prefix)
                )
                for prefix in (model.add_dummy_prefix, False)
            )

    @property
    def leading_spaces(self) -> int:
        """How many spaces in front of every decoded text are an artefact."""
        if self.model.remove_extra_whitespaces:
            return _ALL
        return 1 if self.model.add_dummy_prefix else 0

    def encode(
        self, text: str, *, parse_special: bool, inside: bool, prefix_everywhere: bool
    ) -> list[int]:
        """Return the ids of a text.

        Args:
            text: any text without surrogates.
            parse_special: whether text that looks like a special token becomes its id.
            inside: whether something stands before the text, which then has no space in front.
            prefix_everywhere: whether the text between added tokens has a space in front, too.
        """
        with library_errors(f"The tokenizer of {self._name!r} failed"):
            ids: list[int] = []
            begin = 0
            spans = self._scanner.spans(text, parse_special=parse_special)
            for id, start, end in [*spans, (-1, len(text), len(text))]:
                if begin < start:
                    at_start = begin == 0 and not inside
                    core = self._first if at_start or prefix_everywhere else self._further
                    ids += core.encode(text[begin:start])
                if id >= 0:
                    ids.append(id)
                begin = end
        return ids

    def special_spans(self, text: str) -> list[tuple[int, int, int]]:
        """Return the special tokens in a text: id, beginning and end, in characters."""
        with library_errors(f"The tokenizer of {self._name!r} failed"):
            return self._scanner.special_spans(text)

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token, `None` if there is none."""
        return self.vocabulary.get(token)

    def id_to_token(self, id: int) -> str | None:
        """Return the token of an id, `None` for an id that is unused."""
        return self._tokens.get(id)

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes that an id below `size` stands for."""
        token: Any = self._tokens.get(id, "")
        if id in self.added_tokens or id >= len(self.model.pieces):
            return token.encode()
        if self.model.pieces[id].type is PieceType.BYTE:
            return bytes([byte_of(token)])
        return token.replace(_SPACE, " ").encode()
