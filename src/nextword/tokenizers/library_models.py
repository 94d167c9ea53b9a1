"""The kinds of models that the `tokenizers` library has, each with the checks it lacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers.models import BPE, Model, Unigram, WordPiece

from nextword.errors import PresetError
from nextword.tokenizers.library_engine import LibraryModel


@dataclass(frozen=True, kw_only=True)
class BytePairModel(LibraryModel):
    """A model that joins pairs of tokens.

    Attributes:
        merges: pairs of tokens that are joined, the most urgent first.
        options: further arguments of the library's `BPE`, for example `ignore_merges`.
    """

    merges: Sequence[tuple[str, str]]
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unknown_token(self) -> str | None:
        return self.options.get("unk_token")

    def check(self, vocabulary: Mapping[str, int], name: str) -> None:
        # The library checks this too, but aborts for some of it, which leaves traces on the
        # console.
        known = self.vocabulary.keys()
        shared = len(self.options.get("continuing_subword_prefix", ""))
        for left, right in self.merges:
            if left not in known or right not in known or left + right[shared:] not in known:
                raise PresetError(
                    f"The merges of {name!r} must be of tokens in its vocabulary, to one in it. "
                    f"Received: {left[:80]!r} and {right[:80]!r}."
                )
        _check_unknown_token(self.unknown_token, vocabulary, name)

    def build(self, vocabulary: Mapping[str, int]) -> Model:
        return BPE(vocab=dict(vocabulary), merges=list(self.merges), **self.options)


@dataclass(frozen=True, kw_only=True)
class UnigramModel(LibraryModel):
    """A model that finds the most probable tokens for a text.

    Attributes:
        pieces: the vocabulary in the order of its ids, each token with its log-probability.
        unknown_id: id of the token for what the vocabulary lacks.
        byte_fallback: whether characters without a token become bytes.
    """

    pieces: Sequence[tuple[str, float]]
    unknown_id: int | None
    byte_fallback: bool = False

    @property
    def unknown_token(self) -> str | None:
        return None if self.unknown_id is None else self.pieces[self.unknown_id][0]

    def check(self, vocabulary: Mapping[str, int], name: str) -> None:
        if len(self.vocabulary) != len(self.pieces):
            raise PresetError(f"The vocabulary of {name!r} has the same token twice.")

    def build(self, vocabulary: Mapping[str, int]) -> Model:
        # Added tokens that the vocabulary lacks come after it in any case.
        return Unigram(list(self.pieces), self.unknown_id, self.byte_fallback)


@dataclass(frozen=True, kw_only=True)
class WordPieceModel(LibraryModel):
    """A model that takes the longest token that a word begins with, and goes on behind it.

    Attributes:
        unknown: the token for words that cannot be made of tokens.
        prefix: what marks tokens that go on with a word.
        max_word: number of characters above which a word is unknown.
    """

    unknown: str = "[UNK]"
    prefix: str = "##"
    max_word: int = 100

    @property
    def unknown_token(self) -> str | None:
        return self.unknown

    def check(self, vocabulary: Mapping[str, int], name: str) -> None:
        _check_unknown_token(self.unknown, vocabulary, name)

    def build(self, vocabulary: Mapping[str, int]) -> Model:
        return WordPiece(
            dict(vocabulary),
            unk_token=self.unknown,
            continuing_subword_prefix=self.prefix,
            max_input_chars_per_word=self.max_word,
        )


def _check_unknown_token(token: str | None, vocabulary: Mapping[str, int], name: str) -> None:
    """Check that the token for what the vocabulary lacks is in the vocabulary.

    Raises:
        PresetError: it is not.
    """
    if token is not None and token not in vocabulary:
        raise PresetError(
            f"The unknown token of {name!r} must be in its vocabulary. Received: {token[:80]!r}."
        )
