"""The tokenizer of a checkpoint, whatever files it comes in."""

from typing import Any

from nextword.errors import PresetError
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.sources import PresetSource
from nextword.tokenizers.byte_pair import BytePairTokenizer
from nextword.tokenizers.tokenizer import Tokenizer
from nextword.tokenizers.tokenizer_config import read_tokenizer_config

_TOKENIZER = "tokenizer.json"
_VOCABULARY, _MERGES = "vocab.json", "merges.txt"
_SENTENCE_PIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Return the tokenizer that belongs to a checkpoint.

    Args:
        checkpoint: an open checkpoint. A GGUF file has its tokenizer inside; beside a transformers
            checkpoint there is a tokenizer.json, or a vocab.json and a merges.txt.

    Returns:
        The tokenizer.

    Raises:
        PresetError: there is none, it is of a kind that is not supported yet, or it is damaged.
    """
    if checkpoint.format == "gguf":
        data: Any = checkpoint
        return BytePairTokenizer.from_gguf(data.tokenizer_data, name=checkpoint.name)
    transformers: Any = checkpoint
    return _from_files(transformers.source, transformers.generation_config, checkpoint.name)


def _from_files(source: PresetSource, generation_config: Any, name: str) -> Tokenizer:
    tokenizer_json = source.find(_TOKENIZER)
    if tokenizer_json is not None:
        config = read_tokenizer_config(source, generation_config)
        return BytePairTokenizer.from_tokenizer_json(tokenizer_json, config, name=name)
    vocabulary = source.find(_VOCABULARY)
    merges = source.find(_MERGES) if vocabulary is not None else None
    if vocabulary is not None and merges is not None:
        config = read_tokenizer_config(source, generation_config)
        return BytePairTokenizer.from_vocabulary_and_merges(vocabulary, merges, config, name=name)
    for filename in _SENTENCE_PIECE:
        if source.find(filename) is not None:
            raise PresetError(
                f"Preset {name!r} has its tokenizer only as a SentencePiece model ({filename!r}), "
                f"which is not supported yet; one that also has a {_TOKENIZER!r} works."
            )
    raise PresetError(
        f"Preset {name!r} has no tokenizer: neither {_TOKENIZER!r} nor {_VOCABULARY!r} with "
        f"{_MERGES!r} is there."
    )
