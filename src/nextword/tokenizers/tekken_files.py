"""Vocabularies in Mistral's tekken.json: byte-level tokens by rank, behind the special tokens."""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from nextword.errors import PresetError
from nextword.presets.file_checks import not_valid
from nextword.presets.json_files import read_json
from nextword.tokenizers.library_engine import library_component
from nextword.tokenizers.library_models import BytePairModel
from nextword.tokenizers.tiktoken_files import MAX_TOKEN, model_from_ranks

_EXPECTED = "a tekken.json"
_MAX_BYTES = 64 * 2**20  # three times the largest there is
_MAX_TOKENS, _MAX_SPECIAL = 1 << 24, 1 << 16


def model_from_tekken(path: Path, name: str) -> BytePairModel:
    """Return the byte-level model that a tekken.json describes.

    The first ids are special tokens, those without a name among them; a token's id is its rank
    behind these. Of the tokens that the file lists, a vocabulary may have the first only.

    Args:
        path: the file, at most 64 MiB.
        name: whose tokenizer it is, for messages.

    Raises:
        PresetError: it cannot be read, lacks a part, names a token twice or one that is too long,
            or a byte is no token.
    """
    data = read_json(path, max_bytes=_MAX_BYTES)
    config = data.get("config")
    pattern = config.get("pattern") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(pattern, str):
        raise not_valid(path, _EXPECTED, "it has no 'config' with a 'pattern'")
    special = _special_tokens(data.get("special_tokens"), path)
    num_special = _size(config, "default_num_special_tokens", len(special), _MAX_SPECIAL, path)
    if num_special < len(special):
        raise not_valid(
            path, _EXPECTED, f"it has {len(special)} special tokens, and room for {num_special}"
        )
    special += [f"<SPECIAL_{id}>" for id in range(len(special), num_special)]
    ranks = _ranks(data.get("vocab"), path)
    size = _size(config, "default_vocab_size", num_special + len(ranks), _MAX_TOKENS, path)
    kept = {token: rank for token, rank in ranks.items() if rank < size - num_special}
    steps = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ]
    return model_from_ranks(
        kept,
        name,
        pre_tokenizer=library_component(
            "pre_tokenizer", {"type": "Sequence", "pretokenizers": steps}, name
        ),
        added_tokens={
            id: AddedToken(token, special=True, normalized=False)
            for id, token in enumerate(special)
        },
    )


def _special_tokens(entries: Any, path: Path) -> list[str]:
    """Return the special tokens in the order of their ids."""
    if not isinstance(entries, list):
        raise not_valid(
            path, _EXPECTED, "it has no list of 'special_tokens', as the first such files"
        )
    tokens: dict[int, str] = {}
    for entry in entries:
        match entry:
            case {"rank": int(rank), "token_str": str(token)} if token:
                tokens[rank] = token
            case _:
                raise not_valid(path, _EXPECTED, f"{entry!r:.80} is no special token")
    if sorted(tokens) != [*range(len(entries))]:
        raise not_valid(path, _EXPECTED, "the ranks of its special tokens are not 0, 1, 2, …")
    return [tokens[rank] for rank in range(len(tokens))]


def _ranks(entries: Any, path: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for rank, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        match entry:
            case {"rank": int(given), "token_bytes": str(text)} if given == rank:
                token = _token(text)
            case _:
                token = b""
        if not 0 < len(token) <= MAX_TOKEN or token in ranks:
            raise not_valid(
                path,
                _EXPECTED,
                f"entry {rank} of 'vocab' is no new token of 1 to {MAX_TOKEN} bytes with its rank",
            )
        ranks[token] = rank
    return ranks


def _token(text: str) -> bytes:
    """Return what stands there in base64, nothing where it is none."""
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # the latter where there are other letters than ASCII's
        return b""


def _size(config: Mapping[str, Any], key: str, default: int, maximum: int, path: Path) -> int:
    value = config.get(key)
    if value is None:
        return default
    if type(value) is not int or not 0 <= value <= maximum:
        raise PresetError(
            f"{key!r} in {path.name} must be an integer from 0 to {maximum}. Received: "
            f"{value!r:.80}."
        )
    return value
