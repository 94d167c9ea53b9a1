"""JSON that is no JSON, or more of it than a machine has memory for, in every file that is read."""

from pathlib import Path

import pytest

import nextword
from attacks.guard import refused
from hostile_json import HOSTILE

ASSETS = "assets/tokenizer"
FILES = {
    "transformers": [
        *("config.json", "generation_config.json", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        *("added_tokens.json", "vocab.json"),
    ],
    "keras": [
        *("config.json", "task.json", "preprocessor.json", "tokenizer.json", "model.weights.json"),
        *(f"{ASSETS}/tokenizer.json", f"{ASSETS}/tokenizer_config.json"),
        f"{ASSETS}/vocabulary.json",
    ],
}
# A file is read where another one is not there.
INSTEAD = {
    "model.safetensors.index.json": "model.safetensors",
    "vocab.json": "tokenizer.json",
    "model.weights.json": "model.weights.h5",
    f"{ASSETS}/vocabulary.json": f"{ASSETS}/tokenizer.json",
}


@pytest.mark.parametrize(
    ("format", "filename"), [(format, name) for format, names in FILES.items() for name in names]
)
def test_every_file(checkpoint: Path, preset: Path, bait: Path, format: str, filename: str) -> None:
    directory = checkpoint if format == "transformers" else preset
    (directory / "merges.txt").write_text("")
    if filename == "vocab.json":
        (directory / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    if filename in INSTEAD:
        (directory / INSTEAD[filename]).unlink()
    load = nextword.models.CausalLM.from_preset
    for content, words in HOSTILE.values():
        (directory / filename).write_bytes(content)
        refused(load, directory, rf"{filename}.*({words})", bait=bait)
    with (directory / filename).open("wb") as file:  # sparse
        file.truncate(2**30)
    refused(load, directory, f"{filename}.* must have at most .*1,073,741,824", memory=2**28)


@pytest.mark.parametrize("piece", [b"[],", '"é",'.encode()])
def test_the_most_that_a_configuration_can_take(checkpoint: Path, piece: bytes) -> None:
    size = 16 * 2**20
    content = b'{"model_type": "llama", "x": [' + piece * ((size - 64) // len(piece)) + b"0]}"
    (checkpoint / "config.json").write_bytes(content)
    refused(nextword.models.Backbone.from_preset, checkpoint, "lacks the key")
