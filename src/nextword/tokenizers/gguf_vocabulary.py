"""The tokenizer inside a GGUF file."""

from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken

from nextword.errors import PresetError
from nextword.tokenizers.byte_pair_engine import BytePairModel
from nextword.tokenizers.pre_tokenizers import split_rules
from nextword.tokenizers.spelling import ByteLevelSpelling

# Values of `tokenizer.ggml.token_type`.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4

_ROLE_KEYS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # spelled so in the format
    "pad_token": "padding_token_id",
    "cls_token": "cls_token_id",
    "mask_token": "mask_token_id",
}
_END_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


class GGUFVocabulary:
    """The keys of a GGUF file that describe its tokenizer, checked as they are read.

    Args:
        data: the keys that begin with `tokenizer.`, and their values.
        name: whose tokenizer it is, for messages.

    Raises:
        PresetError: it is no byte-level byte-pair vocabulary, or has no tokens.
    """

    def __init__(self, data: Mapping[str, Any], name: str) -> None:
        self._data = data
        self._name = name
        kind = self._value("model")
        if kind != "gpt2":
            raise PresetError(
                f"The tokenizer of {name!r} must be of the kind 'gpt2' (byte-level byte pairs); "
                f"other kinds are not supported yet. Received: 'tokenizer.ggml.model' is {kind!r}."
            )
        tokens = self._strings("tokens")
        if not tokens:
            raise self._error("tokens", "a list with the tokens")
        # Nothing else tells an empty token from another, and nothing ever produces one.
        self._tokens = [token or f"[EMPTY_{id}]" for id, token in enumerate(tokens)]
        self._rules = split_rules(self._value("pre"))

    def model(self) -> BytePairModel:
        """Return vocabulary, merges and how text is prepared for them."""
        vocabulary = {token: id for id, token in enumerate(self._tokens)}
        if len(vocabulary) != len(self._tokens):
            raise PresetError(f"The vocabulary of {self._name!r} has the same token twice.")
        return BytePairModel(
            vocabulary=vocabulary,
            merges=self._merges(),
            added_tokens=self._added_tokens(),
            spelling=ByteLevelSpelling(),
            normalizer=self._rules.normalizer(),
            pre_tokenizer=self._rules.pre_tokenizer(),
            options={"ignore_merges": self._rules.ignore_merges},
        )

    def roles(self) -> dict[str, str]:
        """Return the tokens that have a role, by role."""
        ids = {role: self._token_id(key) for role, key in _ROLE_KEYS.items()}
        return {role: self._tokens[id] for role, id in ids.items() if id is not None}

    def declared_end_token_ids(self) -> list[int]:
        """Return the ids of the tokens that the file says end a text, a turn or a message."""
        ids = map(self._token_id, _END_KEYS)
        return [id for id in ids if id is not None]

    def add_start_token(self) -> bool:
        """Return whether a prompt begins with the start token."""
        value = self._value("add_bos_token")
        if value is None:
            return self._rules.add_start_token
        if not isinstance(value, bool):
            raise self._error("add_bos_token", "true or false")
        return value

    def chat_template(self) -> str | None:
        """Return the source of the chat template."""
        return self._data.get("tokenizer.chat_template")

    def _added_tokens(self) -> dict[int, AddedToken]:
        types = self._value("token_type")
        if types is None:
            types = [None] * len(self._tokens)
        if not isinstance(types, list) or len(types) != len(self._tokens):
            raise self._error("token_type", "a list with the type of every token")
        # Every token with a role is special, whatever the file says of its type.
        special = {self._token_id(key) for key in (*_ROLE_KEYS.values(), *_END_KEYS)}
        special |= {id for id, type in enumerate(types) if type in (_UNKNOWN, _CONTROL)}
        added = special | {id for id, type in enumerate(types) if type == _USER_DEFINED}
        return {
            id: AddedToken(self._tokens[id], special=id in special, normalized=False)
            for id in added
            if id is not None
        }

    def _merges(self) -> list[tuple[str, str]]:
        merges = []
        for merge in self._strings("merges"):
            left, _, right = merge.partition(" ")
            if not left or not right or " " in right:
                raise self._error("merges", "a list of two tokens and a space between", merge)
            merges.append((left, right))
        return merges

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
