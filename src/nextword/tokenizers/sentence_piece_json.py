"""From a SentencePiece model to the tokenizer.json that does the same."""

import json
from collections.abc import Mapping

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
)

from nextword.errors import PresetError
from nextword.tokenizers.library_engine import post_processor
from nextword.tokenizers.sentence_piece_proto import ModelType, PieceType, SentencePieceModel
from nextword.tokenizers.spelling import ByteFallbackSpelling

_SPACE = "\u2581"
_ALL_SPACES = 2**16
# More than the pieces of any word are worth.
_PENALTY = 1000.0
_IN_TEXT = (PieceType.NORMAL, PieceType.USER_DEFINED)


def sentence_piece_json(
    model: SentencePieceModel,
    added_tokens: Mapping[int, AddedToken],
    *,
    prefix_everywhere: bool,
    start_token: str | None,
    end_token: str | None,
) -> str:
    """Return the text of the tokenizer.json that does what a SentencePiece model does.

    Args:
        model: the model, of byte pairs or unigrams.
        added_tokens: id -> token that is found in a text before anything else.
        prefix_everywhere: whether the text between added tokens has a space in front, too.
        start_token: what is put in front of a text, if anything.
        end_token: what is put behind a text, and each of a pair, if anything.

    Raises:
        PresetError: the model is of another kind.
    """
    library = Tokenizer(_core(model))
    normalizer, pre_tokenizer = _preparation(model, prefix_everywhere=prefix_everywhere)
    if normalizer:
        library.normalizer = normalizers.Sequence(normalizer)
    if pre_tokenizer:
        library.pre_tokenizer = pre_tokenizers.Sequence(pre_tokenizer)
    data = json.loads(library.to_str())
    spaces = _ALL_SPACES if model.remove_extra_whitespaces else int(model.add_dummy_prefix)
    spelling = ByteFallbackSpelling([(_SPACE, " ")], byte_fallback=True, leading_spaces=spaces)
    data["decoder"] = spelling.decoder()
    added_tokens = _user_defined(model) | dict(added_tokens)
    ids = {piece.text: i for i, piece in enumerate(model.pieces)}
    ids |= {token.content: id for id, token in added_tokens.items()}
    data["post_processor"] = post_processor(start_token, end_token, ids)
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    # Not by the library's own method, which gives ids of its own to tokens behind the model's.
    data["added_tokens"] = [
        {"id": id, "content": token.content, **{flag: getattr(token, flag) for flag in flags}}
        for id, token in sorted(added_tokens.items())
    ]
    return json.dumps(data, ensure_ascii=False)


def _user_defined(model: SentencePieceModel) -> dict[int, AddedToken]:
    """Return the pieces that are found in a text before it is split."""
    return {
        id: AddedToken(piece.text, normalized=False)
        for id, piece in enumerate(model.pieces)
        if piece.type is PieceType.USER_DEFINED
    }


def _core(model: SentencePieceModel) -> models.Model:
    unknown = next(i for i, piece in enumerate(model.pieces) if piece.type is PieceType.UNKNOWN)
    if model.model_type is ModelType.UNIGRAM:
        # The library finds any of them in a text, which those that are no text must lose.
        worst = min(piece.score for piece in model.pieces) - _PENALTY
        pieces = [(p.text, p.score if p.type in _IN_TEXT else worst) for p in model.pieces]
        return models.Unigram(pieces, unk_id=unknown, byte_fallback=model.byte_fallback)
    if model.model_type is not ModelType.BPE:
        raise PresetError(
            f"transformers has no tokenizer for a SentencePiece model of the type "
            f"{model.model_type.name!r}: it must be 'BPE' or 'UNIGRAM'."
        )
    return models.BPE(
        {piece.text: i for i, piece in enumerate(model.pieces)},
        _merges(model),
        unk_token=model.pieces[unknown].text,
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )


def _merges(model: SentencePieceModel) -> list[tuple[str, str]]:
    """Return the pairs in the order in which SentencePiece joins them: by the piece they make."""
    scores = {p.text: p.score for p in model.pieces if p.type in _IN_TEXT}
    ranks = {piece.text: i for i, piece in enumerate(model.pieces)}
    made = sorted(scores, key=lambda text: (-scores[text], ranks[text]))
    return [
        (text[:i], text[i:])
        for text in made
        for i in range(1, len(text))
        if text[:i] in scores and text[i:] in scores
    ]


def _preparation(
    model: SentencePieceModel, *, prefix_everywhere: bool
) -> tuple[list[normalizers.Normalizer], list[pre_tokenizers.PreTokenizer]]:
    """Return what turns a text into that which is split into pieces.

    Where a space goes in front of the beginning of a text alone and repeated ones are dropped, one
    at the beginning of what follows an added token stays: nothing in the library tells that place
    from the beginning.
    """
    steps: list[normalizers.Normalizer] = []
    has_first = model.add_dummy_prefix and not prefix_everywhere
    if model.chars_map:
        steps.append(normalizers.Precompiled(model.chars_map))
    if model.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(" +$" if has_first else "^ +| +$"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
        if has_first:
            first = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="first", split=False)
            return steps, [first]
    if model.add_dummy_prefix and prefix_everywhere:
        steps.append(normalizers.Prepend(_SPACE))
    steps.append(normalizers.Replace(" ", _SPACE))
    if not has_first:
        return steps, []
    # The first puts a space in front of the beginning, and of one that begins with a space, too,
    # since there are no more spaces to find; the second turns it into what spaces are by now.
    return steps, [
        pre_tokenizers.Metaspace(" ", prepend_scheme="first", split=False),
        pre_tokenizers.Metaspace(_SPACE, prepend_scheme="never", split=False),
    ]
