"""Ids equal those of `transformers.AutoTokenizer`, for the vocabularies of the best-known families.

The vocabularies of Llama 3, Qwen and Mistral are the real ones, out of wheels on the package index
(a prefix of the first two: the first ranks of a vocabulary are a vocabulary, too); where the index
lacks them these cases are skipped. The others are trained on the text of this repository.
"""

import json
import sys
import unicodedata
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tokenizers import AddedToken
from tokenizers.normalizers import NFD
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

from nextword.presets import PresetError
from nextword.presets.handles import WheelHandle
from nextword.presets.wheels import fetch_from_wheel
from nextword.tokenizers import (
    BytePairTokenizer,
    ChatTemplate,
    ConvertedSentencePieceTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    WordPieceTokenizer,
    load_tokenizer,
)
from nextword.tokenizers.tokenizer_config import TokenizerConfig
from sentence_piece_models import gguf_data as gguf_sentence_pieces
from sentence_piece_models import train
from text_corpus import text_corpus
from trained_tokenizers import (
    ATOMS,
    byte_level_library,
    checkpoint,
    deterministic,
    gguf_data,
    save,
    tiktoken_file,
)

SPACE = "▁"
few = settings(deterministic, max_examples=50)
_RANKS = 20_000
_WHEELS = {
    "qwen": WheelHandle("dashscope", "2.0.2", "dashscope/resources"),
    "llama 3": WheelHandle("llama-models", "0.3.0", "llama_models/llama3"),
    "mistral": WheelHandle("mistral-common", "1.13.1", "mistral_common/data"),
}

Pair = tuple[dict[str, Tokenizer], Any]


def from_wheel(name: str, filename: str) -> bytes:
    try:
        return (fetch_from_wheel(_WHEELS[name]) / filename).read_bytes()
    except PresetError as error:
        pytest.skip(f"The package index has no vocabulary of {name}: {error}")


def first_ranks(content: bytes) -> bytes:
    return b"".join(content.splitlines(keepends=True)[:_RANKS])


def configured(directory: Path, **config: Any) -> Path:
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def added(first: int, tokens: list[str], **flags: bool) -> dict[str, Any]:
    """Return tokens as tokenizer_config.json has them, with ids from `first` on."""
    return {
        str(first + i): {"content": token, "special": True, "normalized": False, **flags}
        for i, token in enumerate(tokens)
    }


@pytest.fixture(scope="module", autouse=True)
def ranks_are_read() -> Any:
    """Transformers reads tiktoken's files with that package, which would download things."""

    def load_tiktoken_bpe(path: str) -> dict[bytes, int]:
        lines = (line.split() for line in Path(path).read_bytes().splitlines() if line)
        return {b64decode(token): int(rank) for token, rank in lines}

    with pytest.MonkeyPatch.context() as patch:
        module, package = ModuleType("tiktoken.load"), ModuleType("tiktoken")
        module.load_tiktoken_bpe = load_tiktoken_bpe
        patch.setitem(sys.modules, "tiktoken", package)
        patch.setitem(sys.modules, "tiktoken.load", module)
        yield


def other_forms(ours: Tokenizer, theirs: Any, root: Path) -> dict[str, Tokenizer]:
    """Return the tokenizer as transformers saves it and as we do."""
    theirs.save_pretrained(root / "json")
    ours.save_assets(root)
    return {
        "tokenizer.json": load_tokenizer(checkpoint(root / "json")),
        "assets": type(ours).from_assets(ours.get_config(), root),
    }


def byte_pairs(pre: str, roles: dict[str, str], cls: str | None = None) -> Callable[..., Pair]:
    """Return what makes a case of a trained byte-level vocabulary."""

    def build(root: Path, training_text: list[str]) -> Pair:
        library = byte_level_library(pre, training_text)
        theirs = AutoTokenizer.from_pretrained(save(library, root / "saved", **roles))
        ours = load_tokenizer(checkpoint(root / "saved"))
        (root / "assets").mkdir()
        forms = {
            "tokenizer.json": ours,
            "GGUF": BytePairTokenizer.from_gguf(gguf_data(library, pre=pre)),
        }
        ours.save_assets(root / "assets")
        forms["assets"] = type(ours).from_assets(ours.get_config(), root / "assets")
        if cls is not None:
            files = root / "files"
            files.mkdir()
            library.model.save(str(files))
            decoder = {
                **added(1, ["<|im_start|>"]),
                **added(600, ["<think>", "</think>"], special=False),
            }
            configured(files, tokenizer_class=cls, added_tokens_decoder=decoder, **roles)
            forms["vocab.json and merges.txt"] = load_tokenizer(checkpoint(files))
        return forms, theirs

    return build


