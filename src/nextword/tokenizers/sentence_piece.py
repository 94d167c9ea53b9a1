"""`SentencePieceTokenizer`: SentencePiece models, as Llama 2, Mistral, Gemma and T5 use them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from tokenizers import AddedToken

from nextword.errors import PresetError
from nextword.presets.file_checks import cannot_read, check_file, not_valid, recognise
from nextword.presets.sources import LocalDirectory
from nextword.tokenizers.assets import (
    CONFIGURATION_FILES,
    SENTENCE_PIECE_PROTO,
    TOKENIZER_JSON,
    TOKENIZER_MODEL,
    write_text,
)
from nextword.tokenizers.chat_template import ChatTemplate
from nextword.tokenizers.converted_sentence_piece import ConvertedSentencePieceTokenizer
from nextword.tokenizers.gguf_keys import sentence_piece_keys
from nextword.tokenizers.gguf_vocabulary import GGUFSentencePieces
from nextword.tokenizers.sentence_piece_engine import SentencePieceEngine
from nextword.tokenizers.sentence_piece_json import sentence_piece_json
from nextword.tokenizers.sentence_piece_proto import (
    ModelType,
    PieceType,
    SentencePieceModel,
)
from nextword.tokenizers.special_tokens import end_token_ids, looks_special
from nextword.tokenizers.tokenizer import Tokenizer
from nextword.tokenizers.tokenizer_config import TokenizerConfig, read_tokenizer_config

_MAX_BYTES = 128 * 2**20
_SPECIAL_TYPES = (PieceType.CONTROL, PieceType.UNKNOWN)
# How models name the pieces with a role, where nothing else says which they are.
_USUAL_ROLES = {
    "unk_token": ("<unk>", "[UNK]"),
    "bos_token": ("<s>", "<bos>", "[CLS]"),
    "eos_token": ("</s>", "<eos>", "[SEP]"),
    "pad_token": ("<pad>", "[PAD]"),
}


class SentencePieceTokenizer(Tokenizer):
    r"""A tokenizer that a SentencePiece model describes.

    A checkpoint's tokenizer is made with `from_proto`, `from_gguf` or `from_assets`; the
    constructor is KerasHub's.

    Args:
        proto: the model, as the bytes of its protocol buffer or the path of a file with them.
        sequence_length: see `Tokenizer`.
        add_bos: whether `tokenize` puts the start token in front.
        add_eos: whether `tokenize` puts the end token behind.

    Attributes:
        role_tokens: a family's tokens with a role, for files that do not say: role, for example
            "eos_token" -> token. Without it, the pieces that are commonly named for a role.

    Example:
    >>> import io, sentencepiece
    >>> model = io.BytesIO()
    >>> sentencepiece.SentencePieceTrainer.train(
    ...     sentence_iterator=iter(["the quick brown fox", "jumps over the lazy dog"]),
    ...     model_writer=model, vocab_size=40, model_type="bpe", minloglevel=2,
    ... )
    >>> tokenizer = SentencePieceTokenizer(model.getvalue())
    >>> tokenizer.detokenize(tokenizer.tokenize("the lazy fox"))
    'the lazy fox'
    """

    asset_files: ClassVar[tuple[str, ...]] = (SENTENCE_PIECE_PROTO,)
    own_asset_files: ClassVar[tuple[str, ...]] = (TOKENIZER_JSON, *CONFIGURATION_FILES)
    config_keys: ClassVar[tuple[str, ...]] = ("sequence_length", "add_bos", "add_eos")
    role_tokens: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        proto: bytes | str | Path,
        sequence_length: int | None = None,
        add_bos: bool = False,
        add_eos: bool = False,
    ) -> None:
        name = type(self).__name__ if isinstance(proto, bytes) else str(proto)
        model = SentencePieceModel.parse(_read(proto), name)
        pieces = {piece.text: id for id, piece in enumerate(model.pieces)}
        roles = self.role_tokens
        for token in roles.values():
            if token not in pieces:
                raise PresetError(
                    f"The special tokens of {name!r} must be in its vocabulary. "
                    f"Received: {token[:80]!r}."
                )
        config = TokenizerConfig(role_tokens={role: _special(t) for role, t in roles.items()})
        self._set_up(model, config, name=name, sequence_length=sequence_length)
        self.add_bos, self.add_eos = add_bos, add_eos
        for flag, role, id in (
            ("add_bos", "start", self.start_token_id),
            ("add_eos", "end", self.end_token_id),
        ):
            if getattr(self, flag) and id is None:
                raise ValueError(f"{flag} must be False where there is no {role} token.")

    def _set_up(
        self,
        model: SentencePieceModel,
        config: TokenizerConfig,
        *,
        name: str,
        sequence_length: int | None = None,
        prefix_everywhere: bool = False,
    ) -> None:
        """Do the work of the constructor.

        Args:
            model: of SentencePiece.
            config: special tokens, end tokens, chat template.
            name: whose tokenizer it is, for messages.
            sequence_length: see `Tokenizer`.
            prefix_everywhere: see `SentencePieceEngine.encode`.
        """
        special = {
            id: _special(piece.text)
            for id, piece in enumerate(model.pieces)
            if piece.type in _SPECIAL_TYPES
            or (piece.type is PieceType.USER_DEFINED and looks_special(piece.text))
        }
        if not config.role_tokens:
            config = replace(config, role_tokens=_usual_roles(model))
        vocabulary = {piece.text: id for id, piece in enumerate(model.pieces)}
        self._engine = SentencePieceEngine(model, config.added_to(vocabulary, special), name)
        self._prefix_everywhere = prefix_everywhere
        # Where the files do not say, the models with byte pairs have a start token, others not.
        adds_start_token = config.add_start_token
        if adds_start_token is None:
            adds_start_token = model.model_type is ModelType.BPE
        super().__init__(
            config.roles,
            add_start_token=adds_start_token,
            chat_template=None
            if config.chat_template is None
            else ChatTemplate(config.chat_template),
            sequence_length=sequence_length,
        )
        added = {token.content: id for id, token in self._engine.added_tokens.items()}
        ends = [] if self.end_token_id is None else [self.end_token_id]
        self.end_token_ids = end_token_ids(added, [*ends, *config.end_token_ids])

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

    def _encode(
        self, texts: list[str], *, parse_special: bool, inside: bool = False
    ) -> list[list[int]]:
        return [
            self._engine.encode(
                text,
                parse_special=parse_special,
                inside=inside,
                prefix_everywhere=self._prefix_everywhere,
            )
            for text in texts
        ]

    def _save_vocabulary(self, directory: Path) -> None:
        (directory / SENTENCE_PIECE_PROTO).write_bytes(self._engine.model.data)

    def gguf_vocabulary(self) -> dict[str, Any]:
        return sentence_piece_keys(self._engine.model, self._engine.added_tokens)

    def _save_for_transformers(
        self, directory: Path, *, start_token: str | None, end_token: str | None = None
    ) -> None:
        text = sentence_piece_json(
            self._engine.model,
            self._engine.added_tokens,
            prefix_everywhere=self._prefix_everywhere,
            start_token=start_token,
            end_token=end_token,
        )
        write_text(directory / TOKENIZER_JSON, text)
        # Which other software looks for.
        (directory / TOKENIZER_MODEL).write_bytes(self._engine.model.data)

    def _further_configuration(self) -> dict[str, Any]:
        flags = ("lstrip", "rstrip", "normalized", "single_word", "special")
        added = {
            str(id): {"content": token.content, **{flag: getattr(token, flag) for flag in flags}}
            for id, token in self._engine.added_tokens.items()
        }
        return {"added_tokens_decoder": added, "legacy": self._prefix_everywhere}

    @classmethod
    def from_assets(cls, config: Mapping[str, Any], directory: str | Path) -> Tokenizer:
        arguments = cls._arguments(config)
        source = LocalDirectory(Path(directory))
        if source.find(TOKENIZER_JSON) is not None:
            return ConvertedSentencePieceTokenizer.from_assets(arguments, directory)
        if not any(map(source.find, CONFIGURATION_FILES)):
            return cls(source.path(SENTENCE_PIECE_PROTO), **arguments)
        files = read_tokenizer_config(source, {})
        tokenizer = cls.from_proto(source.path(SENTENCE_PIECE_PROTO), files)
        for key, value in arguments.items():
            setattr(tokenizer, key, value)
        return tokenizer

    @classmethod
    def from_proto(
        cls,
        proto: bytes | str | Path,
        config: TokenizerConfig | None = None,
        *,
        name: str | None = None,
    ) -> Self:
        """Return the tokenizer of a `tokenizer.model`.

        Args:
            proto: the model, as the bytes of its protocol buffer or the path of a file with them.
            config: what the files beside it say.
            name: whose tokenizer it is, for messages. Defaults to the path.

        Raises:
            PresetError: a file is damaged.
        """
        name = name or (cls.__name__ if isinstance(proto, bytes) else str(proto))
        model = SentencePieceModel.parse(_read(proto), name)
        config = config or TokenizerConfig()
        return cls._configured(model, config, name, prefix_everywhere=config.legacy)

    @classmethod
    def from_gguf(cls, tokenizer_data: Mapping[str, Any], *, name: str = "GGUF file") -> Self:
        """Return the tokenizer that a GGUF file holds.

        Args:
            tokenizer_data: the keys of the file that begin with `tokenizer.`, and their values.
            name: whose tokenizer it is, for messages.

        Raises:
            PresetError: it is of another kind, or damaged.
        """
        vocabulary = GGUFSentencePieces(tokenizer_data, name)
        model = SentencePieceModel.parse(vocabulary.model().serialize(), name)
        return cls._configured(model, vocabulary.config(), name, prefix_everywhere=True)

    @classmethod
    def _configured(
        cls,
        model: SentencePieceModel,
        config: TokenizerConfig,
        name: str,
        *,
        prefix_everywhere: bool,
    ) -> Self:
        tokenizer = cls.__new__(cls)
        tokenizer._set_up(model, config, name=name, prefix_everywhere=prefix_everywhere)
        return tokenizer


def _read(proto: bytes | str | Path) -> bytes:
    if isinstance(proto, bytes):
        return proto
    if not isinstance(proto, str | Path):
        raise TypeError(f"proto must be bytes or a path. Received: {proto!r:.80}.")
    path = Path(proto)
    check_file(path, max_bytes=_MAX_BYTES)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error
    if recognise(data[:512]) is not None:
        raise not_valid(path, "a SentencePiece model", "it is something else")
    return data


def _usual_roles(model: SentencePieceModel) -> dict[str, AddedToken]:
    special = {piece.text for piece in model.pieces if piece.type in _SPECIAL_TYPES}
    found = {
        role: next((name for name in names if name in special), None)
        for role, names in _USUAL_ROLES.items()
    }
    return {role: _special(token) for role, token in found.items() if token is not None}


def _special(token: str) -> AddedToken:
    return AddedToken(token, special=True, normalized=False)
