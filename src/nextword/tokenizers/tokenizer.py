"""`Tokenizer`: text to token ids and back, whatever the kind of vocabulary."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any, overload

import numpy as np

from nextword.errors import did_you_mean
from nextword.tokenizers.chat_encoding import encode_chat
from nextword.tokenizers.chat_template import ChatTemplate
from nextword.tokenizers.stream_decoder import StreamDecoder
from nextword.tokenizers.text_checks import check_unicode


class Tokenizer(ABC):
    """Turns text into token ids, and token ids into text.

    Args:
        roles: the tokens that have a role, by role: "bos_token", "eos_token", "pad_token", ...;
            chat templates see them under these names.
        end_token_ids: see below.
        add_start_token: see below.
        chat_template: see below.

    Attributes:
        start_token_id: id of the token that begins a text, or `None`.
        end_token_id: id of the token that ends a text, or `None`.
        pad_token_id: id of the token that fills up a batch, or `None`.
        end_token_ids: ids of all tokens that end a turn or a text; generation stops at each.
        add_start_token: whether the checkpoint's own tokenizer puts the start token in front of a
            prompt. `tokenize` never does.
        chat_template: how a conversation becomes a prompt, or `None`.
    """

    def __init__(
        self,
        roles: Mapping[str, str],
        *,
        end_token_ids: Sequence[int] = (),
        add_start_token: bool = False,
        chat_template: ChatTemplate | None = None,
    ) -> None:
        self._roles = dict(roles)
        self.start_token_id = self._role_id("bos_token")
        self.end_token_id = self._role_id("eos_token")
        self.pad_token_id = self._role_id("pad_token")
        self.end_token_ids = tuple(end_token_ids)
        self.add_start_token = add_start_token and self.start_token_id is not None
        self.chat_template = chat_template

    def _role_id(self, role: str) -> int | None:
        return self.token_to_id(self._roles[role]) if role in self._roles else None

    @property
    @abstractmethod
    def special_token_ids(self) -> frozenset[int]:
        """Ids of the tokens that carry structure, not text."""

    @abstractmethod
    def vocabulary_size(self) -> int:
        """Return one more than the largest id."""

    @abstractmethod
    def _find_token(self, token: str) -> int | None:
        """Return the id of a token, `None` if there is none."""

    @abstractmethod
    def _token(self, id: int) -> str | None:
        """Return the token of an id below the vocabulary size, `None` if the id is unused."""

    @abstractmethod
    def _token_bytes(self, id: int) -> bytes:
        """Return the bytes that a token stands for; the id is below the vocabulary size."""

    @abstractmethod
    def _encode(self, texts: list[str], *, parse_special: bool) -> list[list[int]]:
        """Return the ids of checked texts."""

    @abstractmethod
    def special_spans(self, text: str) -> list[tuple[int, int, int]]:
        """Return the special tokens that `tokenize(text, parse_special=True)` finds.

        Args:
            text: any text.

        Returns:
            For each, its id, and where it begins and ends in the text, in characters.
        """

    @property
    def _leading_spaces(self) -> int:
        """How many spaces in front of every decoded text are an artefact of the vocabulary."""
        return 0

    def token_to_id(self, token: str) -> int:
        """Return the id of a token.

        Args:
            token: the token as the vocabulary spells it, for example `"Ġthe"` or `"<|im_end|>"`.

        Raises:
            ValueError: the vocabulary has no such token.
        """
        id = self._find_token(token)
        if id is None:
            special = filter(None, map(self._token, sorted(self.special_token_ids)))
            hint = did_you_mean(str(token)[:80], special)
            raise ValueError(
                f"token must be in the vocabulary. Received: token={str(token)[:80]!r}.{hint}"
            )
        return id

    def id_to_token(self, id: int) -> str:
        """Return the token of an id, as the vocabulary spells it.

        Raises:
            ValueError: the id is outside the vocabulary, or unused in it.
        """
        token = self._token(self._checked_id(id))
        if token is None:
            raise ValueError(f"id must be that of a token. Received: id={id}, which is unused.")
        return token

    @overload
    def tokenize(  # type: ignore[overload-overlap]  # a string is a sequence of strings, too
        self, inputs: str, *, parse_special: bool = ...
    ) -> list[int]: ...
    @overload
    def tokenize(self, inputs: Sequence[str], *, parse_special: bool = ...) -> list[list[int]]: ...
    def tokenize(
        self, inputs: str | Sequence[str], *, parse_special: bool = False
    ) -> list[int] | list[list[int]]:
        """Return the token ids of one text or of several.

        No start or end token is added.

        Args:
            inputs: a string, or a list, tuple or one-dimensional numpy array of strings.
            parse_special: whether text that looks like a special token, for example `<|im_end|>`,
                becomes that token. By default it is text like any other, so that text from
                outside cannot change the structure of a prompt.

        Returns:
            The ids of the string, or a list of them for each string.

        Raises:
            TypeError: `inputs` is anything else.
            ValueError: a string holds a lone surrogate.
        """
        texts, is_batch = _texts(inputs)
        ids = self._encode(texts, parse_special=parse_special) if texts else []
        return ids if is_batch else ids[0]

    @overload
    def detokenize(self, ids: Sequence[int], *, skip_special_tokens: bool = ...) -> str: ...
    @overload
    def detokenize(
        self, ids: Sequence[Sequence[int]], *, skip_special_tokens: bool = ...
    ) -> list[str]: ...
    def detokenize(self, ids: Any, *, skip_special_tokens: bool = True) -> str | list[str]:
        """Return the text of one row of token ids or of several.

        The tokens' bytes are joined and decoded as UTF-8; what is not UTF-8 becomes U+FFFD.

        Args:
            ids: ids, int; shape [length] or [batch, length], also a list of rows of other lengths.
            skip_special_tokens: whether special tokens are left out.

        Returns:
            The text, or a list with the text of each row.

        Raises:
            TypeError: an id is no integer.
            ValueError: an id is outside the vocabulary.
        """
        if hasattr(ids, "__array__"):
            ids = np.asarray(ids)
            if ids.ndim not in (1, 2):
                raise ValueError(
                    "ids must have the shape [length] or [batch, length]. "
                    f"Received: an array of shape {list(ids.shape)}."
                )
            ids = ids.tolist()
        if not isinstance(ids, Iterable) or isinstance(ids, str | bytes | Mapping):
            raise TypeError(f"ids must be a list of token ids. Received: ids={ids!r:.80}.")
        ids = list(ids)
        if ids and _is_row(ids[0]):
            return [
                self.detokenize(_row(row), skip_special_tokens=skip_special_tokens) for row in ids
            ]
        decoder = self.stream_decoder(skip_special_tokens=skip_special_tokens)
        return decoder.push(ids) + decoder.flush()

    def stream_decoder(self, *, skip_special_tokens: bool = True) -> StreamDecoder:
        """Return a decoder that turns ids into text as they come.

        Its pieces join to what `detokenize` returns for all the ids.

        Args:
            skip_special_tokens: whether special tokens are left out.

        Example:
        ```python
        decoder = tokenizer.stream_decoder()
        for id in tokenizer.tokenize("Déjà vu"):
            print(decoder.push(id), end="")
        print(decoder.flush())
        ```
        """
        skipped = self.special_token_ids if skip_special_tokens else frozenset()

        def token_bytes(id: int) -> bytes:
            id = self._checked_id(id)
            return b"" if id in skipped else self._token_bytes(id)

        return StreamDecoder(token_bytes, self._leading_spaces)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> list[int]:
        """Return the token ids of a conversation, as the model's chat template writes it.

        Special tokens come from the template alone: where a message contains the text of one, that
        text stays text, so that no message can pass for another. (`role` is not message content;
        a template may build tokens from it, so it should not come from outside.)

        Args:
            messages: the turns, each `{"role": "user", "content": "..."}` or what else the
                template takes.
            add_generation_prompt: whether the ids end where the model's answer begins.
            **kwargs: further variables of the template, for example `tools` or `enable_thinking`.

        Returns:
            The ids, start token included if the template writes one.

        Raises:
            ValueError: there is no chat template, or the messages are not what it takes.
            PresetError: the template is broken.
        """
        if self.chat_template is None:
            raise ValueError(
                "The model has no chat template, so it does not say how a conversation becomes a "
                "prompt; use generate with a prompt of your own."
            )
        return encode_chat(
            self,
            self.chat_template,
            messages,
            add_generation_prompt=add_generation_prompt,
            roles=self._roles,
            variables=kwargs,
        )

    def _checked_id(self, id: Any) -> int:
        try:
            value = index(id)
        except TypeError:
            raise TypeError(f"A token id must be an integer. Received: {id!r:.80}.") from None
        if not 0 <= value < self.vocabulary_size():
            raise ValueError(
                f"A token id must be from 0 to {self.vocabulary_size() - 1}. Received: {value}."
            )
        return value


def _texts(inputs: Any) -> tuple[list[str], bool]:
    """Return the strings in `inputs`, and whether they are a batch."""
    if isinstance(inputs, np.ndarray):
        if inputs.ndim > 1:
            raise TypeError(
                "inputs must be a string or a one-dimensional sequence of strings. Received: an "
                f"array of shape {list(inputs.shape)}."
            )
        inputs = inputs.tolist()
    is_batch = isinstance(inputs, list | tuple)
    texts = list(inputs) if is_batch else [inputs]
    for text in texts:
        _check_text(text)
    return texts, is_batch


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise TypeError(
            "inputs must be a string, or a list, tuple or numpy array of strings. Received: "
            f"{text!r:.80} of type {type(text).__name__}."
        )
    check_unicode(text)


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1


def _row(value: Any) -> Any:
    if not _is_row(value):
        raise TypeError(f"ids must be rows or integers, not both. Received: {value!r:.80}.")
    return value
