"""Byte-pair encoding by the `tokenizers` library, behind checks and with its errors made ours."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import tokenizers
from tokenizers import AddedToken
from tokenizers.models import BPE

from nextword.errors import PresetError
from nextword.tokenizers.spelling import Spelling

_MAX_TOKENS = 1 << 22


@dataclass(frozen=True)
class BytePairModel:
    """All that a file says about how text becomes ids.

    Attributes:
        vocabulary: token -> id, ids unique.
        merges: pairs of tokens that are joined, the most urgent first.
        added_tokens: id -> token that is found in the text before anything else, special or not.
        spelling: which bytes a token stands for.
        normalizer: what the library does to the text first, if anything.
        pre_tokenizer: how the library splits the text, if at all.
        options: further arguments of the library's `BPE`, for example `ignore_merges`.
    """

    vocabulary: Mapping[str, int]
    merges: Sequence[tuple[str, str]]
    added_tokens: Mapping[int, AddedToken]
    spelling: Spelling
    normalizer: Any = None
    pre_tokenizer: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)


class BytePairEngine:
    """Encodes text and spells tokens; safe to use from several threads at once.

    Args:
        model: what the file says.
        name: whose tokenizer it is, for messages.

    Raises:
        PresetError: the vocabulary, the merges and the added tokens do not fit together.
    """

    def __init__(self, model: BytePairModel, name: str) -> None:
        self._name = name
        self._spelling = model.spelling
        self._added = dict(sorted(model.added_tokens.items()))
        self._vocabulary = _with_added_tokens(model, name)
        _check_merges(model, name)
        self.special_token_ids = frozenset(id for id, token in self._added.items() if token.special)
        self.size = max(self._vocabulary.values()) + 1
        with _library_errors(f"The tokenizer of {name!r} cannot be built"):
            bpe = BPE(vocab=self._vocabulary, merges=list(model.merges), **model.options)
            self._parsing = self._front(bpe, model.normalizer, model.pre_tokenizer)
            # The library decides per object whether special tokens are found in the text; the two
            # objects share one model.
            shared = self._parsing.model
            self._plain = self._front(shared, model.normalizer, model.pre_tokenizer)
            self._plain.encode_special_tokens = True
            # Finds the added tokens and drops all other text.
            added = BPE(vocab={token.content: id for id, token in self._added.items()}, merges=[])
            self._scanner = self._front(added, model.normalizer, None)

    def _front(self, bpe: BPE, normalizer: Any, pre_tokenizer: Any) -> tokenizers.Tokenizer:
        front = tokenizers.Tokenizer(bpe)
        if normalizer is not None:
            front.normalizer = normalizer
        if pre_tokenizer is not None:
            front.pre_tokenizer = pre_tokenizer
        front.add_tokens(list(self._added.values()))
        return front

    @property
    def leading_spaces(self) -> int:
        """How many spaces in front of every decoded text are an artefact."""
        return self._spelling.leading_spaces

    def encode(self, texts: list[str], *, parse_special: bool) -> list[list[int]]:
        """Return the ids of every text.

        Args:
            texts: any texts without surrogates.
            parse_special: whether text that looks like a special token becomes its id.

        Returns:
            A list of ids for every text.
        """
        front = self._parsing if parse_special else self._plain
        with _library_errors(f"The tokenizer of {self._name!r} failed"):
            # "Fast" is without offsets; it is so for one text too.
            encodings = front.encode_batch_fast(texts, add_special_tokens=False)
        ids = [encoding.ids for encoding in encodings]
        if parse_special:
            return ids
        return [
            row if self.special_token_ids.isdisjoint(row) else self._encode_spelled_out(text)
            for text, row in zip(texts, ids, strict=True)
        ]

    def _encode_spelled_out(self, text: str) -> list[int]:
        """Encode a text in which the merges alone lead to a special token.

        Only a vocabulary that lists a special token among its ordinary ones does this, for a word
        that is spelled just like the token. Such a word is encoded letter by letter.
        """
        encoding = self._plain.encode(text, add_special_tokens=False)
        ids: list[int] = []
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token not in self.special_token_ids:
                ids.append(token)
                continue
            for character in text[start:end]:
                letters = self._plain.encode(character, add_special_tokens=False).ids
                ids += [letter for letter in letters if letter not in self.special_token_ids]
        return ids

    def special_spans(self, text: str) -> list[tuple[int, int, int]]:
        """Return the special tokens in a text.

        Returns:
            For each, its id and where it begins and ends, in characters. The span includes white
            space that the token swallows.
        """
        with _library_errors(f"The tokenizer of {self._name!r} failed"):
            encoding = self._scanner.encode(text, add_special_tokens=False)
        return [
            (id, start, end)
            for id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if id in self.special_token_ids
        ]

    def token_to_id(self, token: str) -> int | None:
        """Return the id of a token, `None` if there is none."""
        return self._vocabulary.get(token)

    def id_to_token(self, id: int) -> str | None:
        """Return the token of an id, `None` for an id that the vocabulary skips."""
        return self._parsing.id_to_token(id)

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes that an id below `size` stands for."""
        if id in self._added:
            return self._spelling.added_token_bytes(self._added[id].content)
        token = self._parsing.id_to_token(id)
        return b"" if token is None else self._spelling.token_bytes(token)

    def added_token_ids(self) -> dict[str, int]:
        """Return the tokens that are found in the text before anything else, and their ids."""
        return {token.content: id for id, token in self._added.items()}


