"""Vocabularies in tiktoken's format: every line is a token in base64 and its rank, which is its id.

There are no merges in such a file. What is joined first is the pair whose bytes together have the
lowest rank, so the ranks tell them all.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from nextword.errors import PresetError
from nextword.presets.file_checks import cannot_read, check_file, not_valid
from nextword.tokenizers.library_models import BytePairModel
from nextword.tokenizers.pre_tokenizers import SplitRules
from nextword.tokenizers.spelling import ByteLevelSpelling, byte_level_alphabet

_EXPECTED = "a vocabulary in tiktoken's format"
_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]{1,9})\r?")
# The largest files there are have a quarter of the bytes and of the merges; the longest tokens,
# runs of spaces, a quarter of the length. A token may be cut in two at each of its bytes.
_MAX_BYTES = 16 * 2**20
MAX_TOKEN = 512
"""The most bytes that a token may have."""
_MAX_MERGES = 1 << 21


def is_tiktoken_file(path: Path) -> bool:
    """Return whether a file begins as one in this format does; it may be anything.

    Args:
        path: the file. `tokenizer.model` is also what models of SentencePiece are called.

    Raises:
        PresetError: it cannot be read.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            line = file.readline(2 * MAX_TOKEN)
    except OSError as error:
        raise cannot_read(path, error) from error
    return _LINE.fullmatch(line.rstrip(b"\n")) is not None


def model_from_tiktoken(path: Path, rules: SplitRules, name: str) -> BytePairModel:
    """Return the byte-level model that a file in tiktoken's format describes.

    Args:
        path: the file, at most 16 MiB.
        rules: how text is split, which the file does not say.
        name: whose tokenizer it is, for messages.

    Raises:
        PresetError: it cannot be read, a line is not as it should be, a token or rank comes twice,
            a token is too long, or a byte is no token.
    """
    return model_from_ranks(
        _read_ranks(path), name, pre_tokenizer=rules.pre_tokenizer(), normalizer=rules.normalizer()
    )


def model_from_ranks(
    ranks: Mapping[bytes, int],
    name: str,
    *,
    pre_tokenizer: PreTokenizer | None,
    normalizer: Normalizer | None = None,
    added_tokens: Mapping[int, AddedToken] | None = None,
) -> BytePairModel:
    """Return the byte-level model in which what has the lowest rank is joined first.

    Args:
        ranks: token -> rank.
        name: whose tokenizer it is, for messages.
        pre_tokenizer: splits text into words.
        normalizer: changes text before that.
        added_tokens: those of the first ids, by id; a token's id is its rank behind them.

    Raises:
        PresetError: a byte is no token, or there are too many ways to join.
    """
    added_tokens = added_tokens or {}
    spelled = byte_level_alphabet()
    for byte in range(256):
        if bytes([byte]) not in ranks:
            raise PresetError(f"The vocabulary of {name!r} must have a token for every byte.")
    spelling = {token: "".join(map(spelled.__getitem__, token)) for token in ranks}
    return BytePairModel(
        vocabulary={spelling[token]: rank + len(added_tokens) for token, rank in ranks.items()},
        merges=[(spelling[left], spelling[right]) for left, right in _merges(ranks, name)],
        added_tokens=added_tokens,
        spelling=ByteLevelSpelling(),
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        # tiktoken looks a whole word up before it joins anything.
        options={"ignore_merges": True},
    )


def _read_ranks(path: Path) -> dict[bytes, int]:
    check_file(path, max_bytes=_MAX_BYTES)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise cannot_read(path, error) from error
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise not_valid(path, _EXPECTED, f"line {number} is no token in base64 and its rank")
        try:
            token = base64.b64decode(match[1], validate=True)
        except binascii.Error:
            raise not_valid(path, _EXPECTED, f"line {number} is not base64") from None
        if not 0 < len(token) <= MAX_TOKEN:
            raise not_valid(
                path, _EXPECTED, f"line {number} has a token of {len(token)} bytes, not 1 to 512"
            )
        if token in ranks:
            raise not_valid(path, _EXPECTED, f"line {number} has a token that came before")
        ranks[token] = int(match[2])
    if len(set(ranks.values())) < len(ranks):
        raise not_valid(path, _EXPECTED, "two tokens have the same rank")
    return ranks


def _merges(ranks: Mapping[bytes, int], name: str) -> list[tuple[bytes, bytes]]:
    """Return the pairs that make a token, in the order of its rank, and of theirs for one token."""
    merges: list[tuple[bytes, bytes]] = []
    for token in sorted(ranks, key=ranks.__getitem__):
        splits = ((token[:at], token[at:]) for at in range(1, len(token)))
        pairs = [(left, right) for left, right in splits if left in ranks and right in ranks]
        merges += sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
        if len(merges) > _MAX_MERGES:
            raise PresetError(
                f"The tokens of {name!r} must be made of others in at most {_MAX_MERGES:,} ways."
            )
    return merges
