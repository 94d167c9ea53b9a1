"""Tokenization by the `tokenizers` library, behind checks and with its errors made ours."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken
from tokenizers.models import BPE, Model

from nextword.errors import PresetError
from nextword.tokenizers.pre_tokenizers import KNOWN_PATTERNS
from nextword.tokenizers.section_checks import check_section, regular_expressions
from nextword.tokenizers.spelling import Spelling
from nextword.tokenizers.time_limit import TimeLimit

_MAX_TOKENS = 1 << 21
_MAX_ADDED_CHARACTERS = 1 << 22  # the library needs some 300 bytes for each

# Ten times as long as any pattern of a published model takes.
_SECONDS, _SECONDS_PER_CHARACTER = 10.0, 5e-6


@dataclass(frozen=True, kw_only=True)
class LibraryModel(ABC):
    """All that a file says about how text becomes ids.

    Attributes:
        vocabulary: token -> id, ids unique.
        added_tokens: id -> token that is found in the text before anything else, special or not.
        spelling: which bytes a token stands for.
        normalizer: what the library does to the text first, if anything.
        pre_tokenizer: how the library splits the text, if at all.
    """

    vocabulary: Mapping[str, int]
    added_tokens: Mapping[int, AddedToken]
    spelling: Spelling
    normalizer: Any = None
    pre_tokenizer: Any = None

    @property
    def unknown_token(self) -> str | None:
        """The token for what the vocabulary lacks, if there is one."""
        return None

    @abstractmethod
    def check(self, vocabulary: Mapping[str, int], name: str) -> None:
        """Check what the library does not, or aborts for.

        Args:
            vocabulary: the vocabulary with the added tokens in it.
            name: whose tokenizer it is, for messages.

        Raises:
            PresetError: something does not fit together.
        """

    @abstractmethod
    def build(self, vocabulary: Mapping[str, int]) -> Model:
        """Return the library's object.

        Args:
            vocabulary: the vocabulary with the added tokens in it, which fixes their ids.
        """


class LibraryEngine:
    """Encodes text and spells tokens; safe to use from several threads at once.

    Args:
        model: what the file says.
        name: whose tokenizer it is, for messages.

    Raises:
        PresetError: the vocabulary, the model and the added tokens do not fit together.
    """

    def __init__(self, model: LibraryModel, name: str) -> None:
        self._name = name
        patterns = regular_expressions(model.normalizer) | regular_expressions(model.pre_tokenizer)
        self._limit = (
            None
            if patterns <= KNOWN_PATTERNS
            else TimeLimit(seconds=_SECONDS, seconds_per_item=_SECONDS_PER_CHARACTER)
        )
        self._spelling = model.spelling
        self._added = dict(sorted(model.added_tokens.items()))
        self._vocabulary = _with_added_tokens(model, name)
        model.check(self._vocabulary, name)
        self.special_token_ids = frozenset(id for id, token in self._added.items() if token.special)
        # Text that no other token is for may become the unknown token, but no other special one.
        unknown = self._vocabulary.get(model.unknown_token or "")
        self._never_text = self.special_token_ids - {unknown}
        self.size = max(self._vocabulary.values()) + 1
        with library_errors(f"The tokenizer of {name!r} cannot be built"):
            core = model.build(self._vocabulary)
            self._parsing = self._front(core, model.normalizer, model.pre_tokenizer)
            # The library decides per object whether special tokens are found in the text; the two
            # objects share one model.
            shared = self._parsing.model
            self._plain = self._front(shared, model.normalizer, model.pre_tokenizer)
            self._plain.encode_special_tokens = True
            self._inside = self._front(shared, model.normalizer, _without_first(model))
            self._inside.encode_special_tokens = True
            # Finds the added tokens and drops all other text.
            added = BPE(vocab={token.content: id for id, token in self._added.items()}, merges=[])
            self._scanner = self._front(added, model.normalizer, None)

    def _front(self, core: Model, normalizer: Any, pre_tokenizer: Any) -> tokenizers.Tokenizer:
        front = tokenizers.Tokenizer(core)
        if normalizer is not None:
            front.normalizer = normalizer
        if pre_tokenizer is not None:
            front.pre_tokenizer = pre_tokenizer
        front.add_tokens(list(self._added.values()))
        for id, token in self._added.items():
            if front.token_to_id(token.content) != id:
                raise ValueError(
                    f"the added token {token.content[:80]!r} cannot have the id {id}, since ids "
                    "before it are missing"
                )
        return front

    @property
    def leading_spaces(self) -> int:
        """How many spaces in front of every decoded text are an artefact."""
        return self._spelling.leading_spaces

    def encode(
        self, texts: list[str], *, parse_special: bool, inside: bool = False
    ) -> list[list[int]]:
        """Return the ids of every text.

        Args:
            texts: any texts without surrogates.
            parse_special: whether text that looks like a special token becomes its id; not
                together with `inside`.
            inside: whether something stands before the texts.

        Returns:
            A list of ids for every text.
        """
        front = self._parsing if parse_special else self._inside if inside else self._plain
        ids = [encoding.ids for encoding in self._run(front.encode_batch_fast, texts)]
        if parse_special:
            return ids
        return [
            row if self._never_text.isdisjoint(row) else self._encode_spelled_out(front, text)
            for text, row in zip(texts, ids, strict=True)
        ]

    def _run(self, encode: Callable[..., list[Any]], texts: list[str]) -> list[Any]:
        """Return the library's encodings of texts, made by one of its methods for batches."""
        # Such a method lets other threads run, also where there is one text; one of them, "fast",
        # is without offsets.
        with library_errors(f"The tokenizer of {self._name!r} failed"):
            if self._limit is None:
                return encode(texts, add_special_tokens=False)
            return self._limit.run(
                lambda: encode(texts, add_special_tokens=False), items=sum(map(len, texts))
            )

    def _encode_spelled_out(self, front: tokenizers.Tokenizer, text: str) -> list[int]:
        """Encode a text in which the merges alone lead to a special token.

        Only a vocabulary that lists a special token among its ordinary ones does this, for a word
        that is spelled just like the token. Such a word is encoded letter by letter.
        """
        encoding = self._run(front.encode_batch, [text])[0]
        ids: list[int] = []
        for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if token not in self._never_text:
                ids.append(token)
                continue
            for character in text[start:end]:
                letters = self._plain.encode(character, add_special_tokens=False).ids
                ids += [letter for letter in letters if letter not in self._never_text]
        return ids

    def special_spans(self, text: str) -> list[tuple[int, int, int]]:
        """Return the special tokens in a text.

        Returns:
            For each, its id and where it begins and ends, in characters. The span includes white
            space that the token swallows.
        """
        encoding = self._run(self._scanner.encode_batch, [text])[0]
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

    def to_json(self, start_token: str | None, end_token: str | None = None) -> str:
        """Return the tokenizer as the text of a tokenizer.json.

        Args:
            start_token: the token that a post-processor puts in front of a text, if any.
            end_token: the token that it puts behind a text, if any.
        """
        data = json.loads(self._parsing.to_str())
        data["decoder"] = self._spelling.decoder()
        data["post_processor"] = post_processor(start_token, end_token, self._vocabulary)
        return json.dumps(data, ensure_ascii=False)

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """All tokens, added ones too, and their ids."""
        return self._vocabulary

    def added_token_ids(self) -> dict[str, int]:
        """Return the tokens that are found in the text before anything else, and their ids."""
        return {token.content: id for id, token in self._added.items()}


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into a `PresetError`.

    Args:
        what: what has gone wrong, the beginning of the message.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise PresetError(f"{what}: {reason}.") from error


