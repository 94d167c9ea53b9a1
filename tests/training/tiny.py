"""Eight texts of different lengths: two batches of four."""

TEXTS = [
    "the quick brown fox jumps over the lazy dog",
    "hello",
    "I forgot my homework, again.",
    "hello world",
    "the lazy dog forgot the fox",
    "again",
    "the brown dog, the lazy fox",
    "quick!",
]
