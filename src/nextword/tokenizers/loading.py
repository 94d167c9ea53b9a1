"""The tokenizer of a checkpoint, whatever files it comes in."""

from typing import Any

from nextword.errors import PresetError
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.sources import PresetSource
from nextword.tokenizers.assets import TOKENIZER_JSON, TOKENIZER_MODEL
from nextword.tokenizers.byte_pair import BytePairTokenizer
from nextword.tokenizers.gguf_vocabulary import GGUFSentencePieces, GGUFWordPieces
from nextword.tokenizers.library_tokenizer import LibraryTokenizer
from nextword.tokenizers.sentence_piece import SentencePieceTokenizer
from nextword.tokenizers.tiktoken_files import is_tiktoken_file
from nextword.tokenizers.tokenizer import Tokenizer
from nextword.tokenizers.tokenizer_config import read_tokenizer_config
from nextword.tokenizers.word_piece import WordPieceTokenizer

_VOCABULARY, _MERGES = "vocab.json", "merges.txt"
_WORDS = "vocab.txt"
_SENTENCE_PIECE = (TOKENIZER_MODEL, "spiece.model", "sentencepiece.bpe.model")
_TEKKEN = "tekken.json"
_TIKTOKEN = ("tiktoken.model", "qwen.tiktoken")


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Return the tokenizer that belongs to a checkpoint.

    Args:
        checkpoint: an open checkpoint. A GGUF file has its tokenizer inside; beside a transformers
            checkpoint there is a tokenizer.json, a vocab.json and a merges.txt, a
            tokenizer.model (of SentencePiece or tiktoken), a tekken.json, a file in tiktoken's
            format, or a vocab.txt.

    Returns:
        The tokenizer.

    Raises:
        PresetError: there is none, it is of a kind that is not supported yet, or it is damaged.
    """
    if checkpoint.format == "gguf":
        gguf: Any = checkpoint
        data = gguf.tokenizer_data
        kind = data.get("tokenizer.ggml.model")
        if kind == GGUFSentencePieces.kind:
            return SentencePieceTokenizer.from_gguf(data, name=checkpoint.name)
        if kind == GGUFWordPieces.kind:
            return WordPieceTokenizer.from_gguf(data, name=checkpoint.name)
        return BytePairTokenizer.from_gguf(data, name=checkpoint.name)
    transformers: Any = checkpoint
    return _from_files(transformers.source, transformers.generation_config, checkpoint.name)


def _from_files(source: PresetSource, generation_config: Any, name: str) -> Tokenizer:
    tokenizer_json = source.find(TOKENIZER_JSON)
    if tokenizer_json is not None:
        config = read_tokenizer_config(source, generation_config)
        return LibraryTokenizer.from_tokenizer_json(tokenizer_json, config, name=name)
    vocabulary = source.find(_VOCABULARY)
    merges = source.find(_MERGES) if vocabulary is not None else None
    if vocabulary is not None and merges is not None:
        config = read_tokenizer_config(source, generation_config)
        return BytePairTokenizer.from_vocabulary_and_merges(vocabulary, merges, config, name=name)
    for filename in _SENTENCE_PIECE:
        path = source.find(filename)
        if path is not None:
            config = read_tokenizer_config(source, generation_config)
            if is_tiktoken_file(path):
                return BytePairTokenizer.from_tiktoken(path, config, name=name)
            return SentencePieceTokenizer.from_proto(path, config, name=name)
    words = source.find(_WORDS)
    if words is not None:
        config = read_tokenizer_config(source, generation_config)
        return WordPieceTokenizer.from_vocabulary(words, config, name=name)
    tekken = source.find(_TEKKEN)
    if tekken is not None:
        config = read_tokenizer_config(source, generation_config)
        return BytePairTokenizer.from_tekken(tekken, config, name=name)
    # A hub's files cannot be listed, those in a directory can.
    listed = (file for file in source.filenames() or () if file.endswith(".tiktoken"))
    for filename in (*_TIKTOKEN, *listed):
        ranks = source.find(filename)
        if ranks is not None:
            config = read_tokenizer_config(source, generation_config)
            return BytePairTokenizer.from_tiktoken(ranks, config, name=name)
    raise PresetError(
        f"Preset {name!r} has no tokenizer: neither {TOKENIZER_JSON!r} nor {_VOCABULARY!r} with "
        f"{_MERGES!r} nor {_SENTENCE_PIECE[0]!r} nor {_WORDS!r} nor {_TEKKEN!r} nor a file in "
        "tiktoken's format is there."
    )
