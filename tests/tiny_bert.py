"""A tiny BERT, every part of it alive: made by nextword, by KerasHub and by transformers."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
import transformers

import nextword

VOCABULARY = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("the", "quick", "brown", "fox", "jump", "##ed", "##s", "a", "bad", "good", "film"),
    *("what", "!", ".", ",", "caf", "##é", "##e", "中"),
]
TEXTS = ["What a good film!", "The quick, bad fox jumped.", "", "A café 中中, jumps over"]
LABELS = [2, 0, 1, 1]
SIZES = {
    "vocabulary_size": len(VOCABULARY),
    "num_layers": 1,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "max_sequence_length": 16,
    "dropout": 0.0,
}
LENGTH = 12


def redraw(weights: Any, seed: int = 0) -> None:
    """Give Keras variables values that tell every one of them from its neighbours."""
    random = np.random.default_rng(seed)
    for weight in weights:
        value = np.asarray(weight).astype("float32")
        weight.assign(5 * value + 0.3 * random.normal(size=weight.shape))


def classifier(
    num_classes: int = 3, *, dtype: str | None = None, dropout: float = 0.0, **arguments: Any
) -> Any:
    """Return a random classifier of nextword's."""
    models = nextword.models
    keras.utils.set_random_seed(0)
    preprocessor = models.BertTextClassifierPreprocessor(
        models.BertTokenizer(VOCABULARY, lowercase=True), sequence_length=LENGTH
    )
    model = models.BertTextClassifier(
        models.BertBackbone(**SIZES, dtype=dtype),
        num_classes,
        preprocessor,
        dropout=dropout,
        **arguments,
    )
    redraw(model.weights)
    return model


def keras_hub_classifier(num_classes: int = 3, *, dtype: str = "float32", **arguments: Any) -> Any:
    """Return a random classifier of KerasHub's."""
    import keras_hub

    models = keras_hub.models
    keras.utils.set_random_seed(0)
    preprocessor = models.BertTextClassifierPreprocessor(
        models.BertTokenizer(VOCABULARY, lowercase=True), sequence_length=LENGTH
    )
    model = models.BertTextClassifier(
        models.BertBackbone(**SIZES, dtype=dtype), num_classes, preprocessor, **arguments
    )
    redraw(model.weights)
    return model


def checkpoint(directory: Path, model_class: Any = None, **changes: Any) -> Any:
    """Save a random model of transformers', with its vocabulary, and return it."""
    settings = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 56,
        "max_position_embeddings": 64,
        "num_labels": 5,
    }
    torch.manual_seed(0)
    model_class = model_class or transformers.BertForSequenceClassification
    model = model_class(transformers.BertConfig(**settings | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            else:
                parameter.mul_(4.0)
    model.eval().save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    return model


def inputs(length: int = 20, rows: int = 3) -> dict[str, np.ndarray]:
    """Return token ids of two segments, with padding behind all rows but the first."""
    token_ids = np.random.default_rng(1).integers(0, len(VOCABULARY), (rows, length))
    kept = np.arange(length, length - 4 * rows, -4)
    return {
        "token_ids": token_ids,
        "segment_ids": (np.arange(length) > 7).astype("int32") * np.ones((rows, 1), "int32"),
        "padding_mask": (np.arange(length) < kept[:, None]).astype("int32"),
    }
