"""A tiny model on a tiny tokenizer, whose programs all tests of the room share."""

from pathlib import Path
from typing import Any

import keras
import pytest

import nextword
from nextword.tokenizers.loading import load_tokenizer
from trained_tokenizers import byte_level_library, checkpoint, save
from training.tiny import TEXTS


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Byte-pair encoding with distinct start, end and padding tokens."""
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    save(
        byte_level_library("gpt-2", TEXTS, size=300),
        directory,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    return load_tokenizer(checkpoint(directory))


@pytest.fixture(scope="session")
def make_model(tokenizer: Any) -> Any:
    """Return a function that makes a tiny model; the same for the same arguments."""

    def make(dropout: float = 0.0, dtype: str | None = None) -> Any:
        keras.utils.set_random_seed(3)
        backbone = nextword.models.GPT2Backbone(
            vocabulary_size=tokenizer.vocabulary_size(),
            num_layers=1,
            num_heads=2,
            hidden_dim=16,
            intermediate_dim=16,
            max_sequence_length=32,
            dropout=dropout,
            dtype=dtype,
        )
        preprocessor = nextword.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=12)
        return nextword.models.GPT2CausalLM(backbone, preprocessor)

    return make


@pytest.fixture(scope="session")
def shared_model(make_model: Any) -> Any:
    lm = make_model()
    # Without state of its own, so that weights are all there is to put back.
    lm.compile(optimizer=keras.optimizers.SGD(0.5), sampler="greedy")
    return lm


@pytest.fixture
def lm(shared_model: Any) -> Any:
    """The tiny model with the weights and the preprocessor that it has in every test."""
    preprocessor, weights = shared_model.preprocessor, shared_model.get_weights()
    yield shared_model
    shared_model.preprocessor = preprocessor
    preprocessor.sequence_length = 12
    preprocessor.add_start_token = preprocessor.add_end_token = True
    shared_model.set_weights(weights)
