"""The tokenizer inside a GGUF file."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tokenizers import AddedToken

from nextword.errors import PresetError
from nextword.tokenizers.library_models import BytePairModel
from nextword.tokenizers.pre_tokenizers import split_rules
from nextword.tokenizers.sentence_piece_proto import (
    ModelType,
    Piece,
    PieceType,
    SentencePieceModel,
)
from nextword.tokenizers.spelling import ByteLevelSpelling
from nextword.tokenizers.tokenizer_config import TokenizerConfig

_WORD_BEGINS = "\u2581"

_MAX_SCORE = 1e38  # of a 32-bit number

# Values of `tokenizer.ggml.token_type`.
_UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED = 2, 3, 4, 5

ROLE_KEYS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # spelled so in the format
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}
END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


class _GGUFTokenizer:
    """The keys of a GGUF file that describe its tokenizer, checked as they are read.

    Args:
        data: the keys that begin with `tokenizer.`, and their values.
        name: whose tokenizer it is, for messages.

    Attributes:
        kind: what `tokenizer.ggml.model` calls such vocabularies.
        kind_name: what people call them.

    Raises:
        PresetError: the vocabulary is of another kind, or has no tokens.
    """

    kind: ClassVar[str]
    kind_name: ClassVar[str]

    def __init__(self, data: Mapping[str, Any], name: str) -> None:
        kind = data.get("tokenizer.ggml.model")
        if kind != self.kind:
            raise PresetError(
                f"The tokenizer of {name!r} must be of the kind {self.kind!r} ({self.kind_name}). "
                f"Received: 'tokenizer.ggml.model' is {kind!r:.80}."
            )
        self._data = data
        self._name = name
        tokens = self._strings("tokens")
        if not tokens:
            raise self._error("tokens", "a list with the tokens")
        # Nothing else tells an empty token from another, and nothing ever produces one.
        self._tokens = [token or f"[EMPTY_{id}]" for id, token in enumerate(tokens)]

    def roles(self) -> dict[str, str]:
        """Return the tokens that have a role, by role."""
        ids = {role: self._token_id(key) for role, key in ROLE_KEYS.items()}
        return {role: self._tokens[id] for role, id in ids.items() if id is not None}

    def declared_end_token_ids(self) -> list[int]:
        """Return the ids of the tokens that the file says end a text, a turn or a message."""
        ids = map(self._token_id, END_KEYS)
        return [id for id in ids if id is not None]

    def chat_template(self) -> str | None:
        """Return the source of the chat template."""
        return self._data.get("tokenizer.chat_template")

    def _flag(self, key: str, default: bool) -> bool:
        value = self._value(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._error(key, "true or false")
        return value

    def _types(self) -> list[Any]:
        types = self._value("token_type")
        if types is None:
            types = [None] * len(self._tokens)
        if not isinstance(types, list) or len(types) != len(self._tokens):
            raise self._error("token_type", "a list with the type of every token")
        return types

    def _special_ids(self, types: list[Any]) -> set[int]:
        # Every token with a role is special, whatever the file says of its type.
        roles = {self._token_id(key) for key in (*ROLE_KEYS.values(), *END_KEYS)}
        special = {id for id, type in enumerate(types) if type in (_UNKNOWN, _CONTROL)}
        return special | {id for id in roles if id is not None}

    def _token_id(self, key: str) -> int | None:
        id = self._value(key)
        if id is not None and (type(id) is not int or not 0 <= id < len(self._tokens)):
            raise self._error(key, f"an id from 0 to {len(self._tokens) - 1}")
        return id

    def _strings(self, key: str) -> list[str]:
        value = self._value(key)
        if not isinstance(value, list) or not set(map(type, value)) <= {str}:
            raise self._error(key, "a list of strings")
        return value

    def _value(self, key: str) -> Any:
        return self._data.get(f"tokenizer.ggml.{key}")

    def _error(self, key: str, expected: str, received: Any = None) -> PresetError:
        received = self._value(key) if received is None else received
        return PresetError(
            f"'tokenizer.ggml.{key}' of {self._name!r} must be {expected}. "
            f"Received: {str(received)[:80]!r}."
        )


class GGUFVocabulary(_GGUFTokenizer):
    """A byte-level byte-pair vocabulary in a GGUF file.

    Args:
        data: the keys that begin with `tokenizer.`, and their values.
        name: whose tokenizer it is, for messages.

    Raises:
        PresetError: the vocabulary is of another kind, or has no tokens.
    """

    kind = "gpt2"
    kind_name = "byte-level byte pairs"

    def __init__(self, data: Mapping[str, Any], name: str) -> None:
        super().__init__(data, name)
        self._rules = split_rules(self._value("pre"))

    def model(self) -> BytePairModel:
        """Return vocabulary, merges and how text is prepared for them."""
        vocabulary = {token: id for id, token in enumerate(self._tokens)}
        if len(vocabulary) != len(self._tokens):
            raise PresetError(f"The vocabulary of {self._name!r} has the same token twice.")
        types = self._types()  # converters name ids that no token has, and say so
        vocabulary = {token: id for token, id in vocabulary.items() if types[id] != _UNUSED}
        return BytePairModel(
            vocabulary=vocabulary,
            merges=self._merges(),
            added_tokens=self._added_tokens(),
            spelling=ByteLevelSpelling(),
            normalizer=self._rules.normalizer(),
            pre_tokenizer=self._rules.pre_tokenizer(),
            options={"ignore_merges": self._rules.ignore_merges},
        )

    def add_start_token(self) -> bool:
        """Return whether a prompt begins with the start token."""
        return self._flag("add_bos_token", self._rules.add_start_token)

    def _added_tokens(self) -> dict[int, AddedToken]:
        types = self._types()
        special = self._special_ids(types)
        added = special | {id for id, type in enumerate(types) if type == _USER_DEFINED}
        return {
            id: AddedToken(self._tokens[id], special=id in special, normalized=False)
            for id in added
        }

    def _merges(self) -> list[tuple[str, str]]:
        merges = []
        for merge in self._strings("merges"):
            left, _, right = merge.partition(" ")
            if not left or not right or " " in right:
                raise self._error("merges", "a list of two tokens and a space between", merge)
            merges.append((left, right))
        return merges


class GGUFSentencePieces(_GGUFTokenizer):
    """A SentencePiece vocabulary in a GGUF file: byte pairs of characters, joined by their scores.

    Args:
        data: the keys that begin with `tokenizer.`, and their values.
        name: whose tokenizer it is, for messages.

    Raises:
        PresetError: the vocabulary is of another kind, or has no tokens.
    """

    kind = "llama"
    kind_name = "SentencePiece"

    def model(self) -> SentencePieceModel:
        """Return the model of SentencePiece from which the vocabulary was converted."""
        scores, types = self._value("scores"), self._types()
        if (
            not isinstance(scores, list)
            or len(scores) != len(self._tokens)
            or not set(map(type, scores)) <= {int, float}
            or not all(abs(score) <= _MAX_SCORE for score in scores)
        ):
            raise self._error("scores", "a list with the score of every token")
        pieces = []
        for text, score, kind in zip(self._tokens, scores, types, strict=True):
            if kind not in tuple(PieceType):
                raise self._error("token_type", "a list of numbers from 1 to 6", kind)
            pieces.append(Piece(text, score, PieceType(kind)))
        return SentencePieceModel(
            tuple(pieces),
            ModelType.BPE,
            byte_fallback=any(piece.type is PieceType.BYTE for piece in pieces),
            add_dummy_prefix=self._flag("add_space_prefix", True),
            remove_extra_whitespaces=self._flag("remove_extra_whitespaces", False),
        )

    def config(self) -> TokenizerConfig:
        """Return everything but the vocabulary."""
        special = self._special_ids(self._types())
        return TokenizerConfig(
            role_tokens={role: _special_token(token) for role, token in self.roles().items()},
            extra_special_tokens=tuple(_special_token(self._tokens[id]) for id in sorted(special)),
            end_token_ids=tuple(self.declared_end_token_ids()),
            add_start_token=self._flag("add_bos_token", True),
            chat_template=self.chat_template(),
        )


class GGUFWordPieces(_GGUFTokenizer):
    """A WordPiece vocabulary in a GGUF file, which marks the tokens that begin a word.

    Args:
        data: the keys that begin with `tokenizer.`, and their values.
        name: whose tokenizer it is, for messages.

    Raises:
        PresetError: the vocabulary is of another kind, or has no tokens.
    """

    kind = "bert"
    kind_name = "WordPiece"

    def __init__(self, data: Mapping[str, Any], name: str) -> None:
        super().__init__(data, name)
        self._tokens = list(map(_word_piece, self._tokens))

    def tokens(self) -> list[str]:
        """Return the tokens, those that go on with a word marked by "##"."""
        return self._tokens

    def config(self) -> TokenizerConfig:
        """Return everything but the vocabulary; letters are made small, as llama.cpp does."""
        return TokenizerConfig(
            role_tokens={role: _special_token(token) for role, token in self.roles().items()},
            end_token_ids=tuple(self.declared_end_token_ids()),
            chat_template=self.chat_template(),
        )


def _word_piece(token: str) -> str:
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[1:] if token.startswith(_WORD_BEGINS) else f"##{token}"


def _special_token(token: str) -> AddedToken:
    return AddedToken(token, special=True, normalized=False)