def tiktoken(
    name: str, filename: str, cls: str, special: list[str], pre: str
) -> Callable[..., Pair]:
    """Return what makes a case of a real vocabulary in tiktoken's format."""

    def build(root: Path, training_text: list[str]) -> Pair:
        files = root / "files"
        files.mkdir()
        (files / "tokenizer.model").write_bytes(first_ranks(from_wheel(name, filename)))
        configured(files, tokenizer_class=cls, added_tokens_decoder=added(_RANKS, special))
        ours = load_tokenizer(checkpoint(files))
        theirs = AutoTokenizer.from_pretrained(files)
        if pre == "qwen2":  # transformers splits every such file as Llama 3 does
            converter = TikTokenConverter(files / "tokenizer.model")
            vocabulary, merges = converter.extract_vocab_merges_from_model(converter.vocab_file)
            theirs = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
            theirs.add_tokens([AddedToken(t, special=True, normalized=False) for t in special])
        (root / "assets").mkdir()
        forms = {"tiktoken": ours, **other_forms(ours, theirs, root / "assets")}
        data = gguf_data(
            theirs.backend_tokenizer,
            pre=pre,
            bos_token_id=None,
            eos_token_id=None,
            padding_token_id=None,
        )
        forms["GGUF"] = BytePairTokenizer.from_gguf(data)
        return forms, theirs

    return build


def tekken(root: Path, training_text: list[str]) -> Pair:
    data = json.loads(from_wheel("mistral", "tekken_240718.json"))
    files = root / "files"
    files.mkdir()
    tokens = [b64decode(token["token_bytes"]) for token in data["vocab"][:_RANKS]]
    (files / "tokenizer.model").write_bytes(tiktoken_file(tokens))
    special = ["<s>", "</s>", "[INST]"]
    converter = TikTokenConverter(
        files / "tokenizer.model", data["config"]["pattern"], extra_special_tokens=special
    )
    theirs = PreTrainedTokenizerFast(tokenizer_object=converter.converted())
    ours = BytePairTokenizer.from_tiktoken(
        files / "tokenizer.model",
        TokenizerConfig(extra_special_tokens=tuple(AddedToken(t, special=True) for t in special)),
        split="tekken",
    )
    (root / "assets").mkdir()
    forms = {"tiktoken": ours, **other_forms(ours, theirs, root / "assets")}
    keys = {"bos_token_id": None, "eos_token_id": None, "padding_token_id": None}
    forms["GGUF"] = BytePairTokenizer.from_gguf(
        gguf_data(theirs.backend_tokenizer, pre="tekken", **keys)
    )
    return forms, theirs


def pieces(kind: str, cls: str, special: list[str], **config: Any) -> Callable[..., Pair]:
    """Return what makes a case of a SentencePiece model; real where it has no kind of its own."""

    def build(root: Path, training_text: list[str]) -> Pair:
        files = root / "files"
        files.mkdir()
        proto = (
            from_wheel("mistral", kind)
            if kind.startswith("tokenizer")
            else train(kind, [*training_text, *ATOMS * 3])
        )
        (files / "tokenizer.model").write_bytes(proto)
        size = SentencePieceTokenizer(proto).vocabulary_size()
        settings = dict(config)
        first, rstrip = settings.pop("first", size), settings.pop("rstrip", False)
        decoder = added(first, special, rstrip=rstrip)
        configured(files, tokenizer_class=cls, added_tokens_decoder=decoder, **settings)
        ours = load_tokenizer(checkpoint(files))
        theirs = AutoTokenizer.from_pretrained(files)
        (root / "assets").mkdir()
        forms = {"tokenizer.model": ours, **other_forms(ours, theirs, root / "assets")}
        return forms, theirs

    return build


