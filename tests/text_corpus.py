"""Texts with everything that is known to trip tokenizers: always the same ones."""
# ruff: noqa: RUF001  # ambiguous characters are what they are about

import random
import textwrap
from collections.abc import Iterator

from trained_tokenizers import ATOMS

_SPACES = " \t\n\r\f\v\u00a0\u1680\u2000\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
_FORMAT = "\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u2060\u2066\ufeff\u00ad\u061c\u180e\U000e0041"
_CONTROL = "".join(map(chr, [*range(32), *range(127, 160)]))
_MARKS = "\u0300\u0301\u0308\u0327\u0338\u0489\u20dd\u0e31\u0e48\u064b\u0651\u093c\u094d\u3099"
_SCRIPTS = {
    "Latin": "naïve façade Ångström Straße ĳsvogel ǅungla İstanbul ıssız ŉ ﬁn ſo",
    "Greek": "Ο Μένγκε ΑΣ ΐ ᾧ",
    "Cyrillic": "Съешь ещё этих мягких французских булок",
    "Han": "漢字仮名交じり文、中华人民共和国。㐀𠀀豈",
    "kana": "こんにちは世界カタカナｶﾀｶﾅが",
    "Hangul": "안녕하세요 세계 각 ᄒ",
    "Thai": "ภาษาไทยไม่มีช่องว่างน้ำ",
    "Arabic": "السَّلامُ عَلَيْكُم ١٢٣٤ لا ﷺ",
    "Hebrew": "שָׁלוֹם עוֹלָם",
    "Devanagari": "नमस्ते दुनिया क्षत्रिय १२३ ॐ।",
    "Bengali": "আমার সোনার বাংলা",
    "Tamil": "தமிழ் மொழி",
    "Khmer": "ភាសាខ្មែរ",
    "Georgian": "ქართული ᲥᲐᲠᲗᲣᲚᲘ",
    "mathematics": "∀x∈ℝ: ⌈x⌉ ≠ ½ ² ₃ Ⅷ ① 𝔘𝔫𝔦 𝟙 ∑∫√",
    "symbols": "€£¥₿ ©®™ §¶ † ‡ • … — – ‘’ “” «» ′ ″ № ℃ → ⇒ ☃ ♞ ░█",
}
_EMOJI = [
    *(
        "😀",
        "👍🏽",
        "👩‍💻",
        "👩🏿‍🚀",
        "👨‍👩‍👧‍👦",
        "🏳️‍🌈",
        "🏴\U000e0067\U000e0062\U000e007f",
        "🇩🇪🇫🇷",
    ),
    *("❤️", "❤", "1️⃣", "#️⃣", "☺︎", "🧑🏻‍🤝‍🧑🏾", "🫱🏼‍🫲🏿", "\u200d", "\U0001f3fd", "🇩"),
]
_CODE = '''\
def fibonacci(n: int) -> list[int]:
\t"""Return n numbers."""
    a, b = 0, 1
        result = []  # noqa
    while len(result) < n:
\t\tresult.append(a); a, b = b, a + b
    return result[::-1]

#include <stdio.h>
int main(void) {\r\n    printf("%d\\n", 0x1F & ~3);\r\n}
const f = async (x) => { await g(`${x}!`); };   // ok
SELECT * FROM t WHERE a >= 1.5e-10 AND b != 'it''s';
<div class="x">&nbsp;</div> <!-- c --> {% if x %}{{ y }}{% endif %}
$HOME/.bashrc --flag=value | grep -E '^[a-z_]+$' && echo $?
'''
_TOKENS = ["<s>", "</s>", "<unk>", "<pad>", "<bos>", "<eos>", "[INST]", "[/INST]", "[CLS]", "[SEP]"]
_TOKENS += ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|begin_of_text|>"]
_TOKENS += ["<|user|>", "<|end|>", "<|assistant|>", "<start_of_turn>", "<end_of_turn>", "<think>"]
_TOKENS += ["[MASK]", "[UNK]", "<0x0A>", "<0x-1>", "<0xFF>", "▁", "##a", "Ġ", "Ċ", "</w>", "<mask>"]
_URLS = [
    "https://example.org:8080/a/b.html?q=1&r=%20x#top",
    "mailto:jane.doe+tag@mail.example.co.uk",
    "C:\\Users\\x\\file.txt",
    "/usr/lib/python3.11/site-packages/",
    "192.168.0.1",
    "2001:db8::ff00:42:8329",
    "@user #hashtag",
    "d41d8cd98f00b204e9800998ecf8427e",
]
_CONTRACTIONS = "'s 't 're 've 'm 'll 'd 'S 'T 'RE 'VE ’s ’t ʼn n't 'tis 'em o'clock y'all'd've"


def text_corpus() -> list[str]:
    """Return 2,500 texts or so, each once, most of them short."""
    return list(dict.fromkeys(_texts(random.Random(2027))))


def _texts(chance: random.Random) -> Iterator[str]:
    yield ""
    yield from ATOMS
    yield from _CODE.splitlines(keepends=True)
    yield _CODE
    for width in (1, 2, 3, 4, 7, 8, 15, 16, 17):
        yield textwrap.indent(_CODE, " " * width)
        yield textwrap.indent(_CODE, "\t" * width)[: 80 * width]
    for length in (*range(1, 13), 19, 20, 40, 100):
        digits = "".join(chance.choices("0123456789", k=length))
        yield from (digits, f" {digits}", f"{digits}.{digits}", f"-{int(digits):,}", f"a{digits}b")
    for text in (*_SCRIPTS.values(), *_EMOJI, *_TOKENS, *_URLS, *_CONTRACTIONS.split()):
        yield from (text, f" {text}", f"{text} ", f"a{text}", f"{text}b", text * 2, f"  {text}\n")
        yield from (text.upper(), text.title(), text[::-1])
    for character in (*_SPACES, *_FORMAT, *_CONTROL, *_MARKS):
        yield from (character, f"a{character}b", f" {character} ", f"{character * 3}x")
    for length in (1, 2, 3, 5, 8, 16, 33, 100, 257):
        for character in " \t\n\r\u3000":
            yield from (character * length, f"a{character * length}b", f"{character * length}.")
    for length in (63, 64, 100, 101, 255, 1000, 5000):
        yield from ("a" * length, "ab" * length, "é" * length, "好" * length, "-" * length)
    words = _CODE.split()
    parts = [*ATOMS, *_SCRIPTS.values(), *_EMOJI, *_TOKENS, *_CONTRACTIONS.split(), *words]
    parts += [*_SPACES, *_FORMAT, *_MARKS, *_CONTROL[:16]]
    for _ in range(900):
        yield "".join(chance.choices(parts, k=chance.randint(2, 9)))
    for _ in range(300):
        yield " ".join(chance.choices(words, k=chance.randint(2, 12)))
    for _ in range(300):
        codes = chance.choices((0x7F, 0x7FF, 0x2FFF, 0xFFFF, 0x1FFFF, 0x10FFFF), k=6)
        points = [chance.randint(1, code) for code in codes]
        yield "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
