"""tokenizer.json files that were converted from SentencePiece, as families really have them."""

import json
from typing import Any

import pytest
from sentencepiece import SentencePieceProcessor
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Library
from tokenizers.models import Unigram
from transformers import PreTrainedTokenizerFast

from nextword.errors import PresetError
from nextword.tokenizers import UnigramTokenizer, load_tokenizer
from sentence_piece_models import train
from trained_tokenizers import ATOMS, byte_fallback_library, checkpoint, save

SPACE = "▁"
ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def with_front(library: Library, normalizer: Any, pre_tokenizer: Any, decoder: Any) -> Library:
    """Return a copy that prepares text and joins tokens in another way."""
    copy = Library.from_str(library.to_str())
    data = json.loads(copy.to_str())
    for section, value in (("normalizer", normalizer), ("pre_tokenizer", pre_tokenizer)):
        data[section] = None if value is None else json.loads(value.__getstate__())
    data["decoder"] = json.loads(decoder.__getstate__())
    return Library.from_str(json.dumps(data))


def byte_decoder(*further: Any) -> Any:
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *further]
    return decoders.Sequence(steps)


def unigram_library(training_text: list[str], kind: str) -> Library:
    """Return a tokenizer as T5's and XLM-RoBERTa's are converted."""
    model = SentencePieceProcessor(model_proto=train(kind, [*training_text, *ATOMS * 3]))
    pieces = [(model.id_to_piece(id), model.get_score(id)) for id in range(len(model))]
    library = Library(Unigram(pieces, model.unk_id(), kind.endswith("bytes")))
    library.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    library.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "always")
    library.decoder = decoders.Metaspace(SPACE, "always")
    if kind.endswith("bytes"):
        library.decoder = byte_decoder(decoders.Strip(" ", 1, 0))
    library.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", model.eos_id())]
    )
    library.add_special_tokens(["</s>", "<unk>", "<extra_id_0>", "<extra_id_1>"])
    return library


@pytest.fixture(scope="module")
def both(training_text, tmp_path_factory):
    """By way of preparing text: our tokenizer, transformers', and the directory."""
    library = byte_fallback_library(training_text)
    libraries = {
        "gemma": with_front(
            library,
            normalizers.Replace(" ", SPACE),
            pre_tokenizers.Split(" ", "merged_with_previous"),
            byte_decoder(),
        ),
        "mistral": with_front(
            library,
            None,
            pre_tokenizers.Metaspace(SPACE, "first", split=False),
            byte_decoder(decoders.Strip(" ", 1, 0)),
        ),
        "metaspace": with_front(
            library, None, pre_tokenizers.Metaspace(SPACE, "always"), decoders.Metaspace(SPACE)
        ),
        "unigram": unigram_library(training_text, "unigram"),
        "unigram with bytes": unigram_library(training_text, "unigram with bytes"),
    }
    found = {}
    for kind, library in libraries.items():
        directory = save(library, tmp_path_factory.mktemp("converted"), **ROLES)
        theirs = PreTrainedTokenizerFast.from_pretrained(directory)
        found[kind] = (load_tokenizer(checkpoint(directory)), theirs, directory)
    return found


KINDS = ["gemma", "mistral", "metaspace", "unigram", "unigram with bytes"]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_equal_those_of_transformers(kind, both, corpus):
    ours, theirs, _ = both[kind]
    texts = [*corpus, "<s>a b</s> c", "the<s>the"]
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    assert ours.tokenize(texts, parse_special=True) == expected
    allowed = {ours.token_to_id("<unk>")}
    for row in ours.tokenize(texts):
        assert not ours.special_token_ids & set(row) - allowed


