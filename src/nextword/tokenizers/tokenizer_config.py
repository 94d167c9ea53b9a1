"""What the files beside a tokenizer.json say: special tokens, end tokens, the chat template."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from nextword.errors import PresetError
from nextword.presets.file_checks import cannot_read, check_file, not_valid
from nextword.presets.json_files import read_json
from nextword.presets.sources import PresetSource
from nextword.tokenizers.assets import CHAT_TEMPLATE, END_TOKEN_IDS, TOKENIZER_CONFIG
from nextword.tokenizers.special_tokens import ROLES, looks_special

_MAX_TEMPLATE_BYTES = 1 << 20
_ADDED_TOKENS_FILE = "added_tokens.json"


@dataclass(frozen=True)
class TokenizerConfig:
    """Everything that transformers keeps outside the vocabulary.

    Attributes:
        role_tokens: role, for example "eos_token" -> the token that has it.
        extra_special_tokens: special tokens without a role.
        added_tokens: id -> token that the vocabulary may not have.
        end_token_ids: ids that end a text, as the generation settings say.
        add_start_token: whether a prompt begins with the start token; `None` where that is left to
            the tokenizer.json.
        tokenizer_class: the class of transformers that the checkpoint was made with, or `None`.
        add_prefix_space: whether a space is put in front of every text.
        legacy: whether SentencePiece puts a space in front of every text between added tokens.
        chat_template: the source of the chat template, or `None`.
        lowercase: whether a WordPiece tokenizer makes letters small.
        strip_accents: whether it removes accents; where `None`, if it makes letters small.
        split_on_cjk: whether every Chinese character is a word to it.
    """

    role_tokens: Mapping[str, AddedToken] = field(default_factory=dict)
    extra_special_tokens: tuple[AddedToken, ...] = ()
    added_tokens: Mapping[int, AddedToken] = field(default_factory=dict)
    end_token_ids: tuple[int, ...] = ()
    add_start_token: bool | None = None
    tokenizer_class: str | None = None
    add_prefix_space: bool = False
    legacy: bool = False
    chat_template: str | None = None
    lowercase: bool = True
    strip_accents: bool | None = None
    split_on_cjk: bool = True

    @property
    def roles(self) -> dict[str, str]:
        """The tokens that have a role, by role."""
        return {role: token.content for role, token in self.role_tokens.items()}

    def added_to(
        self, vocabulary: Mapping[str, int], added_tokens: Mapping[int, AddedToken]
    ) -> dict[int, AddedToken]:
        """Return the added tokens of a model together with those of this configuration.

        Tokens that the vocabulary lacks get the ids after its last, in the order in which
        transformers adds them.

        Args:
            vocabulary: of the model, token -> id.
            added_tokens: of the model, id -> token.

        Returns:
            id -> token.
        """
        added = dict(added_tokens)
        contents = {token.content: id for id, token in added.items()}
        for id, token in sorted(self.added_tokens.items()):
            if token.content not in contents:
                added[id] = token
                contents[token.content] = id
        following = max((*vocabulary.values(), *added), default=-1) + 1
        extra = [
            token
            for token in self.extra_special_tokens
            if not _is_text(added.get(contents.get(token.content, -1)), token.content)
        ]
        for token in (*self.role_tokens.values(), *extra):
            known = contents.get(token.content, vocabulary.get(token.content))
            id = following if known is None else known
            following += known is None
            added[id] = _special(added.get(id, token))
            contents[token.content] = id
        return added


def read_tokenizer_config(
    source: PresetSource, generation_config: Mapping[str, Any]
) -> TokenizerConfig:
    """Read what the files of a checkpoint say about its tokenizer beside the vocabulary.

    Args:
        source: where the files are.
        generation_config: the checkpoint's generation settings.

    Returns:
        The configuration; empty where there are no such files.

    Raises:
        PresetError: a file is damaged.
    """
    config = _read(source, TOKENIZER_CONFIG)
    roles = _read(source, "special_tokens_map.json") | config
    return TokenizerConfig(
        role_tokens={
            role: _added_token(roles[role], role)
            for role in ROLES
            if roles.get(role) not in (None, "")
        },
        extra_special_tokens=tuple(_extra_special_tokens(roles)),
        added_tokens=_added_tokens(config, _read(source, _ADDED_TOKENS_FILE)),
        end_token_ids=(
            *_end_token_ids(generation_config, "eos_token_id"),
            *_end_token_ids(config, END_TOKEN_IDS),
        ),
        add_start_token=_optional(config, "add_bos_token", bool),
        tokenizer_class=_optional(config, "tokenizer_class", str),
        add_prefix_space=bool(_optional(config, "add_prefix_space", bool)),
        legacy=bool(_optional(config, "legacy", bool)),
        chat_template=_chat_template(source, config),
        lowercase=_optional(config, "do_lower_case", bool) is not False,
        strip_accents=_optional(config, "strip_accents", bool),
        split_on_cjk=_optional(config, "tokenize_chinese_chars", bool) is not False,
    )


def read_text(path: Path, max_bytes: int) -> str:
    """Read a text file that is not trusted.

    Args:
        path: the file.
        max_bytes: the largest file to accept.

    Raises:
        PresetError: it cannot be read, is too large, or not UTF-8.
    """
    check_file(path, max_bytes=max_bytes)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise cannot_read(path, error) from error
    except UnicodeDecodeError as error:
        raise not_valid(path, "a text file", f"byte {error.start} is not UTF-8") from error


def _read(source: PresetSource, filename: str) -> dict[str, Any]:
    path = source.find(filename)
    return {} if path is None else read_json(path)


def _optional(config: Mapping[str, Any], key: str, kind: type) -> Any:
    value = config.get(key)
    if value is not None and not isinstance(value, kind):
        raise PresetError(
            f"{key!r} in tokenizer_config.json must be of type {kind.__name__}. "
            f"Received: {str(value)[:80]!r}."
        )
    return value


def _added_token(value: Any, name: str) -> AddedToken:
    """Return a token that is written as a string or as an object with its properties."""
    properties = {"content": value} if isinstance(value, str) else value
    if not isinstance(properties, dict) or not isinstance(properties.get("content"), str):
        raise PresetError(
            f"{name!r} in the tokenizer's configuration must be a token: a string, or an object "
            f"with a 'content'. Received: {str(value)[:80]!r}."
        )
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    defaults = {"special": isinstance(value, str), "normalized": False}
    return AddedToken(
        properties["content"],
        **{flag: properties.get(flag, defaults.get(flag, False)) is True for flag in flags},
    )


def _is_text(added: AddedToken | None, content: str) -> bool:
    """Whether a token stays text, though a configuration lists it among those without a role.

    transformers lists what it found added to a vocabulary, line ends and HTML tags included, and
    itself goes by what the vocabulary says of them. That a turn begins is no text, though.
    """
    return added is not None and not added.special and not looks_special(content)


def _special(token: AddedToken) -> AddedToken:
    return AddedToken(
        token.content,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=True,
    )


def _extra_special_tokens(config: Mapping[str, Any]) -> Iterator[AddedToken]:
    for key in ("additional_special_tokens", "extra_special_tokens"):
        tokens = config.get(key) or []
        if isinstance(tokens, dict):
            tokens = list(tokens.values())
        for token in tokens if isinstance(tokens, list) else [tokens]:
            yield _added_token(token, key)


def _added_tokens(config: Mapping[str, Any], file: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Return the added tokens of tokenizer_config.json (id -> token) and of the older file."""
    tokens = {}
    for token, id in file.items():
        tokens[_id(id, _ADDED_TOKENS_FILE)] = AddedToken(token, special=False, normalized=True)
    decoder = _optional(config, "added_tokens_decoder", dict) or {}
    for id, token in decoder.items():
        number = int(id) if id.isdecimal() and len(id) < 10 else id
        tokens[_id(number, "added_tokens_decoder")] = _added_token(token, "added_tokens_decoder")
    return tokens


def _end_token_ids(config: Mapping[str, Any], key: str) -> tuple[int, ...]:
    value = config.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(_id(id, key) for id in ids)


def _id(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise PresetError(
            f"A token id in {name!r} must be an integer from 0. Received: {str(value)[:80]!r}."
        )
    return value


def _chat_template(source: PresetSource, config: Mapping[str, Any]) -> str | None:
    """Return the chat template; the file goes before the configuration, as in transformers.

    Where the configuration has several, the one that is named "default" is for conversations.
    """
    path = source.find(CHAT_TEMPLATE)
    if path is not None:
        return read_text(path, _MAX_TEMPLATE_BYTES)
    template = config.get("chat_template")
    if isinstance(template, list):
        named = (entry for entry in template if isinstance(entry, dict))
        default = (entry for entry in named if entry.get("name") == "default")
        template = next(default, {}).get("template")
    return template
