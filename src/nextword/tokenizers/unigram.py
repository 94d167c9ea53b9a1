"""`UnigramTokenizer`: a tokenizer.json that was converted from a SentencePiece unigram model."""

from typing import ClassVar

from nextword.tokenizers.library_tokenizer import LibraryTokenizer


class UnigramTokenizer(LibraryTokenizer):
    """A tokenizer that finds the most probable tokens for a text (Kudo, 2018).

    Made with `from_tokenizer_json` or `from_assets`; a SentencePiece model itself is for
    `SentencePieceTokenizer`.

    Raises:
        TypeError: the constructor is called.
    """

    model_kind: ClassVar[str] = "Unigram"

    def __init__(self) -> None:
        raise TypeError("A UnigramTokenizer is made with from_tokenizer_json or from_assets.")
