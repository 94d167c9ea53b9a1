"""`BytePairTokenizer`: byte-pair encoding as GPT-2, Llama 3, Qwen and many others use it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from tokenizers import AddedToken

from nextword.errors import PresetError
from nextword.tokenizers.assets import write_json, write_text
from nextword.tokenizers.gguf_keys import byte_pair_keys
from nextword.tokenizers.gguf_vocabulary import GGUFVocabulary
from nextword.tokenizers.library_engine import LibraryModel
from nextword.tokenizers.library_models import BytePairModel
from nextword.tokenizers.library_tokenizer import LibraryTokenizer
from nextword.tokenizers.pre_tokenizers import split_rules
from nextword.tokenizers.special_tokens import looks_special
from nextword.tokenizers.spelling import ByteLevelSpelling, Spelling
from nextword.tokenizers.tekken_files import model_from_tekken
from nextword.tokenizers.tiktoken_files import model_from_tiktoken
from nextword.tokenizers.tokenizer_config import TokenizerConfig
from nextword.tokenizers.tokenizer_files import (
    TIKTOKEN_CLASSES,
    model_from_vocabulary_and_merges,
    rules_of_class,
)

_END_OF_TEXT = "<|endoftext|>"
_VOCABULARY, _MERGES = "vocabulary.json", "merges.txt"
_TEKKEN_ROLES = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
}


class BytePairTokenizer(LibraryTokenizer):
    """A tokenizer that joins the pairs of symbols that its merges list.

    A checkpoint's tokenizer is made with `from_gguf`, `from_tokenizer_json`,
    `from_vocabulary_and_merges`, `from_tiktoken`, `from_tekken` or `from_assets`; the constructor
    is KerasHub's.

    Args:
        vocabulary: token -> id, or the path of a JSON file with it.
        merges: pairs of tokens like `"t h"`, the most urgent first, or the path of a text file
            with one a line.
        sequence_length: see `Tokenizer`.
        add_prefix_space: whether a space is put in front of a text that begins with none.
        unsplittable_tokens: special tokens, all of them in the vocabulary. Those with a role, and
            those like `<|im_end|>` that no merge makes, are special without being named.
        split: how text is split before pairs are joined, a name in
            `nextword.tokenizers.pre_tokenizers.SPLIT_RULES`. Defaults to `default_split`.

    Attributes:
        default_split: a family's way to split text, for files that do not say.
        role_tokens: a family's tokens with a role, for files that do not say: role, for example
            "eos_token" -> token.

    Example:
    >>> tokenizer = BytePairTokenizer({"a": 0, "b": 1, "ab": 2}, ["a b"])
    >>> tokenizer.tokenize("abba")
    [2, 1, 0]
    >>> tokenizer.detokenize([2, 1, 0])
    'abba'
    """

    model_kind: ClassVar[str] = "BPE"
    spellings: ClassVar[tuple[type[Spelling], ...]] = (ByteLevelSpelling,)
    asset_files: ClassVar[tuple[str, ...]] = (_VOCABULARY, _MERGES)
    config_keys: ClassVar[tuple[str, ...]] = (
        "sequence_length",
        "add_prefix_space",
        "unsplittable_tokens",
    )
    _settings: ClassVar[frozenset[str]] = frozenset(config_keys)
    default_split: ClassVar[str] = "gpt-2"
    role_tokens: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        vocabulary: Mapping[str, int] | str | Path,
        merges: Iterable[str] | str | Path,
        sequence_length: int | None = None,
        add_prefix_space: bool = False,
        unsplittable_tokens: Sequence[str] | None = None,
        *,
        split: str | None = None,
    ) -> None:
        rules = split_rules(split or self.default_split)
        name = str(vocabulary) if isinstance(vocabulary, str | Path) else type(self).__name__
        model = model_from_vocabulary_and_merges(
            vocabulary, merges, rules, name, add_prefix_space=add_prefix_space
        )
        made = {left + right for left, right in model.merges}
        special = [
            *self.role_tokens.values(),
            *(unsplittable_tokens or ()),
            *(token for token in model.vocabulary if token not in made and looks_special(token)),
        ]
        self._set_up(
            replace(model, added_tokens=_special_tokens(special, model.vocabulary, name)),
            self.role_tokens,
            add_start_token=rules.add_start_token,
            sequence_length=sequence_length,
            name=name,
        )
        self.add_prefix_space = add_prefix_space
        if unsplittable_tokens is not None:
            self.unsplittable_tokens = list(unsplittable_tokens)

    def _set_up(self, model: LibraryModel, roles: Mapping[str, str], **settings: Any) -> None:
        super()._set_up(model, roles, **settings)
        self._model = cast(BytePairModel, model)
        self.add_prefix_space = False
        self.unsplittable_tokens = self.special_tokens

    def _save_vocabulary(self, directory: Path) -> None:
        super()._save_vocabulary(directory)
        if not isinstance(self._model.spelling, self.spellings):
            return  # such tokens have spaces and line ends in them, which the format lacks
        vocabulary = dict(sorted(self._engine.vocabulary.items(), key=lambda item: item[1]))
        write_json(directory / _VOCABULARY, vocabulary)
        lines = (f"{left} {right}\n" for left, right in self._model.merges)
        write_text(directory / _MERGES, "".join(lines))

    def gguf_vocabulary(self) -> dict[str, Any]:
        if not isinstance(self._model.spelling, self.spellings):
            return super().gguf_vocabulary()
        return byte_pair_keys(self._model, self._engine.vocabulary)

    @classmethod
    def _from_vocabulary_files(cls, arguments: dict[str, Any], directory: Path) -> Self:
        return cls(directory / _VOCABULARY, directory / _MERGES, **arguments)

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
        return cls._from_model(
            vocabulary.model(),
            vocabulary.roles(),
            declared_end_token_ids=vocabulary.declared_end_token_ids(),
            add_start_token=vocabulary.add_start_token(),
            chat_template=vocabulary.chat_template(),
            name=name,
        )

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
        rules = rules_of_class(config.tokenizer_class, name)
        model = model_from_vocabulary_and_merges(
            vocabulary, merges, rules, name, add_prefix_space=config.add_prefix_space
        )
        # The classes of transformers that read these files name this token where no file does.
        if not config.role_tokens and _END_OF_TEXT in model.vocabulary:
            token = AddedToken(_END_OF_TEXT, special=True, normalized=False)
            config = replace(config, role_tokens={"bos_token": token, "eos_token": token})
        return cls._configured(model, config, None, name)

    @classmethod
    def from_tiktoken(
        cls,
        path: str | Path,
        config: TokenizerConfig | None = None,
        *,
        split: str | None = None,
        name: str | None = None,
    ) -> Self:
        """Return the tokenizer of a file in tiktoken's format: a token and its rank a line.

        Such files are called `*.tiktoken`, `tiktoken.model` or, as those of SentencePiece,
        `tokenizer.model`. They hold no special tokens; the files beside them may.

        Args:
            path: the file, at most 16 MiB.
            config: what the files beside it say.
            split: how text is split, a name in `nextword.tokenizers.pre_tokenizers.SPLIT_RULES`.
                By default the tokenizer class in `config` decides, and where there is none it is
                "llama3", the way of GPT-4 and Llama 3.
            name: whose tokenizer it is, for messages. Defaults to the path.

        Raises:
            PresetError: a file is damaged, or it is not known how the class splits text.
        """
        config = config or TokenizerConfig()
        name = name or str(path)
        rules = (
            rules_of_class(config.tokenizer_class, name, TIKTOKEN_CLASSES)
            if split is None
            else split_rules(split)
        )
        model = model_from_tiktoken(Path(path), rules, name)
        if config.add_start_token is None:
            config = replace(config, add_start_token=rules.add_start_token)
        return cls._configured(model, config, None, name)

    @classmethod
    def from_tekken(
        cls, path: str | Path, config: TokenizerConfig | None = None, *, name: str | None = None
    ) -> Self:
        """Return the tokenizer of Mistral's tekken.json.

        Args:
            path: the file, at most 64 MiB. It lists its special tokens; those of 2024 do not, and
                are refused.
            config: what the files beside it say.
            name: whose tokenizer it is, for messages. Defaults to the path.

        Raises:
            PresetError: a file is damaged.
        """
        config = config or TokenizerConfig()
        name = name or str(path)
        model = model_from_tekken(Path(path), name)
        special = {token.content: token for token in model.added_tokens.values()}
        roles = {role: special[token] for role, token in _TEKKEN_ROLES.items() if token in special}
        starts = config.add_start_token is not False
        config = replace(config, role_tokens=roles | dict(config.role_tokens))
        return cls._configured(model, replace(config, add_start_token=starts), None, name)


def _special_tokens(
    tokens: Iterable[str], vocabulary: Mapping[str, int], name: str
) -> dict[int, AddedToken]:
    added = {}
    for token in tokens:
        if token not in vocabulary:
            raise PresetError(
                f"The special tokens of {name!r} must be in its vocabulary. "
                f"Received: {str(token)[:80]!r}."
            )
        added[vocabulary[token]] = AddedToken(token, special=True, normalized=False)
    return added