def word_pieces(**config: Any) -> Callable[..., Pair]:
    """Return what makes a case of a BERT vocabulary."""

    def build(root: Path, training_text: list[str]) -> Pair:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        letters = sorted(
            {
                letter
                for text in (*training_text, *ATOMS)
                for letter in text
                if letter.isprintable() and not letter.isspace()
            }
        )
        common = ["the", "##s", "##ing", "##ed", "to", "##ken", "def", "Don", "##1", "##é", "##好"]
        words = [
            *special,
            *letters,
            *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
            *common,
        ]
        files = root / "files"
        files.mkdir()
        (files / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n", encoding="utf-8")
        configured(files, tokenizer_class="BertTokenizer", **config)
        ours = load_tokenizer(checkpoint(files))
        theirs = AutoTokenizer.from_pretrained(files)
        (root / "assets").mkdir()
        return {"vocab.txt": ours, **other_forms(ours, theirs, root / "assets")}, theirs

    return build


_ROLES = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
_META = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>"]
_CHAT_ML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": False}
_TURNS = ["<start_of_turn>", "<end_of_turn>"]
_GEMMA = {
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
BUILDERS = {
    "gpt-2": byte_pairs("gpt-2", _ROLES, "GPT2Tokenizer"),
    "llama 2": pieces("dummy prefix", "LlamaTokenizer", [], **_LLAMA),
    "llama 3": tiktoken(
        "llama 3", "tokenizer.model", "PreTrainedTokenizerFast", _META, "llama-bpe"
    ),
    "qwen": byte_pairs("qwen2", _ROLES, "Qwen2Tokenizer"),
    "qwen 1": tiktoken("qwen", "qwen.tiktoken", "QWenTokenizer", _CHAT_ML, "qwen2"),
    "gemma": pieces("no prefix", "GemmaTokenizer", _TURNS, first=4, **_GEMMA),
    "mistral": pieces("tokenizer.model.v1", "LlamaTokenizer", [], **_LLAMA),
    "tekken": tekken,
    "phi-3": pieces(
        "dummy prefix", "LlamaTokenizer", ["<|user|>", "<|end|>"], rstrip=True, **_LLAMA
    ),
    "bert cased": word_pieces(do_lower_case=False),
    "bert uncased": word_pieces(do_lower_case=True),
}


@pytest.fixture(scope="module")
def texts() -> list[str]:
    texts = text_corpus()
    assert len(texts) >= 2000
    return texts


@pytest.fixture(scope="module", params=BUILDERS)
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory, training_text: list[str]) -> Pair:
    return BUILDERS[request.param](tmp_path_factory.mktemp("family"), training_text)


@pytest.mark.parametrize("parse_special", [True, False])
def test_ids_are_those_of_transformers(pair: Pair, texts: list[str], parse_special: bool) -> None:
    forms, theirs = pair
    special = {"add_special_tokens": False, "split_special_tokens": not parse_special}
    expected = theirs(texts, **special)["input_ids"]
    for form, ours in forms.items():
        rows = ours.tokenize(texts, parse_special=parse_special)
        different = [
            (text, row, wanted)
            for text, row, wanted in zip(texts, rows, expected, strict=True)
            if row != wanted and not spaces_differ(ours, text)
        ]
        assert not different, (form, len(different), different[:5])


def spaces_differ(ours: Tokenizer, text: str) -> bool:
    """Whether transformers has other ids than SentencePiece, for the spaces in a text.

    It puts none in front of a text that begins with one, and cuts long runs of spaces elsewhere. A
    tokenizer.model gives the ids of the program that its model was trained with, which the test
    below compares.
    """
    if not isinstance(ours, SentencePieceTokenizer):
        return False
    text = text.replace(SPACE, " ")
    return text.startswith(" ") or "> " in text or "  " in text


@pytest.mark.parametrize("kind", ["dummy prefix", "no prefix", "tokenizer.model.v1"])
def test_ids_are_those_of_sentencepiece(
    kind: str, texts: list[str], training_text: list[str]
) -> None:
    real = kind.startswith("tokenizer")
    proto = from_wheel("mistral", kind) if real else train(kind, [*training_text, *ATOMS * 3])
    ours, theirs = SentencePieceTokenizer(proto), SentencePieceProcessor(model_proto=proto)
    # As text these are spelled out; sentencepiece takes its user-defined pieces for what they are.
    plain = [text for text in texts if not any(token in text for token in ours.special_tokens)]
    assert len(plain) >= 2000
    assert ours.tokenize(plain) == theirs.encode(plain)
    from_gguf = SentencePieceTokenizer.from_gguf(gguf_sentence_pieces(proto))
    assert from_gguf.tokenize(plain) == theirs.encode(plain)


def test_text_is_that_of_transformers(pair: Pair, texts: list[str]) -> None:
    forms, theirs = pair
    texts = texts[::5]
    for form, ours in forms.items():
        for row in ours.tokenize(texts, parse_special=True):
            whole = theirs.decode(
                row, skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
            assert ours.detokenize(row, skip_special_tokens=False) == whole, (form, row)


@few
@given(data=st.data())
def test_a_stream_joins_to_the_whole_text(pair: Pair, data: st.DataObject) -> None:
    forms, _ = pair
    ours = next(iter(forms.values()))
    size = ours.vocabulary_size()
    ids = st.one_of(
        st.lists(st.integers(0, size - 1), max_size=12),
        # The bytes come first, or soon: pieces of characters, mostly.
        st.lists(st.integers(0, min(size, 300) - 1), max_size=12),
        st.text(max_size=12).map(ours.tokenize),
    )
    row = data.draw(ids)
    skip = data.draw(st.booleans())
    decoder = ours.stream_decoder(skip_special_tokens=skip)
    pieces = [decoder.push(id) for id in row]
    assert "".join([*pieces, decoder.flush()]) == ours.detokenize(row, skip_special_tokens=skip)


@few
@given(text=st.text())
def test_every_text_survives_the_round_trip(pair: Pair, text: str) -> None:
    """Where the scheme allows it: not where words are unknown, and up to composition."""
    forms, _ = pair
    for ours in forms.values():
        if isinstance(ours, WordPieceTokenizer):
            return
        expected = unicodedata.normalize("NFC", text) if composes(ours) else text
        if not isinstance(ours, BytePairTokenizer):
            expected = expected.replace(SPACE, " ")  # that is how these spell the space
        if type(ours) is ConvertedSentencePieceTokenizer and expected.startswith(" "):
            # transformers puts no second space there, and takes one away.
            expected = expected[ours._leading_spaces :]
        assert ours.detokenize(ours.tokenize(text)) == expected


def composes(tokenizer: Tokenizer) -> bool:
    model = getattr(tokenizer, "_model", None)
    return model is not None and b"NFC" in (model.normalizer or NFD()).__getstate__()


def test_special_tokens_in_a_conversation_are_the_template_s(pair: Pair) -> None:
    forms, _ = pair
    for form, ours in forms.items():
        special = [token for token in ours.special_tokens if token != "[UNK]" and token != "<unk>"]
        end = special[-1]
        ours.chat_template = ChatTemplate(
            "{% for m in messages %}" + end + "{{ m.role }} {{ m.content }}{% endfor %}" + end
        )
        never = {ours.token_to_id(token) for token in special}
        for attack in (
            end,
            f"a{end}b",
            f"{end}{end}",
            "".join(special),
            f"{end[:1]}{end}{end[1:]}",
        ):
            messages = [{"role": "user", "content": attack}, {"role": "user", "content": "fine"}]
            found = [id for id in ours.encode_chat(messages) if id in never]
            assert found == [ours.token_to_id(end)] * 3, (form, attack)
            # As a prompt of its own it is text, too, unless it is to be parsed.
            assert never.isdisjoint(ours.tokenize(attack)), (form, attack)
            assert not never.isdisjoint(ours.tokenize(attack, parse_special=True))
