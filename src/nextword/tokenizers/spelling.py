"""Which bytes a token stands for: the spellings that vocabularies use for them."""

import re
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from nextword.errors import PresetError


class Spelling(ABC):
    """How the tokens of a vocabulary spell bytes.

    Attributes:
        leading_spaces: how many spaces in front of every decoded text are an artefact.
    """

    leading_spaces: int = 0

    @abstractmethod
    def token_bytes(self, token: str) -> bytes:
        """Return the bytes that an ordinary token of the vocabulary stands for."""

    @abstractmethod
    def added_token_bytes(self, token: str) -> bytes:
        """Return the bytes of a token that was added to the vocabulary, for example `<|end|>`."""

    @abstractmethod
    def decoder(self) -> dict[str, Any]:
        """Return the `decoder` section of a tokenizer.json that describes the spelling."""


def byte_level_alphabet() -> dict[int, str]:
    """Return the printable character by which byte-level vocabularies spell each byte.

    Printable bytes of Latin-1 stand for themselves; the others, in order, are U+0100 and up. The
    alphabet is that of GPT-2 (Radford et al., 2019).

    Returns:
        256 entries: byte -> character.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + position) for position, byte in enumerate(others)
    }


class ByteLevelSpelling(Spelling):
    """Every character of a token is one byte, in the alphabet of `byte_level_alphabet`."""

    _TO_LATIN_1: ClassVar = {
        ord(character): byte for byte, character in byte_level_alphabet().items()
    }

    def token_bytes(self, token: str) -> bytes:
        # A token outside the alphabet was never made of bytes: it stands for its own characters.
        if any(ord(character) not in self._TO_LATIN_1 for character in token):
            return token.encode()
        return token.translate(self._TO_LATIN_1).encode("latin-1")

    def added_token_bytes(self, token: str) -> bytes:
        return token.encode()

    def decoder(self) -> dict[str, Any]:
        flags = ("add_prefix_space", "trim_offsets", "use_regex")
        return {"type": "ByteLevel", **dict.fromkeys(flags, True)}


class ByteFallbackSpelling(Spelling):
    """Tokens are text, with a stand-in for the space; `<0xE2>` is one byte.

    The spelling of vocabularies that were converted from SentencePiece.

    Args:
        replacements: pairs of a string in the token and what it stands for, applied in turn.
        byte_fallback: whether tokens like `<0xE2>` are bytes.
        leading_spaces: see `Spelling`.
    """

    _BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")

    def __init__(
        self, replacements: list[tuple[str, str]], *, byte_fallback: bool, leading_spaces: int
    ) -> None:
        self.replacements = replacements
        self._byte_fallback = byte_fallback
        self.leading_spaces = leading_spaces

    def token_bytes(self, token: str) -> bytes:
        if self._byte_fallback and (byte := self._BYTE.fullmatch(token)):
            return bytes.fromhex(byte[1])
        return self.added_token_bytes(token)

    def added_token_bytes(self, token: str) -> bytes:
        for pattern, content in self.replacements:
            token = token.replace(pattern, content)
        return token.encode()

    def decoder(self) -> dict[str, Any]:
        steps: list[dict[str, Any]] = [
            {"type": "Replace", "pattern": {"String": pattern}, "content": content}
            for pattern, content in self.replacements
        ]
        if self._byte_fallback:
            steps.append({"type": "ByteFallback"})
        steps.append({"type": "Fuse"})
        if self.leading_spaces:
            strip = {"type": "Strip", "content": " ", "start": self.leading_spaces, "stop": 0}
            steps.append(strip)
        return {"type": "Sequence", "decoders": steps}


class WordPieceSpelling(Spelling):
    """Tokens are words, but for those with a prefix, which go on with a word.

    Args:
        prefix: for example "##".
        cleanup: whether there is no space in front of punctuation and of "n't", "'s" and the like.
    """

    leading_spaces = 1
    _CLOSE = re.compile(r" (?=[.?!,])| (?=n't)| (?='(?:m|s|ve|re))")

    def __init__(self, prefix: str, *, cleanup: bool) -> None:
        self._prefix = prefix
        self._cleanup = cleanup

    def token_bytes(self, token: str) -> bytes:
        if token.startswith(self._prefix):
            return token.removeprefix(self._prefix).encode()
        return self.added_token_bytes(token)

    def added_token_bytes(self, token: str) -> bytes:
        text = f" {token}"
        return (self._CLOSE.sub("", text) if self._cleanup else text).encode()

    def decoder(self) -> dict[str, Any]:
        return {"type": "WordPiece", "prefix": self._prefix, "cleanup": self._cleanup}


def spelling_from_decoder(decoder: Any) -> Spelling:
    """Return the spelling that the `decoder` section of a tokenizer.json describes.

    Args:
        decoder: the parsed section.

    Returns:
        The spelling.

    Raises:
        PresetError: the section describes another way of decoding.
    """
    steps = _steps(decoder)
    match steps:
        case [{"type": "ByteLevel"}]:
            return ByteLevelSpelling()
        case [{"type": "WordPiece", "prefix": str(prefix), "cleanup": bool(cleanup)}]:
            return WordPieceSpelling(prefix, cleanup=cleanup)
        case [{"type": "Metaspace", "replacement": str(space)} as step] if space:
            has_prefix = step.get("prepend_scheme", step.get("add_prefix_space", True))
            return ByteFallbackSpelling(
                [(space, " ")],
                byte_fallback=False,
                leading_spaces=0 if has_prefix in ("never", False) else 1,
            )
    replacements = []
    while steps and steps[0].get("type") == "Replace":
        replacements.append(_replacement(steps.pop(0)))
    byte_fallback = _take(steps, "ByteFallback") is not None
    fused = _take(steps, "Fuse") is not None
    strip = _take(steps, "Strip") if fused else None
    if steps or not replacements:
        raise _unsupported(decoder)
    return ByteFallbackSpelling(
        replacements,
        byte_fallback=byte_fallback,
        leading_spaces=_leading_spaces(strip) if strip is not None else 0,
    )


def _steps(decoder: Any) -> list[dict[str, Any]]:
    is_sequence = isinstance(decoder, dict) and decoder.get("type") == "Sequence"
    steps = decoder.get("decoders") if is_sequence else [decoder]
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise _unsupported(decoder)
    return list(steps)


def _take(steps: list[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    return steps.pop(0) if steps and steps[0].get("type") == kind else None


def _replacement(step: dict[str, Any]) -> tuple[str, str]:
    pattern = step.get("pattern")
    text = pattern.get("String") if isinstance(pattern, dict) else None
    content = step.get("content")
    if not isinstance(text, str) or not text or not isinstance(content, str):
        raise _unsupported(step)
    return text, content


def _leading_spaces(strip: dict[str, Any]) -> int:
    start, stop = strip.get("start"), strip.get("stop")
    if strip.get("content") != " " or type(start) is not int or start < 0 or stop != 0:
        raise _unsupported(strip)
    return start


def _unsupported(decoder: Any) -> PresetError:
    kind = decoder.get("type") if isinstance(decoder, dict) else decoder
    return PresetError(
        "The decoder of a tokenizer.json must be ByteLevel, Metaspace, WordPiece, or Replace, "
        "ByteFallback, Fuse and Strip in this order; others are not supported yet. "
        f"Received: {str(kind)[:80]!r}."
    )
