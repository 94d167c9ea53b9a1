"""BERT in GGUF files computes what transformers computes from the same weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from gguf import MODEL_ARCH, TokenType, get_tensor_name_map

import nextword
from gguf_files import write_gguf
from nextword.presets import PresetError
from tiny_bert import TEXTS, VOCABULARY, checkpoint, inputs

LAYERS = 3
# The names of a classifier's tensors, which the gguf package has only for those of RoBERTa.
HEAD = {
    "bert.pooler.dense": "cls",
    "classifier": "cls.output",
}


def stored_token(token: str) -> str:
    """Return a token as converters write it: what begins a word is marked, not what goes on."""
    if token.startswith("["):
        return token
    return token[2:] if token.startswith("##") else "\u2581" + token


TOKENIZER = {
    "tokenizer.ggml.model": "bert",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.token_type_count": 2,
    "tokenizer.ggml.tokens": list(map(stored_token, VOCABULARY)),
    "tokenizer.ggml.token_type": [
        int(TokenType.CONTROL if token.startswith("[") else TokenType.NORMAL)
        for token in VOCABULARY
    ],
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.unknown_token_id": 1,
    "tokenizer.ggml.cls_token_id": 2,
    "tokenizer.ggml.seperator_token_id": 3,
    "tokenizer.ggml.mask_token_id": 4,
}


def write(model: Any, path: Path, parts: tuple[str, ...] = (), **changes: Any) -> Path:
    """Write a model of transformers as GGUF, with the layers of its head that are named."""
    config = model.config
    metadata = {
        "general.architecture": "bert",
        "bert.block_count": config.num_hidden_layers,
        "bert.context_length": config.max_position_embeddings,
        "bert.embedding_length": config.hidden_size,
        "bert.feed_forward_length": config.intermediate_size,
        "bert.attention.head_count": config.num_attention_heads,
        "bert.attention.layer_norm_epsilon": config.layer_norm_eps,
        "bert.attention.causal": False,
        "bert.pooling_type": 2,
        **TOKENIZER,
        **changes,
    }
    names = get_tensor_name_map(MODEL_ARCH.BERT, config.num_hidden_layers)
    tensors = {}
    for name, tensor in model.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if layer in HEAD:
            found = HEAD[layer] if HEAD[layer] in parts else None
        else:
            found = names.get_name(layer.removeprefix("bert."))
            assert found is not None
        if found is not None:
            tensors[f"{found}.{kind}"] = tensor.numpy()
    return write_gguf(path, metadata, tensors)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    directory = tmp_path_factory.mktemp("theirs")
    return checkpoint(directory), directory


def expected(model: Any, x: dict[str, np.ndarray]) -> Any:
    with torch.no_grad():
        return model(
            torch.tensor(x["token_ids"]),
            token_type_ids=torch.tensor(x["segment_ids"]),
            attention_mask=torch.tensor(x["padding_mask"]),
            output_hidden_states=True,
        )


def test_a_model_for_embeddings(theirs: Any, tmp_path: Path) -> None:
    model, _ = theirs
    backbone = nextword.models.Backbone.from_preset(write(model, tmp_path / "model.gguf"))
    x = inputs()
    mask = x["padding_mask"][:, :, np.newaxis]
    hidden = expected(model, x).hidden_states[-1].numpy()
    assert np.abs(hidden).max() > 0.1
    np.testing.assert_allclose(np.asarray(backbone(x)) * mask, hidden * mask, rtol=0, atol=1e-4)
    with pytest.raises(PresetError, match="holds no head of a BertTextClassifier"):
        nextword.models.TextClassifier.from_preset(tmp_path / "model.gguf")


def test_a_classifier(theirs: Any, tmp_path: Path) -> None:
    model, _ = theirs
    path = write(model, tmp_path / "model.gguf", ("cls", "cls.output"))
    ours = nextword.models.TextClassifier.from_preset(path)
    assert (type(ours), ours.num_classes) == (nextword.models.BertTextClassifier, 5)
    x = inputs()
    np.testing.assert_allclose(
        np.asarray(ours(x)), expected(model, x).logits.numpy(), rtol=0, atol=1e-4
    )
    fresh = nextword.models.TextClassifier.from_preset(path, num_classes=2)
    assert fresh(x).shape == (3, 2)


def test_the_tokenizer(theirs: Any, tmp_path: Path) -> None:
    model, directory = theirs
    path = write(model, tmp_path / "model.gguf")
    preprocessor = nextword.models.TextClassifierPreprocessor.from_preset(path, sequence_length=20)
    tokenizer = transformers.BertTokenizer.from_pretrained(directory)
    x = tokenizer(TEXTS, TEXTS[::-1], padding="max_length", max_length=20)
    packed = preprocessor((TEXTS, TEXTS[::-1]))
    assert packed["token_ids"].tolist() == x["input_ids"]
    assert packed["segment_ids"].tolist() == x["token_type_ids"]
    assert preprocessor.tokenizer.detokenize([5, 9, 10, 11]) == "the jumpeds"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bert.attention.causal": True}, "'attention.causal'.*False.*Received: True"),
        ({"bert.attention.head_count": 0}, "'attention.head_count'.*Received: 0"),
        ({"bert.rope.freq_base": 1e4}, "does not know.*rope.freq_base"),
        ({"tokenizer.ggml.model": "t5"}, "'tokenizer.ggml.model' is 't5'"),
        ({"tokenizer.ggml.cls_token_id": 99}, "'tokenizer.ggml.cls_token_id'.*an id from 0"),
        ({"tokenizer.ggml.tokens": ["\u2581a"] * len(VOCABULARY)}, "a list of tokens, each once"),
    ],
)
def test_files_that_are_refused(
    theirs: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(theirs[0], tmp_path / "model.gguf", ("cls", "cls.output"), **changes)
    with pytest.raises(PresetError, match=message):
        nextword.models.TextClassifier.from_preset(path)


def test_llama_cpp_makes_the_same_tokens(theirs: Any, tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", exc_type=ImportError).llama_cpp
    path = write(theirs[0], tmp_path / "model.gguf")
    tokenizer = nextword.tokenizers.Tokenizer.from_preset(path)
    with llama_cpp(path) as model:
        assert [model.tokenize(text) for text in TEXTS] == tokenizer.tokenize(TEXTS)
