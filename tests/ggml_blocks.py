"""What quantised blocks mean, one number at a time and in float64, by each format's definition.

The definitions are ggml's block structures:
https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
"""

import numpy as np

IQ4_NL_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def half(block: bytes, at: int) -> float:
    return float(np.frombuffer(block, "<f2", 1, at)[0])


def int8(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def nibbles(block: bytes) -> list[int]:
    """32 values of 4 bits: the low halves of 16 bytes, then the high halves."""
    return [byte & 15 for byte in block] + [byte >> 4 for byte in block]


def fifth_bits(block: bytes) -> list[int]:
    word = int.from_bytes(block, "little")
    return [(word >> i & 1) << 4 for i in range(32)]


def q4_0(b):
    return [half(b, 0) * (q - 8) for q in nibbles(b[2:])]


def q4_1(b):
    return [half(b, 0) * q + half(b, 2) for q in nibbles(b[4:])]


def q5_0(b):
    pairs = zip(nibbles(b[6:]), fifth_bits(b[2:6]), strict=True)
    return [half(b, 0) * ((low | high) - 16) for low, high in pairs]


def q5_1(b):
    pairs = zip(nibbles(b[8:]), fifth_bits(b[4:8]), strict=True)
    return [half(b, 0) * (low | high) + half(b, 2) for low, high in pairs]


def q8_0(b):
    return [half(b, 0) * int8(byte) for byte in b[2:]]


def iq4_nl(b):
    return [half(b, 0) * IQ4_NL_VALUES[q] for q in nibbles(b[2:])]


def q2_k(b):
    scales, qs, d, dmin = b[:16], b[16:80], half(b, 80), half(b, 82)
    values = []
    for i in range(256):
        part, shift, byte = i // 128, i % 128 // 32 * 2, i % 32
        scale = scales[i // 16]
        quant = qs[32 * part + byte] >> shift & 3
        values.append(d * (scale & 15) * quant - dmin * (scale >> 4))
    return values


def q3_k(b):
    mask, qs, packed, d = b[:32], b[32:96], b[96:108], half(b, 108)
    values = []
    for i in range(256):
        j = i // 16
        low = packed[j] & 15 if j < 8 else packed[j - 8] >> 4
        scale = (low | (packed[8 + j % 4] >> 2 * (j // 4) & 3) << 4) - 32
        part, shift, byte = i // 128, i % 128 // 32 * 2, i % 32
        quant = qs[32 * part + byte] >> shift & 3
        if not mask[byte] >> i // 32 & 1:
            quant -= 4
        values.append(d * scale * quant)
    return values


def scale_and_minimum(packed: bytes, j: int) -> tuple[int, int]:
    """The 6-bit scale and minimum of the j-th of eight groups, packed into 12 bytes."""
    if j < 4:
        return packed[j] & 63, packed[j + 4] & 63
    return (
        packed[j + 4] & 15 | packed[j - 4] >> 6 << 4,
        packed[j + 4] >> 4 | packed[j] >> 6 << 4,
    )


def q4_k(b):
    d, dmin, packed, qs = half(b, 0), half(b, 2), b[4:16], b[16:144]
    values = []
    for i in range(256):
        scale, minimum = scale_and_minimum(packed, i // 32)
        quant = qs[i // 64 * 32 + i % 32] >> 4 * (i // 32 % 2) & 15
        values.append(d * scale * quant - dmin * minimum)
    return values


def q5_k(b):
    d, dmin, packed, high, qs = half(b, 0), half(b, 2), b[4:16], b[16:48], b[48:176]
    values = []
    for i in range(256):
        scale, minimum = scale_and_minimum(packed, i // 32)
        quant = qs[i // 64 * 32 + i % 32] >> 4 * (i // 32 % 2) & 15
        quant |= (high[i % 32] >> i // 32 & 1) << 4
        values.append(d * scale * quant - dmin * minimum)
    return values


def q6_k(b):
    low, high, scales, d = b[:128], b[128:192], b[192:208], half(b, 208)
    values = []
    for i in range(256):
        part, quarter, byte = i // 128, i % 128 // 32, i % 32
        quant = low[64 * part + 32 * (quarter % 2) + byte] >> 4 * (quarter // 2) & 15
        quant |= (high[32 * part + byte] >> 2 * quarter & 3) << 4
        values.append(d * int8(scales[i // 16]) * (quant - 32))
    return values


MXFP4_VALUES = (0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6)


def mxfp4(b):
    return [2.0 ** (b[0] - 127) * MXFP4_VALUES[q] for q in nibbles(b[1:])]


# type: (bytes of a block, where its half-precision scales are, its meaning)
FORMATS = {
    "Q4_0": (18, (0,), q4_0),
    "Q4_1": (20, (0, 2), q4_1),
    "Q5_0": (22, (0,), q5_0),
    "Q5_1": (24, (0, 2), q5_1),
    "Q8_0": (34, (0,), q8_0),
    "IQ4_NL": (18, (0,), iq4_nl),
    "MXFP4": (17, (), mxfp4),
    "Q2_K": (84, (80, 82), q2_k),
    "Q3_K": (110, (108,), q3_k),
    "Q4_K": (144, (0, 2), q4_k),
    "Q5_K": (176, (0, 2), q5_k),
    "Q6_K": (210, (208,), q6_k),
}


def random_rows(kind: str, rows: int, blocks: int, seed: int) -> np.ndarray:
    """Return uint8 `[rows, bytes of a row]`: blocks of random bytes, with sensible scales."""
    size, scales, _ = FORMATS[kind]
    random = np.random.default_rng(seed)
    data = random.integers(0, 256, (rows * blocks, size), dtype=np.uint8)
    for at in scales:
        values = random.normal(0, 0.05, rows * blocks).astype("<f2")
        data[:, at : at + 2] = values[:, None].view(np.uint8)
    if kind == "MXFP4":  # whose scales are exponents
        data[:, 0] = random.integers(117, 127, rows * blocks)
    return data.reshape(rows, blocks * size)


def meaning(kind: str, data: np.ndarray) -> np.ndarray:
    """Return what rows of blocks mean, float64 `[rows, elements of a row]`."""
    size, _, formula = FORMATS[kind]
    blocks = data.reshape(-1, size)
    return np.array([formula(block.tobytes()) for block in blocks]).reshape(len(data), -1)
