"""SentencePiece model files: read with checks, and written.

A model is a protocol buffer (`ModelProto` of sentencepiece_model.proto). It is read here, before
the `sentencepiece` library sees it: the library trusts the tables that normalise text, and does not
tell which pieces are user-defined.
"""

import math
import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

import numpy as np

from nextword.errors import PresetError

MAX_PIECES = 1 << 22
_MAX_SURFACE = 256
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE_SIZES = {_FIXED64: 8, _FIXED32: 4}

# Numbers of fields: of the model, ...
_PIECE, _TRAINER, _NORMALIZER, _DENORMALIZER = 1, 2, 3, 5
# ... of the trainer's settings, ...
_MODEL_TYPE, _SUFFIX_SPACES, _BYTE_FALLBACK, _UNKNOWN_SURFACE = 3, 24, 35, 44
# ... and of the normalizer's.
_CHARS_MAP, _DUMMY_PREFIX, _NO_EXTRA_SPACES, _ESCAPE_SPACES = 2, 3, 4, 5

# A piece as every writer spells it: the text and its length, the score, the type unless normal.
_USUAL_PIECE = re.compile(rb"\x0a([\x00-\x7f])(.*)\x15(.{4})(?:\x18([\x00-\x7f]))?", re.DOTALL)
_FLOAT = struct.Struct("<f")

_Member = TypeVar("_Member", bound=IntEnum)


