"""Vocabularies in tokenizer.json, in vocab.json and merges.txt, or in vocab.txt."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from nextword.errors import PresetError
from nextword.presets.json_files import read_json
from nextword.tokenizers.library_engine import LibraryModel, library_component
from nextword.tokenizers.library_models import BytePairModel, UnigramModel, WordPieceModel
from nextword.tokenizers.pre_tokenizers import SPLIT_RULES, SplitRules
from nextword.tokenizers.spelling import ByteLevelSpelling, spelling_from_decoder
from nextword.tokenizers.tokenizer_config import read_text

_MAX_BYTES = 64 * 2**20  # twice the largest there is; as Python objects up to 30 times as much
_MAX_DEPTH_OF_PROCESSORS = 8
_MAX_SCORE = 1e300
_MAX_WORD = 1 << 20

# Arguments of the library's BPE and their types. `dropout` is left out: it makes ids random.
_OPTIONS = {
    "unk_token": str,
    "continuing_subword_prefix": str,
    "end_of_word_suffix": str,
    "fuse_unk": bool,
    "byte_fallback": bool,
    "ignore_merges": bool,
}

# How the tokenizer classes of transformers split text, for checkpoints without a tokenizer.json:
# classes that read a vocab.json and a merges.txt, ...
VOCABULARY_CLASSES = {
    None: "gpt-2",
    "CodeGenTokenizer": "gpt-2",
    "GPT2Tokenizer": "gpt-2",
    "Qwen2Tokenizer": "qwen2",
}
# ... and those that read a file in tiktoken's format.
TIKTOKEN_CLASSES = {
    None: "llama3",
    "LlamaTokenizer": "llama3",
    "PreTrainedTokenizer": "llama3",
    "TokenizersBackend": "llama3",
    "QWenTokenizer": "qwen2",
    "Qwen2Tokenizer": "qwen2",
}


def read_tokenizer_json(path: Path) -> tuple[dict[str, Any], str]:
    """Read a tokenizer.json.

    Args:
        path: the file.

    Returns:
        Its content, and the type of the model in it; that is "BPE" where it does not say.

    Raises:
        PresetError: the file cannot be read, or has no model.
    """
    data = read_json(path, max_bytes=_MAX_BYTES)
    model = data.get("model")
    if not isinstance(model, dict):
        raise PresetError(
            f"The model in {path.name!r} must be an object. Received: {str(model)[:80]!r}."
        )
    return data, str(model.get("type", "BPE"))[:80]


def model_from_tokenizer_json(
    data: Mapping[str, Any], kind: str, name: str
) -> tuple[LibraryModel, str | None]:
    """Return what a tokenizer.json describes.

    The `tokenizers` library gets only checked parts of it: on some damaged vocabularies it aborts
    instead of raising an error.

    Args:
        data: the content of the file.
        kind: the type of the model: "BPE", "Unigram" or "WordPiece".
        name: whose tokenizer it is, for messages.

    Returns:
        The model, and the start token that it puts in front of a text, if any.

    Raises:
        PresetError: it is damaged.
    """
    model = data["model"]
    parts = _MODELS[kind](
        model,
        name,
        added_tokens=_added_tokens(data.get("added_tokens"), name),
        spelling=spelling_from_decoder(data.get("decoder")),
        normalizer=library_component("normalizer", data.get("normalizer"), name),
        pre_tokenizer=library_component("pre_tokenizer", data.get("pre_tokenizer"), name),
    )
    return parts, _start_token(data.get("post_processor"))


def _byte_pair_model(section: Mapping[str, Any], name: str, **parts: Any) -> BytePairModel:
    return BytePairModel(
        vocabulary=_vocabulary(section.get("vocab"), name),
        merges=_merges(section.get("merges"), name),
        options=_options(section, name),
        **parts,
    )


def _unigram_model(section: Mapping[str, Any], name: str, **parts: Any) -> UnigramModel:
    pieces = section.get("vocab")
    if not isinstance(pieces, list) or not all(map(_is_piece, pieces)):
        raise PresetError(f"The vocabulary of {name!r} must be a list of tokens with a number.")
    unknown = section.get("unk_id")
    if unknown is not None and (type(unknown) is not int or not 0 <= unknown < len(pieces)):
        raise PresetError(
            f"The unknown token of {name!r} must be in its vocabulary. "
            f"Received: {str(unknown)[:80]!r}."
        )
    return UnigramModel(
        vocabulary={token: id for id, (token, _) in enumerate(pieces)},
        pieces=[(token, float(score)) for token, score in pieces],
        unknown_id=unknown,
        byte_fallback=section.get("byte_fallback") is True,
        **parts,
    )


def _is_piece(value: Any) -> bool:
    match value:
        case [str(), score]:
            return type(score) in (int, float) and abs(score) <= _MAX_SCORE
    return False


def _word_piece_model(section: Mapping[str, Any], name: str, **parts: Any) -> WordPieceModel:
    unknown, prefix = section.get("unk_token"), section.get("continuing_subword_prefix")
    max_word = section.get("max_input_chars_per_word")
    if not isinstance(unknown, str) or not isinstance(prefix, str) or type(max_word) is not int:
        raise PresetError(
            f"The model in the tokenizer.json of {name!r} must have an 'unk_token', a "
            "'continuing_subword_prefix' and a 'max_input_chars_per_word'."
        )
    return WordPieceModel(
        vocabulary=_vocabulary(section.get("vocab"), name),
        unknown=unknown,
        prefix=prefix,
        max_word=min(max(max_word, 0), _MAX_WORD),
        **parts,
    )


_MODELS: Mapping[str, Callable[..., LibraryModel]] = {
    "BPE": _byte_pair_model,
    "Unigram": _unigram_model,
    "WordPiece": _word_piece_model,
}


def vocabulary_from_lines(path: Path, name: str) -> dict[str, int]:
    """Read a text file with a token a line; the number of the line, from 0, is the id.

    Args:
        path: the file.
        name: whose tokenizer it is, for messages.

    Raises:
        PresetError: the file is damaged, or has a token twice.
    """
    lines = read_text(path, _MAX_BYTES).replace("\r\n", "\n").split("\n")
    return vocabulary_from_tokens(lines[:-1] if lines[-1] == "" else lines, name)


def vocabulary_from_tokens(tokens: Iterable[str], name: str) -> dict[str, int]:
    """Return token -> id for tokens in the order of their ids.

    Raises:
        PresetError: there is a token twice, or an empty one.
    """
    tokens = list(tokens)
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if set(map(type, tokens)) != {str} or len(vocabulary) != len(tokens) or "" in vocabulary:
        raise PresetError(f"The vocabulary of {name!r} must be a list of tokens, each once.")
    return vocabulary


def model_from_vocabulary_and_merges(
    vocabulary: Mapping[str, int] | str | Path,
    merges: Iterable[str] | str | Path,
    rules: SplitRules,
    name: str,
    *,
    add_prefix_space: bool = False,
) -> BytePairModel:
    """Return the model that a vocabulary and merges, or files with them, make.

    Args:
        vocabulary: token -> id, or a JSON file with it.
        merges: two tokens and a space between, or a text file with one such pair a line.
        rules: how text is split.
        name: whose tokenizer it is, for messages.
        add_prefix_space: whether a space is put in front of a text that begins with none.

    Raises:
        PresetError: a file is damaged, or the rules know no space in front.
    """
    if isinstance(vocabulary, str | Path):
        vocabulary = read_json(Path(vocabulary), max_bytes=_MAX_BYTES)
    if isinstance(merges, str | Path):
        lines = read_text(Path(merges), _MAX_BYTES).replace("\r\n", "\n").split("\n")
        merges = [line for line in lines if line]
    elif not isinstance(merges, Iterable):
        raise PresetError(f"The merges of {name!r} must be a list. Received: {merges!r:.80}.")
    pairs = list(merges)
    if pairs and isinstance(pairs[0], str) and pairs[0].startswith("#version"):
        del pairs[0]
    return BytePairModel(
        vocabulary=_vocabulary(vocabulary, name),
        merges=_merges(pairs, name),
        added_tokens={},
        spelling=ByteLevelSpelling(),
        normalizer=rules.normalizer(),
        pre_tokenizer=rules.pre_tokenizer(add_prefix_space=add_prefix_space),
        options={"ignore_merges": rules.ignore_merges},
    )


def rules_of_class(
    tokenizer_class: str | None, name: str, known: Mapping[str | None, str] = VOCABULARY_CLASSES
) -> SplitRules:
    """Return how a tokenizer class of transformers splits text.

    Args:
        tokenizer_class: the name of the class, or `None`.
        name: whose tokenizer it is, for messages.
        known: class -> name of its rules.

    Raises:
        PresetError: the class is not known.
    """
    plain = None if tokenizer_class is None else tokenizer_class.removesuffix("Fast")
    if plain not in known:
        raise PresetError(
            f"The tokenizer class of {name!r} must be one of "
            f"{', '.join(map(repr, filter(None, known)))} where there is no tokenizer.json. "
            f"Received: {str(plain)[:80]!r}."
        )
    return SPLIT_RULES[known[plain]]


def _vocabulary(value: Any, name: str) -> dict[str, int]:
    if (
        not isinstance(value, dict)
        or not set(map(type, value)) <= {str}
        or not set(map(type, value.values())) <= {int}
    ):
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
