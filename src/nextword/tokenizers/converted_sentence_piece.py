"""Byte-pair models in a tokenizer.json that were converted from SentencePiece, and the way back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from nextword.tokenizers.assets import SENTENCE_PIECE_PROTO
from nextword.tokenizers.gguf_keys import sentence_piece_keys
from nextword.tokenizers.library_engine import LibraryModel
from nextword.tokenizers.library_models import BytePairModel
from nextword.tokenizers.library_tokenizer import LibraryTokenizer
from nextword.tokenizers.sentence_piece_proto import (
    ModelType,
    Piece,
    PieceType,
    SentencePieceModel,
    byte_of,
)
from nextword.tokenizers.spelling import ByteFallbackSpelling, Spelling

_SPACE = "\u2581"
_CONTROL_ROLES = ("bos_token", "eos_token", "pad_token")


class ConvertedSentencePieceTokenizer(LibraryTokenizer):
    """A tokenizer.json whose tokens are characters and bytes, as Llama 2, Mistral and Gemma have.

    Made with `from_tokenizer_json` or `from_assets`. It runs as the file says. When it is saved,
    the SentencePiece model that it was converted from is written as well, for KerasHub, if the
    file shows it.
    """

    model_kind: ClassVar[str] = "BPE"
    spellings: ClassVar[tuple[type[Spelling], ...]] = (ByteFallbackSpelling,)
    asset_files: ClassVar[tuple[str, ...]] = (SENTENCE_PIECE_PROTO,)
    config_keys: ClassVar[tuple[str, ...]] = ("sequence_length", "add_bos", "add_eos")
    _settings: ClassVar[frozenset[str]] = frozenset(config_keys)

    def __init__(self) -> None:
        raise TypeError(
            "A ConvertedSentencePieceTokenizer is made with from_tokenizer_json or from_assets."
        )

    def _set_up(self, model: LibraryModel, roles: Mapping[str, str], **settings: Any) -> None:
        super()._set_up(model, roles, **settings)
        self._model = model

    def _save_vocabulary(self, directory: Path) -> None:
        super()._save_vocabulary(directory)
        model = self._original_model()
        if model is not None:
            (directory / SENTENCE_PIECE_PROTO).write_bytes(model.serialize())

    def gguf_vocabulary(self) -> dict[str, Any]:
        model = self._original_model()
        if model is None:
            return super().gguf_vocabulary()
        return sentence_piece_keys(model, self._model.added_tokens)

    def _original_model(self) -> SentencePieceModel | None:
        control = {self._roles[role] for role in _CONTROL_ROLES if role in self._roles}
        return original_model(self._model, self._engine.vocabulary, control)


def original_model(
    model: LibraryModel, vocabulary: Mapping[str, int], control: set[str]
) -> SentencePieceModel | None:
    """Return the SentencePiece model from which a byte-pair model was converted.

    SentencePiece joins the pair that makes the piece with the highest score, wherever the piece
    can be made of two others; the merges of a converted model list these pairs in that order. So
    the order of the merges gives the scores.

    Args:
        model: a byte-pair model.
        vocabulary: its vocabulary, with the added tokens.
        control: tokens that are never found in a text.

    Returns:
        The model, or `None` where no SentencePiece model does the same.
    """
    prefix = _dummy_prefix(model)
    if prefix is None or not isinstance(model, BytePairModel) or not _is_spelled(model):
        return None
    scores = _scores(model, vocabulary)
    unknown = model.options.get("unk_token")
    if scores is None or unknown is None or sorted(vocabulary.values()) != [*range(len(scores))]:
        return None
    pieces = []
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        if token == unknown:
            type = PieceType.UNKNOWN
        elif token in control:
            type = PieceType.CONTROL
        elif vocabulary[token] in model.added_tokens:
            type = PieceType.USER_DEFINED
        else:
            type = PieceType.BYTE if _is_byte(token) else PieceType.NORMAL
        pieces.append(Piece(token, scores[token], type))
    if sum(piece.type is PieceType.BYTE for piece in pieces) != 256:
        return None
    return SentencePieceModel(
        tuple(pieces),
        ModelType.BPE,
        byte_fallback=True,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=False,
    )


def _is_spelled(model: BytePairModel) -> bool:
    spelling = model.spelling
    plain = not {"ignore_merges", "continuing_subword_prefix", "end_of_word_suffix"} & (
        model.options.keys()
    )
    return (
        plain
        and model.options.get("byte_fallback") is True
        and isinstance(spelling, ByteFallbackSpelling)
        and spelling.replacements == [(_SPACE, " ")]
    )


def _dummy_prefix(model: LibraryModel) -> bool | None:
    """Return whether a space is put in front of a text, `None` for preparations of other kinds."""
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    normalizer, pre_tokenizer = (
        None if part is None else json.loads(part.__getstate__())
        for part in (model.normalizer, model.pre_tokenizer)
    )
    if pre_tokenizer is None:
        whole = [{"type": "Prepend", "prepend": _SPACE}, replace]
        if normalizer == {"type": "Sequence", "normalizers": whole}:
            return True
        return False if normalizer == replace else None
    match pre_tokenizer:
        case {"type": "Split", "pattern": {"String": " "}} if normalizer == replace:
            return False  # no space is left to split at
        case {"type": "Metaspace", "replacement": "\u2581", "split": False, "prepend_scheme": when}:
            return when != "never" if normalizer is None else None
    return None


def _scores(model: BytePairModel, vocabulary: Mapping[str, int]) -> dict[str, float] | None:
    """Return the score of every token, `None` if the merges are not those of SentencePiece."""
    pairs: dict[str, set[str]] = {}
    last = ""
    for left, right in model.merges:
        made = left + right
        if made != last and made in pairs:
            return None  # made at two degrees of urgency
        pairs.setdefault(made, set()).add(left)
        last = made
    ranks = {token: rank for rank, token in enumerate(pairs)}
    ordinary = {t for t, id in vocabulary.items() if id not in model.added_tokens}
    for token, lefts in pairs.items():
        splits = ((token[:i], token[i:]) for i in range(1, len(token)))
        if lefts != {left for left, right in splits if left in ordinary and right in ordinary}:
            return None
    return {token: -float(ranks.get(token, len(ranks) + id)) for token, id in vocabulary.items()}


def _is_byte(token: str) -> bool:
    try:
        byte_of(token)
    except ValueError:
        return False
    return True
