"""`BytePairTokenizer`: byte-pair encoding as GPT-2, Llama 3, Qwen and many others use it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from tokenizers import AddedToken

from nextword.errors import PresetError
from nextword.tokenizers.byte_pair_engine import BytePairEngine, BytePairModel
from nextword.tokenizers.chat_template import ChatTemplate
from nextword.tokenizers.gguf_vocabulary import GGUFVocabulary
from nextword.tokenizers.special_tokens import end_token_ids
from nextword.tokenizers.tokenizer import Tokenizer
from nextword.tokenizers.tokenizer_config import TokenizerConfig
from nextword.tokenizers.tokenizer_files import (
    model_from_tokenizer_json,
    model_from_vocabulary_and_merges,
)

_END_OF_TEXT = "<|endoftext|>"


class BytePairTokenizer(Tokenizer):
    """A tokenizer that joins the pairs of symbols that its merges list.

    Make one with `from_gguf`, `from_tokenizer_json` or `from_vocabulary_and_merges`.

    Args:
        model: vocabulary, merges and how text is prepared for them.
        roles: see `Tokenizer`.
        declared_end_token_ids: the end tokens that the checkpoint declares; those that are known
            to end a turn or a text are added.
        add_start_token: see `Tokenizer`.
        chat_template: the template's source, or `None`.
        name: whose tokenizer it is, for messages.

    Example:
    >>> tokenizer = BytePairTokenizer.from_gguf(
    ...     {
    ...         "tokenizer.ggml.model": "gpt2",
    ...         "tokenizer.ggml.pre": "gpt-2",
    ...         "tokenizer.ggml.tokens": ["a", "b", "ab"],
    ...         "tokenizer.ggml.merges": ["a b"],
    ...     }
    ... )
    >>> tokenizer.tokenize("abba")
    [2, 1, 0]
    >>> tokenizer.detokenize([2, 1, 0])
    'abba'
    """

    def __init__(
        self,
        model: BytePairModel,
        roles: Mapping[str, str],
        *,
        declared_end_token_ids: Iterable[int] = (),
        add_start_token: bool = False,
        chat_template: str | None = None,
        name: str = "tokenizer",
    ) -> None:
        self._engine = BytePairEngine(model, name)
        super().__init__(
            roles,
            add_start_token=add_start_token,
            chat_template=None if chat_template is None else ChatTemplate(chat_template),
        )
        ends = [] if self.end_token_id is None else [self.end_token_id]
        self.end_token_ids = end_token_ids(
            self._engine.added_token_ids(), [*ends, *declared_end_token_ids]
        )

    @property
    def special_token_ids(self) -> frozenset[int]:
        return self._engine.special_token_ids

    def vocabulary_size(self) -> int:
        return self._engine.size

    def special_spans(self, text: str) -> list[tuple[int, int, int]]:
        return self._engine.special_spans(text)

    @property
    def _leading_spaces(self) -> int:
        return self._engine.leading_spaces

    def _find_token(self, token: str) -> int | None:
        return self._engine.token_to_id(token)

    def _token(self, id: int) -> str | None:
        return self._engine.id_to_token(id)

    def _token_bytes(self, id: int) -> bytes:
        return self._engine.token_bytes(id)

    def _encode(self, texts: list[str], *, parse_special: bool) -> list[list[int]]:
        return self._engine.encode(texts, parse_special=parse_special)

    @classmethod
    def from_gguf(cls, tokenizer_data: Mapping[str, Any], *, name: str = "GGUF file") -> Self:
        """Return the tokenizer that a GGUF file holds.

        Args:
            tokenizer_data: the keys of the file that begin with `tokenizer.`, and their values.
            name: whose tokenizer it is, for messages.

        Raises:
            PresetError: it is of a kind that is not supported yet, or damaged.
        """
        vocabulary = GGUFVocabulary(tokenizer_data, name)
        return cls(
            vocabulary.model(),
            vocabulary.roles(),
            declared_end_token_ids=vocabulary.declared_end_token_ids(),
            add_start_token=vocabulary.add_start_token(),
            chat_template=vocabulary.chat_template(),
            name=name,
        )

    @classmethod
    def from_tokenizer_json(
        cls,
        path: str | Path,
        config: TokenizerConfig | None = None,
        *,
        name: str | None = None,
    ) -> Self:
        """Return the tokenizer that a tokenizer.json describes.

        Args:
            path: the file, at most 128 MB.
            config: what the files beside it say.
            name: whose tokenizer it is, for messages. Defaults to the path.

        Raises:
            PresetError: it is of a kind that is not supported yet, or damaged.
        """
        name = name or str(path)
        model, start_token = model_from_tokenizer_json(Path(path), name)
        return cls._configured(model, config or TokenizerConfig(), start_token, name)

    @classmethod
    def from_vocabulary_and_merges(
        cls,
        vocabulary: str | Path,
        merges: str | Path,
        config: TokenizerConfig | None = None,
        *,
        name: str | None = None,
    ) -> Self:
        """Return the tokenizer that a `vocab.json` and a `merges.txt` describe.

        Args:
            vocabulary: JSON file, token -> id.
            merges: text file, two tokens a line.
            config: what the files beside them say; its tokenizer class decides how text is split,
                which is as GPT-2 does where there is none.
            name: whose tokenizer it is, for messages. Defaults to the vocabulary's path.

        Raises:
            PresetError: the files are damaged.
        """
        config = config or TokenizerConfig()
        name = name or str(vocabulary)
        model = model_from_vocabulary_and_merges(
            Path(vocabulary), Path(merges), config.tokenizer_class, name
        )
        if config.add_prefix_space:
            raise PresetError(
                f"The tokenizer of {name!r} puts a space in front of every text (add_prefix_space "
                "in tokenizer_config.json), which is not supported yet without a tokenizer.json."
            )
        # The classes of transformers that read these files name this token where no file does.
        if not config.role_tokens and _END_OF_TEXT in model.vocabulary:
            token = AddedToken(_END_OF_TEXT, special=True, normalized=False)
            config = replace(config, role_tokens={"bos_token": token, "eos_token": token})
        return cls._configured(model, config, None, name)

    @classmethod
    def _configured(
        cls, model: BytePairModel, config: TokenizerConfig, start_token: str | None, name: str
    ) -> Self:
        roles = config.roles
        adds_start_token = config.add_start_token
        if start_token is not None and adds_start_token is not False:
            roles["bos_token"] = start_token
        added_tokens = config.added_to(model)
        contents = {token.content for token in added_tokens.values()}
        if start_token is not None and start_token not in contents | model.vocabulary.keys():
            raise PresetError(
                f"The start token of {name!r} must be in its vocabulary. "
                f"Received: {start_token[:80]!r}."
            )
        return cls(
            replace(model, added_tokens=added_tokens),
            roles,
            declared_end_token_ids=config.end_token_ids,
            add_start_token=start_token is not None
            if adds_start_token is None
            else adds_start_token,
            chat_template=config.chat_template,
            name=name,
        )
