"""Mistral's tekken.json, against transformers' converter of it."""

import copy
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from transformers.integrations.mistral.tokenizer import MistralConverter

from nextword.errors import PresetError
from nextword.tokenizers import BytePairTokenizer, load_tokenizer, tekken_files
from nextword.tokenizers.pre_tokenizers import split_rules
from nextword.tokenizers.spelling import byte_level_alphabet
from trained_tokenizers import byte_level_library, checkpoint

SPECIAL = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<pad>"]
NUM_SPECIAL = 10
BEYOND = 7  # tokens of the file that are not in the vocabulary


@pytest.fixture(scope="module")
def content(training_text: list[str]) -> dict[str, Any]:
    library = byte_level_library("gpt-2", training_text)
    spelled = {character: byte for byte, character in byte_level_alphabet().items()}
    tokens = [bytes(spelled[c] for c in library.id_to_token(id)) for id in range(3, 600)]
    return {
        "config": {
            "pattern": split_rules("tekken").steps[0],
            "num_vocab_tokens": len(tokens),
            "default_vocab_size": NUM_SPECIAL + len(tokens) - BEYOND,
            "default_num_special_tokens": NUM_SPECIAL,
            "version": "v7",
        },
        "vocab": [
            {"rank": i, "token_bytes": b64encode(token).decode(), "token_str": None}
            for i, token in enumerate(tokens)
        ],
        "special_tokens": [
            {"rank": i, "token_str": token, "is_control": True} for i, token in enumerate(SPECIAL)
        ],
    }


def written(content: Any, directory: Path) -> Path:
    path = directory / "tekken.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("pattern", [None, r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"])
def test_ids_are_those_of_transformers(
    content: dict[str, Any], pattern: str | None, corpus: list[str], tmp_path: Path
) -> None:
    if pattern is not None:
        content = content | {"config": content["config"] | {"pattern": pattern}}
    path = written(content, tmp_path)
    theirs = MistralConverter(str(path)).converted()
    ours = load_tokenizer(checkpoint(tmp_path))
    assert isinstance(ours, BytePairTokenizer)
    assert ours.vocabulary_size() == theirs.get_vocab_size() == NUM_SPECIAL + 597 - BEYOND
    ids = ours.tokenize(corpus, parse_special=True)
    assert ids == [row.ids for row in theirs.encode_batch(corpus, add_special_tokens=False)]
    assert len({id for row in ids for id in row}) > 200
    assert [ours.detokenize(row) for row in ids[:200]] == theirs.decode_batch(ids[:200])


def test_special_tokens(content: dict[str, Any], tmp_path: Path) -> None:
    ours = BytePairTokenizer.from_tekken(written(content, tmp_path))
    assert ours.tokenize("[INST]<SPECIAL_9></s>", parse_special=True) == [3, 9, 2]
    assert not set(ours.tokenize("[INST]<SPECIAL_9></s>")) & set(range(NUM_SPECIAL))
    assert (ours.start_token_id, ours.end_token_id, ours.pad_token_id) == (1, 2, 5)
    assert ours.add_start_token


def test_what_the_files_beside_it_say(content: dict[str, Any], tmp_path: Path) -> None:
    written(content, tmp_path)
    config = {"eos_token": "[/INST]", "add_bos_token": False, "tokenizer_class": "LlamaTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = load_tokenizer(checkpoint(tmp_path))
    assert (ours.start_token_id, ours.end_token_id, ours.add_start_token) == (1, 4, False)


def test_it_is_saved_and_read_again(
    content: dict[str, Any], corpus: list[str], tmp_path: Path
) -> None:
    ours: Any = BytePairTokenizer.from_tekken(written(content, tmp_path))
    ours.save_assets(tmp_path)
    again = BytePairTokenizer.from_assets(ours.get_config(), tmp_path)
    assert again.tokenize(corpus, parse_special=True) == ours.tokenize(corpus, parse_special=True)
    assert ours.gguf_vocabulary()["pre"] == "tekken"


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (["config"], None, "no 'config' with a 'pattern'"),
        (["config", "pattern"], 5, "no 'config' with a 'pattern'"),
        (["config", "pattern"], "(", "pre_tokenizer in the tokenizer.json of .* cannot be used"),
        (["config", "pattern"], "a" * 5000, "a string of 5000 characters"),
        (["config", "default_vocab_size"], -1, "'default_vocab_size'.*Received: -1"),
        (["config", "default_vocab_size"], 100, "must have a token for every byte"),
        (["config", "default_num_special_tokens"], 3, "6 special tokens, and room for 3"),
        (["config", "default_num_special_tokens"], 1 << 40, "integer from 0 to 65536"),
        (["special_tokens"], None, "no list of 'special_tokens'"),
        (["special_tokens", 0], "<unk>", "'<unk>' is no special token"),
        (["special_tokens", 1, "rank"], 0, "ranks of its special tokens are not 0, 1, 2"),
        (["special_tokens", 1, "token_str"], "", "is no special token"),
        (["special_tokens", 1, "token_str"], "<unk>", "'<unk>' .*has another id"),
        (["vocab"], {}, "entry 0 of 'vocab' is no new token"),
        (["vocab", 300], None, "entry 300 of 'vocab' is no new token of 1 to 512 bytes"),
        (["vocab", 300, "rank"], 7, "entry 300 of 'vocab'"),
        (["vocab", 300, "token_bytes"], "YQ==", "entry 300 of 'vocab' is no new token"),
        (["vocab", 300, "token_bytes"], "", "entry 300 of 'vocab'"),
        (["vocab", 300, "token_bytes"], "é", "entry 300 of 'vocab'"),
        (["vocab", 300, "token_bytes"], "YW" * 400, "entry 300 of 'vocab'"),
    ],
)
def test_damaged_files_are_refused(
    content: dict[str, Any], place: list[Any], value: Any, message: str, tmp_path: Path
) -> None:
    content = copy.deepcopy(content)
    inside: Any = content
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    with pytest.raises(PresetError, match=message) as caught:
        BytePairTokenizer.from_tekken(written(content, tmp_path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_sizes_are_bounded(
    content: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(content, tmp_path)
    monkeypatch.setattr(tekken_files, "_MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(PresetError, match="at most .* bytes"):
        BytePairTokenizer.from_tekken(path)