@pytest.mark.parametrize("kind", KINDS)
def test_text_equals_that_of_transformers(kind, both, corpus):
    ours, theirs, _ = both[kind]
    # Metaspace drops all spaces of the first token, ours the one that was put there.
    texts = [text for text in corpus if not text.startswith((" ", SPACE))]
    for row in ours.tokenize(texts):
        expected = theirs.decode(row, skip_special_tokens=True)
        assert ours.detokenize(row) == expected
        decoder = ours.stream_decoder()
        assert "".join(map(decoder.push, row)) + decoder.flush() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_is_the_same_again(kind, both, corpus, tmp_path):
    ours, _, _ = both[kind]
    ours.save_assets(tmp_path)
    again = type(ours).from_assets(ours.get_config(), tmp_path)
    for parse_special in (False, True):
        rows = ours.tokenize(corpus, parse_special=parse_special)
        assert again.tokenize(corpus, parse_special=parse_special) == rows
        assert again.detokenize(rows) == ours.detokenize(rows)
    assert again.special_token_ids == ours.special_token_ids
    assert again.get_vocabulary() == ours.get_vocabulary()


def test_text_inside_a_conversation_has_no_space_in_front(both):
    ours, theirs, _ = both["mistral"]
    text = "<s>the</s>the"
    expected = theirs(text, add_special_tokens=False)["input_ids"]
    parts = [[1], *ours.encode(["the"], inside=True), [2], *ours.encode(["the"], inside=True)]
    assert [id for part in parts for id in part] == expected
    assert ours.encode(["the"]) != ours.encode(["the"], inside=True)
    gemma, _, _ = both["gemma"]
    assert gemma.encode(["the"]) == gemma.encode(["the"], inside=True)


def test_only_files_make_a_unigram_tokenizer(both):
    assert isinstance(both["unigram"][0], UnigramTokenizer)
    with pytest.raises(TypeError, match="from_tokenizer_json"):
        UnigramTokenizer()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"vocab": {"a": 0}}, "must be a list of tokens with a number"),
        ({"vocab": [["a"]]}, "must be a list of tokens with a number"),
        ({"vocab": [["a", "b"]]}, "must be a list of tokens with a number"),
        ({"vocab": [["a", True]]}, "must be a list of tokens with a number"),
        ({"vocab": [[1, 1.0]]}, "must be a list of tokens with a number"),
        ({"vocab": []}, "unknown token of .* must be in its vocabulary"),
        ({"vocab": [], "unk_id": None}, "must not be empty"),
        ({"vocab": [["a", -1.0], ["a", -2.0]]}, "the same token twice"),
        ({"unk_id": 10**6}, "unknown token of .* must be in its vocabulary. Received: '1000000'"),
        ({"unk_id": -1}, "unknown token of .* must be in its vocabulary"),
        ({"type": "WordLevel"}, "'BPE' or .* Received: 'WordLevel'"),
        ({"type": "WordPiece"}, "must have an 'unk_token'"),
    ],
)
def test_damaged_files_are_refused(model, message, both, tmp_path):
    data = json.loads((both["unigram"][2] / "tokenizer.json").read_text(encoding="utf-8"))
    added = [] if "vocab" in model else data["added_tokens"]
    data |= {"model": {**data["model"], **model}, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(PresetError, match=message) as caught:
        load_tokenizer(checkpoint(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["BPE", None, []])
def test_a_model_must_be_an_object(model, both, tmp_path):
    data = json.loads((both["unigram"][2] / "tokenizer.json").read_text(encoding="utf-8"))
    (tmp_path / "tokenizer.json").write_text(json.dumps(data | {"model": model}), encoding="utf-8")
    with pytest.raises(PresetError, match="model in 'tokenizer.json' must be an object"):
        load_tokenizer(checkpoint(tmp_path))


def test_added_tokens_must_follow_the_vocabulary(both, tmp_path):
    data = json.loads((both["unigram"][2] / "tokenizer.json").read_text(encoding="utf-8"))
    data["added_tokens"].append({"id": 5000, "content": "<far>", "special": True})
    (tmp_path / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(PresetError, match="'<far>' cannot have the id 5000"):
        load_tokenizer(checkpoint(tmp_path))