def post_processor(
    start_token: str | None, end_token: str | None, vocabulary: Mapping[str, int]
) -> dict[str, Any] | None:
    """Return the section of a tokenizer.json that puts tokens around a text, or two of them.

    Args:
        start_token: what comes before a text, and where nothing ends the first, before the second.
        end_token: what comes behind each text.
        vocabulary: token -> id.

    Returns:
        The section, None where there is nothing to put.

    Example:
    >>> section = post_processor("[CLS]", "[SEP]", {"[CLS]": 1, "[SEP]": 2})
    >>> [next(iter(step)) for step in section["pair"]]
    ['SpecialToken', 'Sequence', 'SpecialToken', 'Sequence', 'SpecialToken']
    """
    tokens = [token for token in (start_token, end_token) if token is not None]
    if not tokens:
        return None

    def steps(text: str, start: str | None, part: int) -> list[dict[str, Any]]:
        named = [("SpecialToken", start), ("Sequence", text), ("SpecialToken", end_token)]
        return [{kind: {"id": id, "type_id": part}} for kind, id in named if id is not None]

    first = steps("A", start_token, 0)
    second = steps("B", start_token, 0) if end_token is None else steps("B", None, 1)
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": [*first, *second],
        "special_tokens": {
            token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]} for token in tokens
        },
    }


def library_component(kind: str, section: Any, name: str) -> Any:
    """Return a part of a tokenizer.json as the library's object.

    Args:
        kind: "normalizer", "pre_tokenizer" or "post_processor".
        section: the parsed JSON of that part, `None` for no such part.
        name: whose tokenizer it is, for messages.

    Returns:
        The object, or `None`.

    Raises:
        PresetError: the library refuses the section, or it asks for too much.
    """
    if section is None:
        return None
    check_section(kind, section, name)
    skeleton = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}
    with library_errors(f"The {kind} in the tokenizer.json of {name!r} cannot be used"):
        whole = tokenizers.Tokenizer.from_str(json.dumps({**skeleton, kind: section}))
        return getattr(whole, kind)


def _without_first(model: LibraryModel) -> Any:
    """Return the pre-tokenizer without what it puts in front of the first piece of a text only."""
    if model.pre_tokenizer is None:
        return None
    text = model.pre_tokenizer.__getstate__().decode()
    if '"prepend_scheme":"first"' not in text:
        return model.pre_tokenizer
    section = json.loads(text.replace('"prepend_scheme":"first"', '"prepend_scheme":"never"'))
    return library_component("pre_tokenizer", section, "tokenizer")


def _with_added_tokens(model: LibraryModel, name: str) -> dict[str, int]:
    """Return the vocabulary with the added tokens in it, which fixes their ids."""
    vocabulary = dict(model.vocabulary)
    for id, token in model.added_tokens.items():
        if not token.content or vocabulary.setdefault(token.content, id) != id:
            raise PresetError(
                f"In the tokenizer of {name!r}, the added token {token.content[:80]!r} with id "
                f"{id} is empty or has another id in the vocabulary."
            )
    characters = sum(len(token.content) for token in model.added_tokens.values())
    if characters > _MAX_ADDED_CHARACTERS:
        raise PresetError(
            f"The added tokens of {name!r} must have at most {_MAX_ADDED_CHARACTERS} characters "
            f"together. Received: {characters} characters."
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
    return vocabulary
