"""Small random models of KerasHub, every part of them alive, for comparison."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import sentencepiece

SPECIAL = [
    "<|endoftext|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
]
VOCABULARY = {token: id for id, token in enumerate([*SPECIAL, *"abcdeĠ", "ab", "Ġc", "abc"])}
MERGES = ["a b", "Ġ c", "ab c"]

_SIZES = {"vocabulary_size": 23, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 24}
_LLAMA = _SIZES | {"num_query_heads": 4, "num_key_value_heads": 2}
_SCALED = {
    "rope_max_wavelength": 5e5,
    "rope_frequency_adjustment_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_pretraining_sequence_length": 8,
}


def sentence_piece_proto() -> bytes:
    """Return a small SentencePiece model."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abc ab", "abcd ab abcde"]),
        model_writer=model,
        vocab_size=17,
        model_type="bpe",
        minloglevel=2,
    )
    return model.getvalue()


@dataclass(frozen=True)
class Case:
    """One configuration of one of KerasHub's models."""

    prefix: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def cls(self, kind: str) -> Any:
        """Return one of KerasHub's classes."""
        import keras_hub

        return getattr(keras_hub.models, f"{self.prefix}{kind}")

    def model(self, dtype: str = "float32") -> Any:
        """Return a random model."""
        keras.utils.set_random_seed(0)
        backbone = self.cls("Backbone")(dtype=dtype, **self.arguments)
        random = np.random.default_rng(0)
        for weight in backbone.weights:
            value = np.asarray(weight).astype("float32")
            weight.assign(3 * value + 0.2 * random.normal(size=weight.shape))
        if self.prefix == "Llama":
            tokenizer = self.cls("Tokenizer")(proto=sentence_piece_proto())
        else:
            tokenizer = self.cls("Tokenizer")(vocabulary=VOCABULARY, merges=MERGES)
        preprocessor = self.cls("CausalLMPreprocessor")(
            tokenizer, sequence_length=12, add_end_token=False
        )
        return self.cls("CausalLM")(backbone, preprocessor)


CASES = {
    "gpt2": Case("GPT2", _SIZES | {"num_heads": 2, "max_sequence_length": 32}),
    "llama": Case("Llama", _LLAMA),
    "llama3": Case("Llama3", _LLAMA | {"layer_norm_epsilon": 1e-5, "num_key_value_heads": 1}),
    "llama3-tied": Case("Llama3", _LLAMA | {"tie_word_embeddings": True}),
    "llama3-scaled": Case("Llama3", _LLAMA | _SCALED),
}
TINY_SHARDS = 3000 / 2**30


def logits(model: Any) -> np.ndarray:
    """Return the logits of a model, of either library, for two rows with padding."""
    token_ids = np.random.default_rng(1).integers(0, 23, (2, 20))
    padding_mask = np.arange(20) < np.array([[20], [13]])
    outputs = model({"token_ids": token_ids, "padding_mask": padding_mask})
    return np.where(padding_mask[..., None], np.asarray(outputs).astype("float32"), 0)


def assert_close(ours: Any, theirs: Any) -> None:
    """Compare the logits of two models in float32."""
    expected = logits(theirs)
    scale = np.abs(expected).max()
    assert scale > 1  # the comparison says something
    np.testing.assert_allclose(logits(ours), expected, rtol=0, atol=1e-5 * scale)


def assert_same_weights(one: Any, other: Any) -> None:
    """Compare the weights of two models of one library."""
    for weight, expected in zip(one.weights, other.weights, strict=True):
        assert weight.dtype == expected.dtype
        np.testing.assert_array_equal(np.asarray(weight), np.asarray(expected))


def save(directory: Path, name: str, dtype: str = "float32", **options: Any) -> Any:
    """Save one of the cases with KerasHub, and return the model."""
    model = CASES[name].model(dtype)
    model.save_to_preset(str(directory), **options)
    return model