@contextmanager
def _library_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise PresetError(f"{what}: {reason}.") from error


def library_component(kind: str, section: Any, name: str) -> Any:
    """Return a part of a tokenizer.json as the library's object.

    Args:
        kind: "normalizer", "pre_tokenizer" or "post_processor".
        section: the parsed JSON of that part, `None` for no such part.
        name: whose tokenizer it is, for messages.

    Returns:
        The object, or `None`.

    Raises:
        PresetError: the library refuses the section.
    """
    if section is None:
        return None
    skeleton = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}
    with _library_errors(f"The {kind} in the tokenizer.json of {name!r} cannot be used"):
        whole = tokenizers.Tokenizer.from_str(json.dumps({**skeleton, kind: section}))
        return getattr(whole, kind)


def _check_merges(model: BytePairModel, name: str) -> None:
    # The library checks this too, but aborts for some of it, which leaves traces on the console.
    known = model.vocabulary.keys()
    shared = len(model.options.get("continuing_subword_prefix", ""))
    for left, right in model.merges:
        if left not in known or right not in known or left + right[shared:] not in known:
            raise PresetError(
                f"The merges of {name!r} must be of tokens in its vocabulary, to one in it. "
                f"Received: {left[:80]!r} and {right[:80]!r}."
            )


def _with_added_tokens(model: BytePairModel, name: str) -> dict[str, int]:
    """Return the vocabulary with the added tokens in it, which fixes their ids."""
    vocabulary = dict(model.vocabulary)
    for id, token in model.added_tokens.items():
        if not token.content or vocabulary.setdefault(token.content, id) != id:
            raise PresetError(
                f"In the tokenizer of {name!r}, the added token {token.content[:80]!r} with id "
                f"{id} is empty or has another id in the vocabulary."
            )
    ids = vocabulary.values()
    if not vocabulary:
        raise PresetError(f"The vocabulary of {name!r} must not be empty.")
    if min(ids) < 0 or max(ids) >= _MAX_TOKENS:
        raise PresetError(
            f"The vocabulary of {name!r} must have ids from 0 to {_MAX_TOKENS - 1}. "
            f"Received: ids from {min(ids)} to {max(ids)}."
        )
    if len(set(ids)) != len(vocabulary):
        raise PresetError(f"Two tokens in the vocabulary of {name!r} have the same id.")
    unknown = model.options.get("unk_token")
    if unknown is not None and unknown not in vocabulary:
        raise PresetError(
            f"The unknown token of {name!r} must be in its vocabulary. Received: {unknown[:80]!r}."
        )
    return vocabulary
