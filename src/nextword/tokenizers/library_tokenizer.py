"""`LibraryTokenizer`: what the tokenizers on the `tokenizers` library have in common."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

from nextword.errors import PresetError
from nextword.presets.sources import LocalDirectory
from nextword.tokenizers.assets import CONFIGURATION_FILES, TOKENIZER_JSON, write_text
from nextword.tokenizers.chat_template import ChatTemplate
from nextword.tokenizers.library_engine import LibraryEngine, LibraryModel
from nextword.tokenizers.special_tokens import end_token_ids
from nextword.tokenizers.spelling import Spelling
from nextword.tokenizers.tokenizer import Tokenizer
from nextword.tokenizers.tokenizer_config import TokenizerConfig, read_tokenizer_config
from nextword.tokenizers.tokenizer_files import model_from_tokenizer_json, read_tokenizer_json


class LibraryTokenizer(Tokenizer):
    """A tokenizer that the `tokenizers` library runs; each kind of model has its own subclass.

    Attributes:
        model_kind: the `type` of the model in a tokenizer.json.
        spellings: how tokens may spell bytes, where that decides between classes of one kind.
    """

    own_asset_files: ClassVar[tuple[str, ...]] = (TOKENIZER_JSON, *CONFIGURATION_FILES)
    model_kind: ClassVar[str]
    spellings: ClassVar[tuple[type[Spelling], ...]] = ()
    # Keys of the configuration that no tokenizer.json has.
    _settings: ClassVar[frozenset[str]] = frozenset(["sequence_length"])

    def _set_up(
        self,
        model: LibraryModel,
        roles: Mapping[str, str],
        *,
        declared_end_token_ids: Iterable[int] = (),
        add_start_token: bool = False,
        chat_template: str | None = None,
        sequence_length: int | None = None,
        name: str = "tokenizer",
    ) -> None:
        """Do the work of the constructor.

        Args:
            model: vocabulary and how text is prepared for it.
            roles: see `Tokenizer`.
            declared_end_token_ids: the end tokens that the checkpoint declares; those that are
                known to end a turn or a text are added.
            add_start_token: see `Tokenizer`.
            chat_template: the template's source, or `None`.
            sequence_length: see `Tokenizer`.
            name: whose tokenizer it is, for messages.
        """
        self._engine = LibraryEngine(model, name)
        Tokenizer.__init__(
            self,
            roles,
            add_start_token=add_start_token,
            chat_template=None if chat_template is None else ChatTemplate(chat_template),
            sequence_length=sequence_length,
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

    def _encode(
        self, texts: list[str], *, parse_special: bool, inside: bool = False
    ) -> list[list[int]]:
        return self._engine.encode(texts, parse_special=parse_special, inside=inside)

    def _save_vocabulary(self, directory: Path) -> None:
        start_token = self.start_token if self.add_start_token else None
        self._save_for_transformers(directory, start_token=start_token)

    def _save_for_transformers(
        self, directory: Path, *, start_token: str | None, end_token: str | None = None
    ) -> None:
        write_text(directory / TOKENIZER_JSON, self._engine.to_json(start_token, end_token))

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
            path: the file, at most 64 MiB.
            config: what the files beside it say.
            name: whose tokenizer it is, for messages. Defaults to the path.

        Returns:
            The tokenizer; called on `LibraryTokenizer`, of the class that the file is for.

        Raises:
            PresetError: it is of a kind that this class is not for, or damaged.
        """
        name = name or str(path)
        data, kind = read_tokenizer_json(Path(path))
        candidates = [cls] if hasattr(cls, "model_kind") else cls.__subclasses__()
        classes = [candidate for candidate in candidates if candidate.model_kind == kind]
        if not classes:
            kinds = dict.fromkeys(candidate.model_kind for candidate in candidates)
            raise PresetError(
                f"The tokenizer.json of {name!r} must hold a model of the type "
                f"{' or '.join(map(repr, kinds))}. Received: {kind!r}."
            )
        model, start_token = model_from_tokenizer_json(data, kind, name)
        chosen = next((c for c in classes if isinstance(model.spelling, c.spellings)), classes[0])
        return chosen._configured(model, config or TokenizerConfig(), start_token, name)

    @classmethod
    def from_assets(cls, config: Mapping[str, Any], directory: str | Path) -> Tokenizer:
        arguments = cls._arguments(config)
        directory = Path(directory)
        path = directory / TOKENIZER_JSON
        if not path.is_file():
            return cls._from_vocabulary_files(arguments, directory)
        files = read_tokenizer_config(LocalDirectory(directory), {})
        tokenizer = cls.from_tokenizer_json(path, files)
        for key in cls._settings & arguments.keys():
            setattr(tokenizer, key, arguments[key])
        return tokenizer

    @classmethod
    def _from_vocabulary_files(cls, arguments: dict[str, Any], directory: Path) -> Self:
        """Return the tokenizer that KerasHub's files describe, if it has such files."""
        raise PresetError(
            f"{str(directory)!r} has no {TOKENIZER_JSON}, the one file that a {cls.__name__} is "
            "kept in."
        )

    @classmethod
    def _configured(
        cls, model: LibraryModel, config: TokenizerConfig, start_token: str | None, name: str
    ) -> Self:
        roles = config.roles
        adds_start_token = config.add_start_token
        if start_token is not None and adds_start_token is not False:
            roles["bos_token"] = start_token
        added_tokens = config.added_to(model.vocabulary, model.added_tokens)
        contents = {token.content for token in added_tokens.values()}
        if start_token is not None and start_token not in contents | model.vocabulary.keys():
            raise PresetError(
                f"The start token of {name!r} must be in its vocabulary. "
                f"Received: {start_token[:80]!r}."
            )
        return cls._from_model(
            replace(model, added_tokens=added_tokens),
            roles,
            declared_end_token_ids=config.end_token_ids,
            add_start_token=start_token is not None
            if adds_start_token is None
            else adds_start_token,
            chat_template=config.chat_template,
            name=name,
        )

    @classmethod
    def _from_model(cls, model: LibraryModel, roles: Mapping[str, str], **settings: Any) -> Self:
        """Return a tokenizer with arguments of `_set_up` instead of the constructor's."""
        tokenizer = cls.__new__(cls)
        tokenizer._set_up(model, roles, **settings)
        return tokenizer
