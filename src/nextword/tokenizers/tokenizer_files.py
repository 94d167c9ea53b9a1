"""Byte-pair vocabularies in tokenizer.json, or in vocab.json and merges.txt."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from nextword.errors import PresetError
from nextword.presets.json_files import read_json
from nextword.tokenizers.byte_pair_engine import BytePairModel, library_component
from nextword.tokenizers.pre_tokenizers import SPLIT_RULES, SplitRules
from nextword.tokenizers.spelling import ByteLevelSpelling, spelling_from_decoder
from nextword.tokenizers.tokenizer_config import read_text

_MAX_BYTES = 128 * 2**20
_MAX_DEPTH_OF_PROCESSORS = 8

# Arguments of the library's BPE and their types. `dropout` is left out: it makes ids random.
_OPTIONS = {
    "unk_token": str,
    "continuing_subword_prefix": str,
    "end_of_word_suffix": str,
    "fuse_unk": bool,
    "byte_fallback": bool,
    "ignore_merges": bool,
}

# How the tokenizer classes of transformers split text, for checkpoints without a tokenizer.json.
_RULES_OF_CLASSES = {
    "CodeGenTokenizer": "gpt-2",
    "GPT2Tokenizer": "gpt-2",
    "Qwen2Tokenizer": "qwen2",
}


def model_from_tokenizer_json(path: Path, name: str) -> tuple[BytePairModel, str | None]:
    """Read a tokenizer.json.

    The file is parsed here, and the `tokenizers` library gets only checked parts of it: on some
    damaged vocabularies it aborts instead of raising an error.

    Args:
        path: the file.
        name: whose tokenizer it is, for messages.

    Returns:
        The model, and the start token that it puts in front of a text, if any.

    Raises:
        PresetError: it is not a byte-pair tokenizer, or damaged.
    """
    data = read_json(path, max_bytes=_MAX_BYTES)
    model = data.get("model")
    kind = model.get("type", "BPE") if isinstance(model, dict) else model
    if not isinstance(model, dict) or kind != "BPE":
        raise PresetError(
            f"The tokenizer.json of {name!r} must hold a byte-pair model (type 'BPE'); other kinds "
            f"are not supported yet. Received: {str(kind)[:80]!r}."
        )
    parts = BytePairModel(
        vocabulary=_vocabulary(model.get("vocab"), name),
        merges=_merges(model.get("merges"), name),
        added_tokens=_added_tokens(data.get("added_tokens"), name),
        spelling=spelling_from_decoder(data.get("decoder")),
        normalizer=library_component("normalizer", data.get("normalizer"), name),
        pre_tokenizer=library_component("pre_tokenizer", data.get("pre_tokenizer"), name),
        options=_options(model, name),
    )
    return parts, _start_token(data.get("post_processor"))


def model_from_vocabulary_and_merges(
    vocabulary: Path, merges: Path, tokenizer_class: str | None, name: str
) -> BytePairModel:
    """Read a vocab.json and a merges.txt.

    Args:
        vocabulary: JSON file, token -> id.
        merges: text file, two tokens a line.
        tokenizer_class: the class of transformers that splits the text, GPT-2's where `None`.
        name: whose tokenizer it is, for messages.

    Raises:
        PresetError: the class is not known, or a file is damaged.
    """
    rules = _rules_of_class(tokenizer_class, name)
    lines = read_text(merges, _MAX_BYTES).replace("\r\n", "\n").split("\n")
    if lines[0].startswith("#version"):
        del lines[0]
    return BytePairModel(
        vocabulary=_vocabulary(read_json(vocabulary, max_bytes=_MAX_BYTES), name),
        merges=_merges([line for line in lines if line], name),
        added_tokens={},
        spelling=ByteLevelSpelling(),
        normalizer=rules.normalizer(),
        pre_tokenizer=rules.pre_tokenizer(),
        options={"ignore_merges": rules.ignore_merges},
    )


def _rules_of_class(tokenizer_class: str | None, name: str) -> SplitRules:
    plain = "GPT2Tokenizer" if tokenizer_class is None else tokenizer_class.removesuffix("Fast")
    if plain not in _RULES_OF_CLASSES:
        raise PresetError(
            f"The tokenizer class of {name!r} must be one of "
            f"{', '.join(map(repr, _RULES_OF_CLASSES))} where there is no tokenizer.json. "
            f"Received: {plain[:80]!r}."
        )
    return SPLIT_RULES[_RULES_OF_CLASSES[plain]]


def _vocabulary(value: Any, name: str) -> dict[str, int]:
    if not isinstance(value, dict) or not set(map(type, value.values())) <= {int}:
        raise PresetError(f"The vocabulary of {name!r} must map every token to an integer.")
    return value


def _merges(value: Any, name: str) -> list[tuple[str, str]]:
    """Return merges that are written as "a b" or, in newer files, as ["a", "b"]."""
    merges = []
    for position, merge in enumerate(value if isinstance(value, list) else [value]):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(token, str) and token for token in pair)
        ):
            raise PresetError(
                f"Merge {position} of {name!r} must be two tokens. Received: {str(merge)[:80]!r}."
            )
        merges.append((pair[0], pair[1]))
    return merges


def _added_tokens(value: Any, name: str) -> dict[int, AddedToken]:
    added = {}
    for entry in value if isinstance(value, list) else [] if value is None else [value]:
        if (
            not isinstance(entry, dict)
            or type(entry.get("id")) is not int
            or not isinstance(entry.get("content"), str)
        ):
            raise PresetError(
                f"An added token of {name!r} must have an id and a content. "
                f"Received: {str(entry)[:80]!r}."
            )
        flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
        added[entry["id"]] = AddedToken(
            entry["content"], **{flag: entry.get(flag) is True for flag in flags}
        )
    return added


def _options(model: Mapping[str, Any], name: str) -> dict[str, Any]:
    options = {key: model[key] for key in _OPTIONS if model.get(key) not in (None, "", False)}
    for key, value in options.items():
        if not isinstance(value, _OPTIONS[key]):
            raise PresetError(
                f"{key!r} in the tokenizer.json of {name!r} must be of type "
                f"{_OPTIONS[key].__name__}. Received: {str(value)[:80]!r}."
            )
    return options


def _start_token(processor: Any, depth: int = _MAX_DEPTH_OF_PROCESSORS) -> str | None:
    """Return the token that a post-processor puts in front of a text."""
    if not isinstance(processor, dict) or not depth:
        return None
    match processor:
        case {"type": "Sequence", "processors": [*steps]}:
            found = (_start_token(step, depth - 1) for step in steps)
            return next((token for token in found if token is not None), None)
        case {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": str(id)}}, *_]}:
            special = processor.get("special_tokens")
            match special.get(id) if isinstance(special, dict) else None:
                case {"tokens": [str(token)]}:
                    return token
            return id
        case {"type": "RobertaProcessing" | "BertProcessing", "cls": [str(token), *_]}:
            return token
    return None
