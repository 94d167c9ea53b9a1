"""The readers of files that are not trusted: valid presets to spoil, and what is done with them.

A reader passes if what it is given either works or raises `PresetError`, and nothing else.
"""

import contextlib
import json
import shutil
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2.debug  # noqa: F401  # Jinja imports it when a template fails, which is watched
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

import nextword
from fuzz.mutations import (
    Mutation,
    change_bytes,
    change_json,
    change_json_header,
    change_lines,
    change_message,
    change_varint,
    change_word,
)
from ggml_blocks import random_rows
from gguf_files import Blocks, write_gguf
from nextword.presets import open_checkpoint, resolve_preset
from nextword.tokenizers import Tokenizer, load_tokenizer
from sentence_piece_models import train
from trained_tokenizers import (
    ATOMS,
    CHAT_ML,
    byte_fallback_library,
    byte_level_library,
    checkpoint,
    tiktoken_file,
)

# The small vocabularies are trained on these; what is made of the files is used on them, too.
TEXTS = [
    *("", " ", "the quick brown fox jumps over the lazy dog", "a\0b\n\n\t 1234567 x=f(y) "),
    *("n\u0303andu\u0301 你好 \U0001f469\u200d\U0001f467 \ufeff▁ Ġ </s> <0x0A>", "a" * 300),
    "<|im_start|>user\nhi<|im_end|>\n",
]


_TRAINING_TEXTS = [*TEXTS, *ATOMS * 3, Path(__file__).read_text(encoding="utf-8")]


@dataclass(frozen=True)
class Reader:
    """One way into nextword for files.

    Attributes:
        about: which files it reads, for people.
        write: writes valid presets below a directory, and returns the paths by which they are
            opened: a directory each, or a file.
        mutations: end of a file's name -> what may be changed in it. Other files stay as they are.
        use: reads what is at such a path, and uses it.
    """

    about: str
    write: Callable[[Path], list[Path]]
    mutations: Mapping[str, tuple[Mutation, ...]]
    use: Callable[[Path], None]


def use_checkpoint(path: Path) -> None:
    """Read every tensor, and the tokenizer that is in the same file."""
    opened = open_checkpoint(resolve_preset(path))
    try:
        for name in sorted(opened.tensor_names()):
            assert opened.tensor(name).shape == opened.shape(name)
        assert opened.dtype
        if opened.format == "gguf":
            use_tokenizer(load_tokenizer(opened))
    finally:
        opened.close()


def use_tokenizer_files(path: Path) -> None:
    """Load the tokenizer of a checkpoint, and use it."""
    use_tokenizer(load_tokenizer(checkpoint(path)))


def use_model(path: Path) -> None:
    """Load a model and its tokenizer."""
    lm = nextword.models.CausalLM.from_preset(path)
    if lm.preprocessor is not None:
        use_tokenizer(lm.preprocessor.tokenizer)


def use_tokenizer(tokenizer: Tokenizer) -> None:
    """Call what a tokenizer can do; it must keep its word, or say that the file is to blame."""
    size = tokenizer.vocabulary_size()
    rows = tokenizer.tokenize(TEXTS)
    texts = tokenizer.detokenize(rows)
    for row, text in zip(rows, texts, strict=True):
        assert all(0 <= id < size for id in row)
        decoder = tokenizer.stream_decoder()
        assert "".join(map(decoder.push, row)) + decoder.flush() == text
    tokenizer.detokenize(tokenizer.tokenize(TEXTS, parse_special=True))
    tokenizer.detokenize(range(min(size, 1000)), skip_special_tokens=False)
    tokenizer.get_vocabulary()
    if tokenizer.chat_template is not None:
        messages = [{"role": "user", "content": text} for text in TEXTS[2:4]]
        # A template may refuse a conversation, which is no fault of the file.
        with contextlib.suppress(ValueError):
            tokenizer.encode_chat(messages)


def _write_safetensors(root: Path) -> list[Path]:
    one, sharded = root / "one", root / "sharded"
    for directory in (one, sharded):
        directory.mkdir()
        (directory / "config.json").write_text('{"model_type": "llama"}')
    tensors = {
        "model.norm.weight": np.ones(4, "f4"),
        "half": np.arange(6, dtype="f2").reshape(2, 3),
        "brain": np.ones((2, 2), ml_dtypes.bfloat16),
        "none": np.zeros((0, 3), "f4"),
    }
    save_file(tensors, one / "model.safetensors", {"format": "pt"})
    names = [*tensors]
    shards = {"a.safetensors": names[:2], "b.safetensors": names[2:]}
    for filename, kept in shards.items():
        save_file({name: tensors[name] for name in kept}, sharded / filename)
    places = {name: filename for filename, kept in shards.items() for name in kept}
    index = {"metadata": {"total_size": 60}, "weight_map": places}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    return [one, sharded]


