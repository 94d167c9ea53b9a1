"""The files beside a vocabulary that make a saved tokenizer exact, in transformers' format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOKENIZER_JSON = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SENTENCE_PIECE_PROTO = "vocabulary.spm"
CHAT_TEMPLATE = "chat_template.jinja"
TOKENIZER_MODEL = "tokenizer.model"
# Not one of transformers': all the ids that end a turn or a text.
END_TOKEN_IDS = "end_token_ids"

CONFIGURATION_FILES = (TOKENIZER_CONFIG, CHAT_TEMPLATE)
# Those that transformers may find a tokenizer in.
TRANSFORMERS_FILES = (
    *(TOKENIZER_JSON, TOKENIZER_CONFIG, CHAT_TEMPLATE, TOKENIZER_MODEL),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt"),
)


def write_configuration(
    directory: Path,
    *,
    roles: Mapping[str, str],
    chat_template: str | None,
    further: Mapping[str, Any],
) -> None:
    """Write a tokenizer_config.json and a chat_template.jinja.

    `read_tokenizer_config` reads them.

    Args:
        directory: where to write them.
        roles: role, for example "eos_token" -> token.
        chat_template: the source of the chat template; without one there is no such file.
        further: more keys for tokenizer_config.json.
    """
    write_json(directory / TOKENIZER_CONFIG, {**roles, **further})
    if chat_template is None:
        (directory / CHAT_TEMPLATE).unlink(missing_ok=True)
    else:
        write_text(directory / CHAT_TEMPLATE, chat_template)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, in UTF-8."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1))


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, its line ends as they are."""
    path.write_text(text, encoding="utf-8", newline="")