class PieceType(IntEnum):
    """What a piece is; GGUF files use the same numbers for their tokens."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


_PIECE_TYPES = {int(type): type for type in PieceType}


class ModelType(IntEnum):
    """How pieces are found in a text."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its id is its position.

    Attributes:
        text: the piece, with U+2581 for the space.
        score: the higher, the rather it is used.
        type: what it is.
    """

    text: str
    score: float = 0.0
    type: PieceType = PieceType.NORMAL


@dataclass(frozen=True)
class SentencePieceModel:
    """A model, checked.

    Attributes:
        pieces: the vocabulary.
        model_type: how pieces are found in a text.
        byte_fallback: whether characters without a piece become bytes.
        add_dummy_prefix: whether a space is put in front of every text.
        remove_extra_whitespaces: whether spaces at the ends, and repeated ones, are dropped.
        chars_map: how characters are normalised, as the library has compiled it; none where empty.
        data: the protocol buffer.
    """

    pieces: tuple[Piece, ...]
    model_type: ModelType = ModelType.UNIGRAM
    byte_fallback: bool = False
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    chars_map: bytes = field(default=b"", repr=False)
    data: bytes = field(default=b"", repr=False)

    @classmethod
    def parse(cls, data: bytes, name: str) -> "SentencePieceModel":
        """Read a model.

        Args:
            data: the protocol buffer.
            name: whose tokenizer it is, for messages.

        Raises:
            PresetError: it is none, damaged, or has settings that are not supported.
        """
        try:
            return cls._parse(data)
        except ValueError as error:
            raise PresetError(
                f"The SentencePiece model of {name!r} cannot be used: {error}."
            ) from error

    @classmethod
    def _parse(cls, data: bytes) -> "SentencePieceModel":
        pieces: list[Piece] = []
        messages: dict[int, dict[int, int | bytes]] = {_TRAINER: {}, _NORMALIZER: {}}
        for number, value, _ in _fields(data):
            if number == _PIECE:
                if len(pieces) >= MAX_PIECES:
                    raise ValueError(f"it has more than {MAX_PIECES:,} pieces")
                pieces.append(_piece(value, len(pieces)))
            elif number in messages:
                messages[number].update(_message(value))
            elif number == _DENORMALIZER and _message(value).get(_CHARS_MAP):
                raise ValueError("a denormalizer is not supported")
        trainer, normalizer = messages[_TRAINER], messages[_NORMALIZER]
        if trainer.get(_SUFFIX_SPACES):
            raise ValueError("spaces as suffixes of words are not supported")
        if not normalizer.get(_ESCAPE_SPACES, 1):
            raise ValueError("pieces with plain spaces are not supported")
        _check_pieces(pieces)
        chars_map = _checked_chars_map(normalizer.get(_CHARS_MAP, b""))
        surface = trainer.get(_UNKNOWN_SURFACE, b"")
        if not isinstance(surface, bytes) or len(surface) > _MAX_SURFACE:
            raise ValueError("the text for unknown characters must be a short string")
        return cls(
            tuple(pieces),
            _member(ModelType, trainer.get(_MODEL_TYPE, ModelType.UNIGRAM), "model type"),
            byte_fallback=bool(trainer.get(_BYTE_FALLBACK, 0)),
            add_dummy_prefix=bool(normalizer.get(_DUMMY_PREFIX, 1)),
            remove_extra_whitespaces=bool(normalizer.get(_NO_EXTRA_SPACES, 1)),
            chars_map=chars_map,
            data=data,
        )

    def serialize(self) -> bytes:
        """Return a protocol buffer with what the attributes say, and nothing else."""
        trainer = _number(_MODEL_TYPE, self.model_type)
        trainer += _number(_BYTE_FALLBACK, self.byte_fallback)
        normalizer = _number(_DUMMY_PREFIX, self.add_dummy_prefix)
        normalizer += _number(_NO_EXTRA_SPACES, self.remove_extra_whitespaces)
        pieces = [_bytes(_PIECE, _piece_message(piece)) for piece in self.pieces]
        return b"".join([*pieces, _bytes(_TRAINER, trainer), _bytes(_NORMALIZER, normalizer)])

    def data_with(self, *, invisible: Collection[int], add_dummy_prefix: bool) -> bytes:
        """Return the protocol buffer with changes.

        Args:
            invisible: ids of pieces that must not be found in a text any more.
            add_dummy_prefix: see the attribute.
        """
        parts, position, end = [], 0, 0
        for number, _, (start, stop) in _fields(self.data) if invisible else ():
            if number != _PIECE:
                continue
            if position in invisible:
                piece = self.pieces[position]
                control = Piece(piece.text, piece.score, PieceType.CONTROL)
                parts += [self.data[end:start], _bytes(_PIECE, _piece_message(control))]
                end = stop
            position += 1
        parts.append(self.data[end:])
        if add_dummy_prefix != self.add_dummy_prefix:
            # A message that comes again is merged with the first.
            parts.append(_bytes(_NORMALIZER, _number(_DUMMY_PREFIX, add_dummy_prefix)))
        return b"".join(parts)


def _piece(data: int | bytes, id: int) -> Piece:
    if not isinstance(data, bytes):
        raise ValueError(f"piece {id} is no message")
    usual = _USUAL_PIECE.fullmatch(data)
    # A model has hundreds of thousands of pieces: this is half the time.
    if usual is not None and usual[1][0] == len(usual[2]):
        text, score, type = usual[2], usual[3], usual[4][0] if usual[4] else PieceType.NORMAL
    else:
        text, score, type = _unusual_piece(_message(data), id)
    try:
        content = text.decode()
    except UnicodeDecodeError:
        raise ValueError(f"piece {id} is not UTF-8") from None
    if type not in _PIECE_TYPES:
        raise ValueError(f"the type of piece {id} is not one that exists")
    return Piece(content, _FLOAT.unpack(score)[0], _PIECE_TYPES[type])


def _unusual_piece(message: dict[int, int | bytes], id: int) -> tuple[bytes, bytes, int]:
    text, score = message.get(1, b""), message.get(2, b"\0\0\0\0")
    type = message.get(3, PieceType.NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or not isinstance(type, int):
        raise ValueError(f"piece {id} is not a text with a score and a type")
    if len(score) != _FLOAT.size:
        raise ValueError(f"the score of piece {id} must be a 32-bit number")
    return text, score, type


def _piece_message(piece: Piece) -> bytes:
    text = _bytes(1, piece.text.encode())
    return text + b"\x15" + _FLOAT.pack(piece.score) + _number(3, piece.type)


def _check_pieces(pieces: list[Piece]) -> None:
    seen: set[str] = set()
    for id, piece in enumerate(pieces):
        if not piece.text or "\0" in piece.text:
            raise ValueError(f"piece {id} must be a text without NUL")
        if piece.text in seen:
            raise ValueError(f"the piece {piece.text[:80]!r} occurs twice")
        seen.add(piece.text)
        if not math.isfinite(piece.score):
            raise ValueError(f"the score of piece {id} must be a finite number")
        if piece.type is PieceType.BYTE:
            byte_of(piece.text)
    unknown = sum(piece.type is PieceType.UNKNOWN for piece in pieces)
    if unknown != 1:
        raise ValueError(f"it must have one piece for unknown characters, and has {unknown}")


def byte_of(text: str) -> int:
    """Return the byte that a piece like `<0x0A>` stands for.

    Raises:
        ValueError: it is spelled differently.
    """
    if len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
        digits = text[3:5]
        if set(digits) <= set("0123456789ABCDEF"):
            return int(digits, 16)
    raise ValueError(f"the piece {text[:80]!r} must be spelled like '<0x0A>' to be a byte")


def _checked_chars_map(chars_map: int | bytes) -> bytes:
    """Return the table by which text is normalised: the library follows it wherever it leads.

    The table is the size of a double-array trie (Aoe, 1989) in bytes, the trie as implemented by
    Darts-clone, and texts that each end in NUL. A unit of the trie holds how far its children lie
    away, or the position of a text.
    """
    if not isinstance(chars_map, bytes):
        raise ValueError("its normalisation table is no bytes")
    if not chars_map:
        return chars_map
    size = int.from_bytes(chars_map[:4], "little") if len(chars_map) > 4 else 0
    texts = chars_map[4 + size :]
    if size % 1024 or not 0 < size < len(chars_map) - 4 or not texts.endswith(b"\0"):
        raise ValueError("its normalisation table has the wrong size")
    units = np.frombuffer(chars_map, "<u4", size // 4, 4).astype(np.int64)
    is_text = units >> 31 == 1
    offsets = (units >> 10) << ((units & (1 << 9)) >> 6)
    # From a unit the way leads to any of the 256 units around its offset.
    reached = (np.arange(len(units)) ^ offsets) | 255
    positions = units & 0x7FFFFFFF
    if (reached[~is_text] >= len(units)).any() or (positions[is_text] >= len(texts)).any():
        raise ValueError("its normalisation table points outside itself")
    return chars_map


def _member(kind: type[_Member], value: int | bytes, what: str) -> _Member:
    if isinstance(value, int) and value in set(kind):
        return kind(value)
    raise ValueError(f"the {what} is not one that exists")


def _message(value: int | bytes) -> dict[int, int | bytes]:
    if not isinstance(value, bytes):
        raise ValueError("a message in it is no message")
    return {number: content for number, content, _ in _fields(value)}


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes, tuple[int, int]]]:
    """Yield number, value and extent of every field of a message."""
    position = 0
    while position < len(data):
        start = position
        key, position = data[position], position + 1
        if key > 0x7F:
            key, position = _read_varint(data, start)
        wire = key & 7
        if wire == _VARINT:
            value, position = _read_varint(data, position)
            yield key >> 3, value, (start, position)
            continue
        if wire == _BYTES:
            length, position = _read_varint(data, position)
        elif wire in _WIRE_SIZES:
            length = _WIRE_SIZES[wire]
        else:
            raise ValueError(f"byte {start} does not begin a field of a protocol buffer")
        stop = position + length
        if stop > len(data):
            raise ValueError("it ends in the middle of a field")
        yield key >> 3, data[position:stop], (start, stop)
        position = stop


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(data):
            raise ValueError("it ends in the middle of a field")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"the number before byte {position} is too long")


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])


def _number(field_number: int, value: int) -> bytes:
    return _varint(field_number << 3 | _VARINT) + _varint(int(value))


def _bytes(field_number: int, value: bytes) -> bytes:
    return _varint(field_number << 3 | _BYTES) + _varint(len(value)) + value