def _write_gguf(root: Path) -> list[Path]:
    tensors = {
        "a": np.arange(6, dtype="f4").reshape(2, 3),
        "b": np.ones((2, 2), ml_dtypes.bfloat16),
        "c": Blocks(random_rows("Q4_K", 1, 1, seed=0), "Q4_K"),
        "d": Blocks(random_rows("Q8_0", 2, 1, seed=0), "Q8_0"),
        "e": np.ones(3, "f2"),
    }
    shared = {"general.architecture": "llama", "llama.block_count": 1, "general.alignment": 32}
    bytes_of = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = ["<|im_start|>", "<|im_end|>", *sorted(bytes_of), "th", "the"]
    byte_level = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": vocabulary,
        "token_type": [3, 3, *[1] * (len(vocabulary) - 2)],
        "merges": ["t h", "th e"],
        "eos_token_id": 1,
        "add_bos_token": False,
    }
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "t", "h", "▁t"]
    sentence_piece = {
        "model": "llama",
        "tokens": pieces,
        "scores": [float(-id) for id in range(len(pieces))],
        "token_type": [2, 3, 3, *[6] * 256, *[1] * 4],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "add_space_prefix": True,
    }
    paths = []
    for name, keys in (("byte-level", byte_level), ("sentence-piece", sentence_piece)):
        metadata = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
        metadata["tokenizer.chat_template"] = CHAT_ML
        paths.append(write_gguf(root / f"{name}.gguf", shared | metadata, tensors))
    return paths


def _write_tokenizer_json(root: Path) -> list[Path]:
    libraries = {
        "byte-level": byte_level_library("llama-bpe", _TRAINING_TEXTS, size=300),
        "byte-fallback": byte_fallback_library(_TRAINING_TEXTS),
        "unigram": _unigram_library(),
        "word-piece": _word_piece_library(),
    }
    for name, library in libraries.items():
        (root / name).mkdir()
        library.save(str(root / name / "tokenizer.json"))
    return [root / name for name in libraries]


def _unigram_library() -> Library:
    library = Library(models.Unigram())
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=400, unk_token="<unk>", special_tokens=["<unk>", "<end>"], show_progress=False
    )
    library.train_from_iterator(_TRAINING_TEXTS, trainer)
    return library


def _word_piece_library() -> Library:
    library = Library(models.WordPiece(unk_token="[UNK]"))
    library.normalizer = BertNormalizer()
    library.pre_tokenizer = BertPreTokenizer()
    library.decoder = decoders.WordPiece()
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=special, show_progress=False)
    library.train_from_iterator(_TRAINING_TEXTS, trainer)
    return library


def _write_sentence_piece(root: Path) -> list[Path]:
    for kind in ("dummy prefix", "no prefix", "unigram"):
        (root / kind).mkdir()
        (root / kind / "tokenizer.model").write_bytes(train(kind, _TRAINING_TEXTS))
    return [root / kind for kind in ("dummy prefix", "no prefix", "unigram")]


def _write_tiktoken(root: Path) -> list[Path]:
    for name, filename in (("a", "tokenizer.model"), ("b", "small.tiktoken")):
        (root / name).mkdir()
        tokens = [
            *(bytes([byte]) for byte in range(256)),
            b"th",
            b"the",
            b" the",
            b"\xe4\xbd",
            b"  ",
        ]
        (root / name / filename).write_bytes(tiktoken_file(tokens))
        config = {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]}
        if name == "b":
            config |= {"tokenizer_class": "QWenTokenizer", "chat_template": CHAT_ML}
        (root / name / "tokenizer_config.json").write_text(json.dumps(config))
    return [root / "a", root / "b"]


def _write_tekken(root: Path) -> list[Path]:
    tokens = [*(bytes([byte]) for byte in range(256)), b"th", b"the", b" the", b"\xe4\xbd", b"  "]
    special = ("<unk>", "<s>", "</s>", "[INST]")
    content = {
        "config": {
            "pattern": r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+",
            "default_vocab_size": 8 + len(tokens),
            "default_num_special_tokens": 8,
            "num_vocab_tokens": len(tokens),
            "version": "v7",
        },
        "vocab": [
            {"rank": rank, "token_bytes": b64encode(token).decode(), "token_str": str(token)}
            for rank, token in enumerate(tokens)
        ],
        "special_tokens": [
            {"rank": i, "token_str": text, "is_control": True} for i, text in enumerate(special)
        ],
        "multimodal": None,
    }
    (root / "a").mkdir()
    (root / "a" / "tekken.json").write_text(json.dumps(content))
    return [root / "a"]


