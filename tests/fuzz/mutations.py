"""Valid files made wrong: their bytes, numbers, lines and JSON values, changed a little."""

import copy
import json
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

from sentence_piece_models import varint

Mutation = Callable[[bytes, random.Random], bytes]

MAX_BYTES = 1 << 20

_EXTREMES = [0, 1, 2, 7, 8, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**20, 2**31 - 1, 2**31]
_EXTREMES += [2**32 - 1, 2**32, 2**53, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
_VALUES: list[Any] = [None, True, False, 0, 1, -1, 2, 3, 255, 257, 2**31, 2**63, -(2**63), 10**30]
_VALUES += [0.5, -0.0, 1e-320, 1e308, "", " ", "a", "\0", "é", "\ufffd", "<0x-1>", "<0x41>", "▁"]
_VALUES += ["../x", "/etc/passwd", "https://127.0.0.1/x", "a" * 5000, "(a+)+$", "{{ 0 }}", "[" * 90]
_VALUES += [[], {}, [[]], [None], [0, 1], ["a", "a"], {"": None}, {"type": "Sequence"}]


def mutated(data: bytes, kinds: tuple[Mutation, ...], chance: random.Random) -> bytes:
    """Return a file with a few changes, each of one of the given kinds."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        data = chance.choice(kinds)(data, chance)[:MAX_BYTES]
    return data


def change_bytes(data: bytes, chance: random.Random) -> bytes:
    """Overwrite, insert, drop, repeat or move a few bytes, or cut the file."""
    start = chance.randrange(len(data) + 1)
    stop = min(len(data), start + chance.choice((1, 1, 2, 4, 8, 32, 200)))
    part, noise = data[start:stop], chance.randbytes(chance.choice((1, 1, 2, 4, 9)))
    match chance.randrange(7):
        case 0:
            return data[:start] + noise + data[start + len(noise) :]
        case 1:
            return data[:start] + noise + data[start:]
        case 2:
            return data[:start] + data[stop:]
        case 3:
            return data[:start] + part * chance.choice((2, 3, 50)) + data[stop:]
        case 4:
            at = chance.randrange(len(data) + 1)
            return data[:at] + part + data[at:]
        case 5:
            return data[:start]
        case _:
            flipped = bytes(byte ^ 1 << chance.randrange(8) for byte in part)
            return data[:start] + flipped + data[stop:]


def change_word(data: bytes, chance: random.Random) -> bytes:
    """Write an extreme number over four or eight bytes: counts, lengths, offsets, shapes."""
    size, code = chance.choice(((4, "<I"), (8, "<Q"), (2, "<H")))
    number = struct.pack(code, chance.choice(_EXTREMES) % 256**size)
    # What tells sizes is at the front of most files.
    at = chance.randrange(len(data) + 1 if chance.random() < 0.5 else min(len(data), 400) + 1)
    return data[:at] + number + data[at + size :]


def change_varint(data: bytes, chance: random.Random) -> bytes:
    """Write an extreme number over a number of variable length, as protocol buffers have them."""
    start = stop = chance.randrange(len(data) + 1)
    while stop < len(data) and data[stop] > 0x7F:
        stop += 1
    return data[:start] + varint(chance.choice(_EXTREMES)) + data[stop + 1 :]


def change_message(data: bytes, chance: random.Random) -> bytes:
    """Drop, repeat, swap or change fields of a protocol buffer; their lengths stay right."""
    fields = list(_fields(data))
    if not fields:
        return change_bytes(data, chance)
    # The pieces of a vocabulary come first, and are many.
    few = chance.random() < 0.5
    one = chance.randrange(max(len(fields) - 4, 0) if few else 0, len(fields))
    number, value = fields[one]
    match chance.randrange(6):
        case 0:
            del fields[one]
        case 1:
            fields.insert(chance.randrange(len(fields) + 1), fields[one])
        case 2:
            other = chance.randrange(len(fields))
            fields[one], fields[other] = fields[other], fields[one]
        case 3 | 4 if isinstance(value, bytes):
            fields[one] = (number, change_message(value, chance))
        case _ if isinstance(value, bytes):
            fields[one] = (number, change_bytes(value, chance))
        case _:
            fields[one] = (number, chance.choice(_EXTREMES))
    return b"".join(map(_field, fields))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield key and value of every field of a protocol buffer, as far as it is one."""
    at = 0
    while at < len(data):
        key, at = _number(data, at)
        match key & 7:
            case 0:
                value: int | bytes
                value, at = _number(data, at)
            case 2:
                length, at = _number(data, at)
                value, at = data[at : at + length], at + length
            case 5:
                value, at = data[at : at + 4], at + 4
            case _:
                return
        yield key, value


def _number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            break
    return value, at


def _field(field: tuple[int, int | bytes]) -> bytes:
    key, value = field
    if isinstance(value, int):
        return varint(key & ~7) + varint(value)
    return varint(key) + (varint(len(value)) if key & 7 == 2 else b"") + value


def change_lines(data: bytes, chance: random.Random) -> bytes:
    """Drop, repeat, swap, join or change lines."""
    lines = data.split(b"\n")
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    match chance.randrange(5):
        case 0:
            del lines[one]
        case 1:
            lines.insert(other, lines[one])
        case 2:
            lines[one], lines[other] = lines[other], lines[one]
        case 3:
            lines[one : one + 2] = [b" ".join(lines[one : one + 2])]
        case _:
            words = lines[one].split(b" ")
            place = chance.randrange(len(words))
            words[place] = str(chance.choice(_VALUES)).encode()
            lines[one] = b" ".join(words)
    return b"\n".join(lines)


def change_json(data: bytes, chance: random.Random) -> bytes:
    """Change a value or key somewhere in a JSON file; in a file that is none, bytes."""
    try:
        document = [json.loads(data)]
    except (ValueError, RecursionError):
        return change_bytes(data, chance)
    _change_document(document, chance)
    return json.dumps(document[0], ensure_ascii=False).encode("utf-8", "surrogatepass")


def change_json_header(data: bytes, chance: random.Random) -> bytes:
    """Change the header of a safetensors file, and mostly its length with it."""
    length = int.from_bytes(data[:8], "little")
    header = change_json(data[8 : 8 + length], chance)
    if chance.random() < 0.9:
        length = len(header)
    return struct.pack("<Q", length % 2**64) + header + data[8 + length :]


def _change_document(document: list[Any], chance: random.Random) -> None:
    """Change something in the one item of a list."""
    places = list(_places(document))
    # First a kind of place: a vocabulary has more entries than all the rest of a file.
    depth = chance.choice(sorted({depth for depth, _, _ in places}))
    _, parent, key = chance.choice([place for place in places if place[0] == depth])
    value = parent[key]
    match chance.randrange(8):
        case 0 | 1:
            parent[key] = copy.deepcopy(chance.choice(_VALUES))
        case 2:
            _, other_parent, other_key = chance.choice(places)
            parent[key] = copy.deepcopy(other_parent[other_key])
        case 3 if depth:
            del parent[key]
        case 4 if isinstance(parent, dict):
            parent[str(chance.choice(_VALUES))[:200]] = parent.pop(key)
        case 5 if isinstance(parent, list) and depth:
            parent[key:key] = [value] * chance.choice((1, 2, 40))
        case 6:
            parent[key] = [value] if chance.random() < 0.5 else {"type": "Sequence", "a": value}
        case _:
            parent[key] = _altered(value, chance)


def _altered(value: Any, chance: random.Random) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return chance.choice((value + 1, value - 1, -value, value * 2, value << 32))
        case float():
            return chance.choice((-value, value * 1e30, 0.0, str(value)))
        case str():
            data = change_bytes(value.encode("utf-8", "surrogatepass"), chance)
            return data.decode("utf-8", "replace")
    return copy.deepcopy(chance.choice(_VALUES))


def _places(document: list[Any]) -> Iterator[tuple[int, Any, Any]]:
    """Yield depth, container and key of every value in a document."""
    waiting: list[tuple[int, Any]] = [(0, document)]
    while waiting:
        depth, container = waiting.pop()
        keys = container if isinstance(container, dict) else range(len(container))
        for key in list(keys):
            yield depth, container, key
            if isinstance(container[key], dict | list):
                waiting.append((depth + 1, container[key]))
