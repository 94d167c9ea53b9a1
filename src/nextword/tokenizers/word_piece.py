"""`WordPieceTokenizer`: whole words and their pieces, as BERT uses them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from tokenizers import AddedToken, pre_tokenizers
from tokenizers.normalizers import BertNormalizer

from nextword.errors import PresetError
from nextword.tokenizers.assets import write_text
from nextword.tokenizers.gguf_vocabulary import GGUFWordPieces
from nextword.tokenizers.library_engine import LibraryModel
from nextword.tokenizers.library_models import WordPieceModel
from nextword.tokenizers.library_tokenizer import LibraryTokenizer
from nextword.tokenizers.special_tokens import ROLES
from nextword.tokenizers.spelling import WordPieceSpelling
from nextword.tokenizers.tokenizer_config import TokenizerConfig
from nextword.tokenizers.tokenizer_files import vocabulary_from_lines, vocabulary_from_tokens

_VOCABULARY = "vocabulary.txt"
# The tokens with a role in the vocabularies of BERT and its kin, where nothing else says.
_USUAL_ROLES = {
    "bos_token": "[CLS]",
    "eos_token": "[SEP]",
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}


class WordPieceTokenizer(LibraryTokenizer):
    """A tokenizer that splits text into words, and words into the longest tokens there are.

    A checkpoint's tokenizer is made with `from_tokenizer_json`, `from_vocabulary`,
    `from_gguf` or `from_assets`; the constructor is KerasHub's.

    Args:
        vocabulary: the tokens in the order of their ids, or the path of a text file with one a
            line.
        sequence_length: see `Tokenizer`.
        lowercase: whether letters are made small.
        strip_accents: whether accents are removed.
        split: whether text is split into words, at spaces and punctuation; otherwise every text
            is one word.
        split_on_cjk: whether every Chinese character is a word.
        suffix_indicator: what marks tokens that go on with a word.
        oov_token: the token for words that cannot be made of others.
        special_tokens: special tokens, all of them in the vocabulary. Those with a role are
            special without being named.
        special_tokens_in_strings: whether text that looks like a special token always becomes it.

    Attributes:
        role_tokens: a family's tokens with a role, for files that do not say: role, for example
            "cls_token" -> token. Without it, BERT's, as far as the vocabulary has them.

    Example:
    >>> tokenizer = WordPieceTokenizer(["[UNK]", "the", "quick", "##er", "."], lowercase=True)
    >>> tokenizer.tokenize("The quicker.")
    [1, 2, 3, 4]
    >>> tokenizer.detokenize([1, 2, 3, 4])
    'the quicker.'
    """

    model_kind: ClassVar[str] = "WordPiece"
    asset_files: ClassVar[tuple[str, ...]] = (_VOCABULARY,)
    config_keys: ClassVar[tuple[str, ...]] = (
        "sequence_length",
        "lowercase",
        "strip_accents",
        "split",
        "split_on_cjk",
        "suffix_indicator",
        "oov_token",
        "special_tokens",
        "special_tokens_in_strings",
    )
    _settings: ClassVar[frozenset[str]] = frozenset(
        ["sequence_length", "special_tokens_in_strings"]
    )
    role_tokens: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        vocabulary: Iterable[str] | str | Path,
        sequence_length: int | None = None,
        lowercase: bool = False,
        strip_accents: bool = False,
        split: bool = True,
        split_on_cjk: bool = True,
        suffix_indicator: str = "##",
        oov_token: str = "[UNK]",
        special_tokens: Sequence[str] | None = None,
        special_tokens_in_strings: bool = False,
    ) -> None:
        tokens, name = _tokens(vocabulary, type(self).__name__)
        roles = self.role_tokens or {
            role: token for role, token in _USUAL_ROLES.items() if token in tokens
        }
        roles = {**roles, "unk_token": oov_token}
        special = [*roles.values(), *(special_tokens or ())]
        for token in special:
            if token not in tokens:
                raise PresetError(
                    f"The special tokens of {name!r} must be in its vocabulary. "
                    f"Received: {str(token)[:80]!r}."
                )
        model = WordPieceModel(
            vocabulary=tokens,
            added_tokens={tokens[token]: _special(token) for token in special},
            spelling=WordPieceSpelling(suffix_indicator, cleanup=True),
            normalizer=BertNormalizer(
                clean_text=split,
                handle_chinese_chars=split and split_on_cjk,
                strip_accents=strip_accents,
                lowercase=lowercase,
            ),
            pre_tokenizer=pre_tokenizers.BertPreTokenizer() if split else None,
            unknown=oov_token,
            prefix=suffix_indicator,
        )
        self._set_up(model, roles, sequence_length=sequence_length, name=name)
        self.split_on_cjk = split_on_cjk
        self.special_tokens_in_strings = special_tokens_in_strings

    def _set_up(self, model: LibraryModel, roles: Mapping[str, str], **settings: Any) -> None:
        # What begins a text and ends it, transformers' files call by other names.
        ends = {"bos_token": roles.get("cls_token"), "eos_token": roles.get("sep_token")}
        roles = {role: token for role, token in ends.items() if token is not None} | dict(roles)
        roles = {role: roles[role] for role in ROLES if role in roles}
        super()._set_up(model, roles, **settings)
        state = {} if model.normalizer is None else json.loads(model.normalizer.__getstate__())
        self.lowercase = state.get("lowercase") is True
        accents = state.get("strip_accents")
        self.strip_accents = self.lowercase if accents is None else accents is True
        self.split_on_cjk = state.get("handle_chinese_chars") is True
        self.split = model.pre_tokenizer is not None
        self.oov_token = model.unknown_token
        self.suffix_indicator = model.prefix if isinstance(model, WordPieceModel) else ""
        self.special_tokens_in_strings = False

    @property
    def _always_parses_special(self) -> bool:
        return self.special_tokens_in_strings

    def _save_vocabulary(self, directory: Path) -> None:
        super()._save_vocabulary(directory)
        tokens = map(self._token, range(self.vocabulary_size()))
        lines = (f"[EMPTY_{id}]\n" if t is None else f"{t}\n" for id, t in enumerate(tokens))
        write_text(directory / _VOCABULARY, "".join(lines))

    @classmethod
    def _from_vocabulary_files(cls, arguments: dict[str, Any], directory: Path) -> Self:
        return cls(directory / _VOCABULARY, **arguments)

    @classmethod
    def from_gguf(cls, tokenizer_data: Mapping[str, Any], *, name: str = "GGUF file") -> Self:
        """Return the tokenizer that a GGUF file holds.

        Args:
            tokenizer_data: the keys of the file that begin with `tokenizer.`, and their values.
            name: whose tokenizer it is, for messages.

        Raises:
            PresetError: it is of another kind, or damaged.
        """
        pieces = GGUFWordPieces(tokenizer_data, name)
        return cls.from_vocabulary(pieces.tokens(), pieces.config(), name=name)

    @classmethod
    def from_vocabulary(
        cls,
        vocabulary: Iterable[str] | str | Path,
        config: TokenizerConfig | None = None,
        *,
        name: str | None = None,
    ) -> Self:
        """Return the tokenizer that a `vocab.txt` describes.

        Args:
            vocabulary: text file, a token a line, or the tokens.
            config: what the files beside it say.
            name: whose tokenizer it is, for messages. Defaults to the path.

        Raises:
            PresetError: the files are damaged.
        """
        config = config or TokenizerConfig()
        tokens, default_name = _tokens(vocabulary, cls.__name__)
        name = name or default_name
        given = {role: token.content for role, token in config.role_tokens.items()}
        roles = _USUAL_ROLES | given
        special = {tokens[token]: _special(token) for token in roles.values() if token in tokens}
        model = WordPieceModel(
            vocabulary=tokens,
            added_tokens=config.added_to(tokens, special),
            spelling=WordPieceSpelling("##", cleanup=True),
            normalizer=BertNormalizer(
                clean_text=True,
                handle_chinese_chars=config.split_on_cjk,
                strip_accents=config.strip_accents,
                lowercase=config.lowercase,
            ),
            pre_tokenizer=pre_tokenizers.BertPreTokenizer(),
            unknown=roles["unk_token"],
        )
        known = tokens.keys() | set(given.values())
        return cls._from_model(
            model,
            {role: token for role, token in roles.items() if token in known},
            declared_end_token_ids=config.end_token_ids,
            add_start_token=config.add_start_token is not False,
            chat_template=config.chat_template,
            name=name,
        )


def _tokens(vocabulary: Iterable[str] | str | Path, name: str) -> tuple[dict[str, int], str]:
    if isinstance(vocabulary, str | Path):
        return vocabulary_from_lines(Path(vocabulary), str(vocabulary)), str(vocabulary)
    if not isinstance(vocabulary, Iterable):
        raise PresetError(
            f"The vocabulary of {name!r} must be a list of tokens. Received: {vocabulary!r:.80}."
        )
    return vocabulary_from_tokens(vocabulary, name), name


def _special(token: str) -> AddedToken:
    return AddedToken(token, special=True, normalized=False)