def _write_configurations(root: Path) -> list[Path]:
    byte_pairs, merges, words, pieces = paths = [root / name for name in ("a", "b", "c", "d")]
    for path in paths:
        path.mkdir()
    library = byte_level_library("qwen2", TEXTS, size=280)
    library.save(str(byte_pairs / "tokenizer.json"))
    library.model.save(str(merges))
    vocabulary = _word_piece_library().get_vocab()
    words_in_order = sorted(vocabulary, key=vocabulary.__getitem__)
    (words / "vocab.txt").write_text("\n".join(words_in_order) + "\n", encoding="utf-8")
    (pieces / "tokenizer.model").write_bytes(train("no prefix", _TRAINING_TEXTS))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "bos_token": None,
        "eos_token": {"content": "<|im_end|>", "lstrip": False, "__type": "AddedToken"},
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>"],
        "added_tokens_decoder": {
            "900": {"content": "<think>", "special": False, "lstrip": True, "normalized": True}
        },
        "add_bos_token": False,
        "add_prefix_space": False,
        "chat_template": [{"name": "default", "template": CHAT_ML}],
    }
    for path in (byte_pairs, merges, pieces):
        (path / "tokenizer_config.json").write_text(json.dumps(config))
    (merges / "chat_template.jinja").write_text(
        "{%- macro turn(m) %}{{ m.role | title }}: {{ m['content'].strip() ~ eos_token }}"
        "{% endmacro %}{% set ns = namespace(n=0) %}{% for m in messages if m.content is string %}"
        "{% set ns.n = ns.n + 1 %}{{ turn(m) | replace('a', 'b') }}{{ [m] | tojson(indent=2) }}"
        "{{ '%s' | format(loop.index0) }}{% endfor %}{{ strftime_now('%d') }}"
    )
    (merges / "added_tokens.json").write_text('{"<extra>": 901}')
    (words / "tokenizer_config.json").write_text(
        '{"do_lower_case": true, "strip_accents": null, "tokenize_chinese_chars": true}'
    )
    (words / "special_tokens_map.json").write_text('{"unk_token": "[UNK]", "sep_token": "[SEP]"}')
    return paths


def _write_keras(root: Path) -> list[Path]:
    keras_models = nextword.models
    tokenizer = keras_models.GPT2Tokenizer({"<|endoftext|>": 0, "a": 1, "b": 2, "ab": 3}, ["a b"])
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_dim": 8, "intermediate_dim": 8}
    backbone = keras_models.GPT2Backbone(vocabulary_size=4, max_sequence_length=16, **sizes)
    preprocessor = keras_models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=8)
    keras_models.GPT2CausalLM(backbone, preprocessor).save_to_preset(root / "preset")
    # KerasHub's own files alone, without those that say more.
    shutil.copytree(root / "preset", root / "plain")
    for path in (root / "plain" / "assets" / "tokenizer").iterdir():
        if path.name not in ("vocabulary.json", "merges.txt"):
            path.unlink()
    return [root / "preset", root / "plain"]


_JSON = (change_json, change_json, change_json, change_bytes)
_TEXT = (change_lines, change_bytes)
READERS = {
    "safetensors": Reader(
        "weights in safetensors, single and sharded",
        _write_safetensors,
        {
            ".safetensors": (change_json_header, change_json_header, change_word, change_bytes),
            ".index.json": _JSON,
        },
        use_checkpoint,
    ),
    "gguf": Reader(
        "GGUF: header, tensors in blocks, both kinds of tokenizer",
        _write_gguf,
        {".gguf": (change_word, change_word, change_bytes)},
        use_checkpoint,
    ),
    "tokenizer-json": Reader(
        "tokenizer.json: byte pairs, unigrams, word pieces",
        _write_tokenizer_json,
        {".json": _JSON},
        use_tokenizer_files,
    ),
    "sentencepiece": Reader(
        "tokenizer.model of SentencePiece",
        _write_sentence_piece,
        {".model": (change_message, change_message, change_message, change_varint, change_bytes)},
        use_tokenizer_files,
    ),
    "tiktoken": Reader(
        "vocabularies in tiktoken's format",
        _write_tiktoken,
        {".model": (change_lines, change_lines, change_bytes), ".tiktoken": _TEXT},
        use_tokenizer_files,
    ),
    "tekken": Reader(
        "Mistral's tekken.json",
        _write_tekken,
        {".json": _JSON},
        use_tokenizer_files,
    ),
    "tokenizer-config": Reader(
        "what is beside a vocabulary: tokenizer_config.json, special and added tokens, chat "
        "templates; vocab.json, merges.txt, vocab.txt",
        _write_configurations,
        {
            "config.json": _JSON,
            "map.json": _JSON,
            "added_tokens.json": _JSON,
            "vocab.json": _JSON,
            ".txt": _TEXT,
            ".jinja": _TEXT,
        },
        use_tokenizer_files,
    ),
    "keras": Reader(
        "presets of KerasHub: configurations, HDF5 weights, assets",
        _write_keras,
        {
            ".json": _JSON,
            ".h5": (change_word, change_word, change_bytes),
            ".txt": _TEXT,
            ".jinja": _TEXT,
        },
        use_model,
    ),
}
