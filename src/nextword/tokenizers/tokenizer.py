"""`Tokenizer`: text to token ids and back, whatever the kind of vocabulary."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any, overload

import numpy as np

from nextword.errors import PresetError, did_you_mean
from nextword.tokenizers.chat_encoding import encode_chat
from nextword.tokenizers.chat_template import ChatTemplate
from nextword.tokenizers.id_checks import check_ids
from nextword.tokenizers.saved_tokenizer import SavedTokenizer
from nextword.tokenizers.stream_decoder import StreamDecoder
from nextword.tokenizers.text_checks import check_texts, check_unicode


class Tokenizer(SavedTokenizer):
    """Turns text into token ids, and token ids into text.

    Args:
        roles: the tokens that have a role, by role: "bos_token", "eos_token", "pad_token", ...;
            chat templates see them under these names.
        end_token_ids: see below.
        add_start_token: see below.
        chat_template: see below.
        sequence_length: see below.

    Attributes:
        start_token_id: id of the token that begins a text, or `None`.
        end_token_id: id of the token that ends a text, or `None`.
        pad_token_id: id of the token that fills up a batch, or `None`.
        end_token_ids: ids of all tokens that end a turn or a text; generation stops at each.
        add_start_token: whether the checkpoint's own tokenizer puts the start token in front of a
            prompt. `tokenize` never does.
        chat_template: how a conversation becomes a prompt, or `None`.
        sequence_length: if set, `tokenize` cuts and pads every row to so many ids.
        add_bos: whether `tokenize` puts the start token in front.
        add_eos: whether `tokenize` puts the end token behind.
    """

    def __init__(
        self,
        roles: Mapping[str, str],
        *,
        end_token_ids: Sequence[int] = (),
        add_start_token: bool = False,
        chat_template: ChatTemplate | None = None,
        sequence_length: int | None = None,
    ) -> None:
        self._roles = dict(roles)
        self.start_token_id = self._role_id("bos_token")
        self.end_token_id = self._role_id("eos_token")
        self.pad_token_id = self._role_id("pad_token")
        self.end_token_ids = tuple(end_token_ids)
        self.add_start_token = add_start_token and self.start_token_id is not None
        self.chat_template = chat_template
        self.sequence_length = sequence_length
        self.add_bos = self.add_eos = False

    @property
    def role_ids(self) -> dict[str, int]:
        """Ids of the tokens that have a role, by role."""
        ids = {role: self._role_id(role) for role in self._roles}
        return {role: id for role, id in ids.items() if id is not None}

    def gguf_vocabulary(self) -> dict[str, Any]:
        """Return the keys by which GGUF describes the vocabulary, without `tokenizer.ggml.`.

        Raises:
            PresetError: the format has no words for it.
        """
        raise PresetError(f"GGUF has no place for the vocabulary of a {type(self).__name__}.")

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
    def _encode(
        self, texts: list[str], *, parse_special: bool, inside: bool = False
    ) -> list[list[int]]:
        """Return the ids of checked texts; `inside` says that something stands before each."""

    def _framed(self, ids: list[int]) -> list[int]:
        """Return the ids of a text with what the tokenizer puts around them."""
        start = [self.start_token_id] if self.add_bos else []
        end = [self.end_token_id] if self.add_eos else []
        return [id for id in (*start, *ids, *end) if id is not None]

    def encode(
        self, texts: Sequence[str], *, parse_special: bool = False, inside: bool = False
    ) -> list[list[int]]:
        """Return the ids of texts and nothing around them, whatever the settings.

        Args:
            texts: any texts.
            parse_special: see `tokenize`.
            inside: whether something stands before the texts, so that what a tokenizer puts in
                front of a text is not put there.
        """
        for text in texts:
            check_unicode(text)
        return self._encode(list(texts), parse_special=parse_special, inside=inside)

    @abstractmethod
    def special_spans(self, text: str) -> list[tuple[int, int, int]]:
        """Return the special tokens that `tokenize(text, parse_special=True)` finds.

        Args:
            text: any text.

        Returns:
            For each, its id, and where it begins and ends in the text, in characters.
        """

    @property
    def sequence_length(self) -> int | None:
        """To how many ids `tokenize` cuts and pads every row; as many as there are if `None`."""
        return self._sequence_length

    @sequence_length.setter
    def sequence_length(self, value: int | None) -> None:
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(
                "sequence_length must be a positive integer or None. "
                f"Received: sequence_length={value!r:.80}."
            )
        self._sequence_length = value

    @property
    def start_token(self) -> str | None:
        """The token that begins a text, or `None`."""
        return self._roles.get("bos_token")

    @property
    def end_token(self) -> str | None:
        """The token that ends a text, or `None`."""
        return self._roles.get("eos_token")

    @property
    def pad_token(self) -> str | None:
        """The token that fills up a batch, or `None`."""
        return self._roles.get("pad_token")

    @property
    def special_tokens(self) -> list[str]:
        """The tokens that carry structure, not text, in the order of their ids."""
        return [self.id_to_token(id) for id in sorted(self.special_token_ids)]

    def get_vocabulary(self) -> list[str]:
        """Return all tokens in the order of their ids; ids that are unused are left out."""
        tokens = map(self._token, range(self.vocabulary_size()))
        return [token for token in tokens if token is not None]

    @property
    def _always_parses_special(self) -> bool:
        """Whether `tokenize` finds special tokens in a text without being told to."""
        return False

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
            The ids of the string, or a list of them for each string. Where `sequence_length` is
            set, an int32 array of shape [sequence_length] or [batch, sequence_length].

        Raises:
            TypeError: `inputs` is anything else.
            ValueError: a string holds a lone surrogate.
        """
        texts, is_batch = check_texts(inputs)
        parse_special = parse_special or self._always_parses_special
        rows: Any = self._encode(texts, parse_special=parse_special) if texts else []
        rows = [self._framed(ids) for ids in rows]
        if self.sequence_length is not None:
            rows = self._dense(rows, self.sequence_length)
        return rows if is_batch else rows[0]

    def _dense(self, rows: list[list[int]], length: int) -> np.ndarray:
        pad_token_id = 0 if self.pad_token_id is None else self.pad_token_id
        dense = np.full((len(rows), length), pad_token_id, "int32")
        for target, ids in zip(dense, rows, strict=True):
            target[: len(ids)] = ids[:length]
        return dense

    def __call__(
        self, inputs: str | Sequence[str], *, parse_special: bool = False
    ) -> list[int] | list[list[int]]:
        """Return what `tokenize` returns."""
        return self.tokenize(inputs, parse_special=parse_special)

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
        ids, is_batch = check_ids(ids)
        if is_batch:
            return [self.detokenize(row, skip_special_tokens=skip_special_tokens) for row in ids]
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
