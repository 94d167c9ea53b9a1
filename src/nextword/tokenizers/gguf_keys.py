"""The keys by which a GGUF file describes a tokenizer."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nextword.errors import PresetError
from nextword.tokenizers.gguf_vocabulary import END_KEYS, ROLE_KEYS
from nextword.tokenizers.library_models import BytePairModel
from nextword.tokenizers.pre_tokenizers import SPLIT_RULES
from nextword.tokenizers.sentence_piece_proto import ModelType, PieceType, SentencePieceModel
from nextword.tokenizers.tokenizer import Tokenizer


def gguf_tokenizer_keys(
    tokenizer: Tokenizer, *, num_tokens: int, add_start_token: bool
) -> dict[str, Any]:
    """Return the keys that describe a tokenizer, and their values.

    Args:
        tokenizer: the tokenizer.
        num_tokens: the number of tokens that the model has embeddings for, as many as are written.
        add_start_token: whether a prompt begins with the start token.

    Raises:
        PresetError: the format has no words for the tokenizer, or it has more tokens.
    """
    size = tokenizer.vocabulary_size()
    if size > num_tokens:
        raise PresetError(
            f"GGUF needs a model with an embedding for each of the {size} tokens of its tokenizer. "
            f"Received: a model with {num_tokens}."
        )
    keys = tokenizer.gguf_vocabulary()
    tokens, types = list(keys["tokens"]), list(keys["token_type"])
    for id in range(num_tokens):
        if id >= len(tokens):
            tokens.append(_unused(id))
            types.append(int(PieceType.UNUSED))
    keys |= {"tokens": tokens, "token_type": types, "add_bos_token": add_start_token}
    keys["add_eos_token"] = False
    if "scores" in keys:
        keys["scores"] = [*keys["scores"], *[0.0] * (num_tokens - len(keys["scores"]))]
    for role, key in ROLE_KEYS.items():
        if role in tokenizer.role_ids:
            keys[key] = tokenizer.role_ids[role]
    further = (id for id in tokenizer.end_token_ids if id != tokenizer.end_token_id)
    keys |= dict(zip(END_KEYS[1:], further, strict=False))
    named = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    if tokenizer.chat_template is not None:
        named["tokenizer.chat_template"] = tokenizer.chat_template.source
    return named


def byte_pair_keys(model: BytePairModel, vocabulary: Mapping[str, int]) -> dict[str, Any]:
    """Return the keys that describe a byte-level byte-pair vocabulary.

    Args:
        model: the vocabulary and how text is prepared for it.
        vocabulary: its tokens and the added ones.

    Raises:
        PresetError: the format has no name for how text is split.
    """
    size = max(vocabulary.values()) + 1
    tokens = list(map(_unused, range(size)))
    for token, id in vocabulary.items():
        tokens[id] = token
    types = [PieceType.UNUSED] * size
    for id in vocabulary.values():
        added = model.added_tokens.get(id)
        types[id] = PieceType.NORMAL if added is None else _added_type(added.special)
    return {
        "model": "gpt2",
        "pre": _name_of_split(model),
        "tokens": tokens,
        "token_type": list(map(int, types)),
        "merges": [" ".join(pair) for pair in model.merges],
    }


def sentence_piece_keys(
    model: SentencePieceModel, added_tokens: Mapping[int, Any]
) -> dict[str, Any]:
    """Return the keys that describe a SentencePiece vocabulary.

    Args:
        model: of SentencePiece.
        added_tokens: id -> token that is found in the text before anything else.

    Raises:
        PresetError: the model is no byte-pair model, or prepares text as the format cannot tell.
    """
    if model.model_type is not ModelType.BPE:
        raise PresetError(
            "Only SentencePiece models of byte pairs can be written as GGUF. Received: a model of "
            f"the type {model.model_type.name}."
        )
    tokens = [piece.text for piece in model.pieces]
    types = [piece.type for piece in model.pieces]
    for id, token in sorted(added_tokens.items()):
        for gap in range(len(tokens), id + 1):
            tokens.append(_unused(gap))
            types.append(PieceType.UNUSED)
        tokens[id] = token.content
        if types[id] is not PieceType.UNKNOWN:
            types[id] = _added_type(token.special)
    scores = [piece.score for piece in model.pieces]
    return {
        "model": "llama",
        "pre": "default",
        "tokens": tokens,
        "scores": [*scores, *[0.0] * (len(tokens) - len(scores))],
        "token_type": list(map(int, types)),
        "add_space_prefix": model.add_dummy_prefix,
        "remove_extra_whitespaces": model.remove_extra_whitespaces,
    }


def _unused(id: int) -> str:
    """Return what is written for an id that no token has."""
    return f"[PAD{id}]"


def _added_type(is_special: bool) -> PieceType:
    return PieceType.CONTROL if is_special else PieceType.USER_DEFINED


def _name_of_split(model: BytePairModel) -> str:
    """Return what GGUF calls the way in which text is split into words."""
    ignores_merges = bool(model.options.get("ignore_merges"))
    meant = _steps(model.normalizer), _steps(model.pre_tokenizer), ignores_merges
    for name, rules in SPLIT_RULES.items():
        parts = _steps(rules.normalizer()), _steps(rules.pre_tokenizer()), rules.ignore_merges
        if parts == meant:
            return name
    raise PresetError(
        "GGUF has no name for the way in which the tokenizer splits text into words. Received: "
        f"{str(meant[1])[:200]}."
    )


def _steps(part: Any) -> Sequence[Any]:
    """Return the steps of a normalizer or a pre-tokenizer, without what changes no token."""
    if part is None:
        return []
    return _flat(json.loads(part.__getstate__()))


def _flat(state: dict[str, Any]) -> list[Any]:
    for key in ("normalizers", "pretokenizers"):
        if state.get("type") == "Sequence" and key in state:
            return [step for each in state[key] for step in _flat(each)]
    return [{key: value for key, value in state.items() if key != "trim_offsets"}]
