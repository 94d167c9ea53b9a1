"""`load_tokenizer`: which files it takes, and what it says where they are missing or damaged."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from nextword.errors import PresetError
from nextword.tokenizers import BytePairTokenizer, load_tokenizer
from trained_tokenizers import CHAT_ML, byte_level_library, checkpoint, save


@pytest.fixture
def directory(saved, tmp_path):
    """A copy of a saved tokenizer, to change."""
    for file in saved["smollm"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def configure(directory, **changes):
    """Change keys of tokenizer_config.json; `None` removes one."""
    path = directory / "tokenizer_config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    kept = {key: value for key, value in config.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def test_a_gguf_checkpoint_has_its_tokenizer_inside():
    data = {"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b"], "merges": []}
    stub = SimpleNamespace(
        format="gguf",
        name="model.gguf",
        tokenizer_data={f"tokenizer.ggml.{key}": value for key, value in data.items()},
    )
    assert load_tokenizer(stub).tokenize("ba") == [1, 0]


def test_vocab_and_merges_beside_a_configuration(training_text, tmp_path, corpus):
    library = byte_level_library("qwen2", training_text)
    library.model.save(str(tmp_path))
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": CHAT_ML,
        "added_tokens_decoder": {
            "1": {"content": "<|im_start|>", "special": True, "normalized": False},
            "600": {"content": "<think>", "special": False, "normalized": False},
            "601": {"content": "</think>", "special": False, "normalized": False},
        },
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    ours = load_tokenizer(checkpoint(tmp_path))
    expected = [library.encode(text, add_special_tokens=False).ids for text in corpus]
    assert ours.tokenize(corpus, parse_special=True) == expected
    assert ours.special_token_ids == {0, 1, 2}
    assert ours.start_token_id is None
    assert ours.end_token_ids == (2, 0)
    assert ours.chat_template.source == CHAT_ML


def test_tokens_that_only_the_configuration_has_are_numbered_as_in_transformers(directory):
    configure(
        directory,
        pad_token="[PAD]",
        sep_token={"content": "[SEP]", "lstrip": True, "__type": "AddedToken"},
        extra_special_tokens=["<|tool|>", "<|im_end|>"],
    )
    ours = load_tokenizer(checkpoint(directory))
    theirs = PreTrainedTokenizerFast.from_pretrained(directory)
    text = "a  [SEP]b[PAD]<|tool|><|im_end|>"
    assert ours.tokenize(text, parse_special=True) == theirs(text)["input_ids"]
    assert ours.pad_token_id == theirs.pad_token_id == 603
    assert ours.vocabulary_size() == len(theirs)
    special = {id for id, token in theirs.added_tokens_decoder.items() if token.special}
    assert ours.special_token_ids == special


def test_a_token_with_a_role_is_special(training_text, tmp_path):
    library = byte_level_library("gpt-2", training_text)
    library.add_tokens([AddedToken("<end>", normalized=False)])
    save(library, tmp_path)
    assert 602 not in load_tokenizer(checkpoint(tmp_path)).special_token_ids
    configure(tmp_path, eos_token="<end>")
    ours = load_tokenizer(checkpoint(tmp_path))
    assert ours.end_token_id == 602
    assert 602 in ours.special_token_ids


def test_older_files(directory):
    configure(directory, eos_token=None, pad_token=None)
    (directory / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": {"content": "<|im_end|>"}, "bos_token": "<think>"})
    )
    (directory / "added_tokens.json").write_text(json.dumps({"<extra>": 700}))
    ours = load_tokenizer(checkpoint(directory))
    assert ours.end_token_id == 2
    assert ours.start_token_id == 1  # tokenizer_config.json goes before
    assert ours.tokenize("a<extra>")[-1] == 700


@pytest.mark.parametrize(
    ("generation_config", "expected"),
    [
        ({}, (2, 0)),
        ({"eos_token_id": 2}, (2, 0)),
        ({"eos_token_id": [5, 2, 900]}, (2, 5, 900, 0)),
        ({"eos_token_id": None}, (2, 0)),
    ],
)
def test_end_tokens_of_the_generation_settings(generation_config, expected, directory):
    assert load_tokenizer(checkpoint(directory, generation_config)).end_token_ids == expected


@pytest.mark.parametrize("eos", ["2", 2.5, -1, [2, None], True, {"a": 1}])
def test_end_tokens_that_are_no_ids_are_refused(eos, directory):
    with pytest.raises(PresetError, match="token id in 'eos_token_id' must be an integer"):
        load_tokenizer(checkpoint(directory, {"eos_token_id": eos}))


def post_processor(token, id):
    """Return a post-processor that puts a token in front."""
    return {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": token, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    }


IM_START = post_processor("<|im_start|>", 1)


@pytest.mark.parametrize(
    ("processor", "add_bos_token", "expected"),
    [
        (None, None, (False, 1)),
        (None, True, (True, 1)),
        (IM_START, None, (True, 1)),
        (IM_START, False, (False, 1)),
        (IM_START, True, (True, 1)),
        (post_processor("<|endoftext|>", 0), None, (True, 0)),
        (
            {"type": "Sequence", "processors": [{"type": "ByteLevel"}, IM_START]},
            None,
            (True, 1),
        ),
        (
            {"type": "RobertaProcessing", "cls": ["<|im_start|>", 1], "sep": ["<|im_end|>", 2]},
            None,
            (True, 1),
        ),
        ({"type": "ByteLevel"}, None, (False, 1)),
    ],
)
def test_who_says_whether_there_is_a_start_token(processor, add_bos_token, expected, directory):
    path = directory / "tokenizer.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, "post_processor": processor}), encoding="utf-8")
    configure(directory, add_bos_token=add_bos_token)
    ours = load_tokenizer(checkpoint(directory))
    assert (ours.add_start_token, ours.start_token_id) == expected


@pytest.mark.parametrize(
    ("in_config", "in_file", "expected"),
    [
        ("config", None, "config"),
        ("config", "file", "file"),
        (None, "file", "file"),
        (None, None, None),
        ([{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}], None, "d"),
        ([{"name": "tool", "template": "t"}], None, None),
        ([3, {"name": "default"}], None, None),
    ],
)
def test_where_the_chat_template_is(in_config, in_file, expected, directory):
    (directory / "chat_template.jinja").unlink(missing_ok=True)
    configure(directory, chat_template=in_config)
    if in_file is not None:
        (directory / "chat_template.jinja").write_text(in_file)
    template = load_tokenizer(checkpoint(directory)).chat_template
    assert (template and template.source) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eos_token": 3}, "'eos_token' .* must be a token"),
        ({"eos_token": {"lstrip": True}}, "'eos_token' .* must be a token"),
        ({"extra_special_tokens": [3]}, "'extra_special_tokens' .* must be a token"),
        ({"extra_special_tokens": 3}, "'extra_special_tokens' .* must be a token"),
        ({"added_tokens_decoder": []}, "'added_tokens_decoder' .* must be of type dict"),
        ({"added_tokens_decoder": {"x": "a"}}, "must be an integer"),
        ({"added_tokens_decoder": {"-1": "a"}}, "must be an integer"),
        ({"added_tokens_decoder": {"9" * 30: "a"}}, "must be an integer"),
        ({"added_tokens_decoder": {"5": "<new>"}}, "have the same id"),
        ({"add_bos_token": "yes"}, "'add_bos_token' .* must be of type bool"),
        ({"tokenizer_class": 3}, "'tokenizer_class' .* must be of type str"),
        ({"chat_template": 3}, "chat template must be a string"),
    ],
)
def test_damaged_configurations_are_refused(changes, message, directory):
    (directory / "chat_template.jinja").unlink()
    configure(directory, **changes)
    with pytest.raises(PresetError, match=message):
        load_tokenizer(checkpoint(directory))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_files_that_are_not_json_are_named(name, directory):
    (directory / name).write_text("<html></html>")
    with pytest.raises(PresetError, match=name):
        load_tokenizer(checkpoint(directory))


def test_templates_that_are_not_text_are_named(directory):
    (directory / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(PresetError, match=r"chat_template\.jinja.*UTF-8"):
        load_tokenizer(checkpoint(directory))


def test_nothing_there(tmp_path):
    with pytest.raises(
        PresetError, match=r"no tokenizer: neither 'tokenizer\.json' nor 'vocab\.json' with 'merges"
    ):
        load_tokenizer(checkpoint(tmp_path))
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(PresetError, match="has no tokenizer"):
        load_tokenizer(checkpoint(tmp_path))


def test_neither_keras_nor_transformers_is_imported():
    code = (
        "import sys; import nextword.tokenizers.loading; "
        "print({'keras', 'transformers', 'tensorflow', 'torch', 'jax'} & set(sys.modules))"
    )
    # A backend may be chosen for `nextword.tokenizers`, but nothing of it is loaded here.
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "set()"


def test_the_class_loads_files_without_a_checkpoint(saved):
    tokenizer = BytePairTokenizer.from_tokenizer_json(str(saved["smollm"] / "tokenizer.json"))
    assert tokenizer.detokenize(tokenizer.tokenize("plain file")) == "plain file"
    assert tokenizer.end_token_id is None
    assert tokenizer.end_token_ids == (2, 0)
