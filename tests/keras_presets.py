"""Small random models of KerasHub, every part of them alive, for comparison."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import keras
import numpy as np
import sentencepiece
from keras.src.initializers import random_initializers

SPECIAL = [
    "<|endoftext|>",
    "<|im_end|>",
    "<s>",
    "</s>",
    "<pad>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
]
_WORDS = [*"abcdeĠ", "ab", "Ġc", "abc"]
VOCABULARY = {token: id for id, token in enumerate([*SPECIAL, *_WORDS, "<think>", "</think>"])}
TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MERGES = ["a b", "Ġ c", "ab c"]

_SIZES = {"vocabulary_size": 23, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 24}
_LLAMA = _SIZES | {"num_query_heads": 4, "num_key_value_heads": 2}
# Shorter than the texts of the tests.
_WINDOWED = _LLAMA | {"sliding_window": 6}
_GEMMA = _SIZES | {"num_query_heads": 4, "num_key_value_heads": 2, "head_dim": 6}
_GEMMA2 = {
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "attention_logit_soft_cap": 3.0,
    "final_logit_soft_cap": 5.0,
    "use_sliding_window_attention": True,
    "sliding_window_size": 7,
}
_GEMMA3 = {
    "image_size": None,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "use_sliding_window_attention": True,
    "sliding_window_size": 7,
    "global_rope_scaling_factor": 8.0,
}
_SMOLLM3 = _SIZES | {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_layer_enabled_list": [True, False],
    "layer_types": ["full_attention"] * 2,
    "mlp_bias": True,
    "layer_norm_epsilon": 1e-6,
    "max_position_embeddings": 64,
    "rope_theta": 2500.0,
    "partial_rotary_factor": 1.0,
}
_EXPERTS = _LLAMA | {"moe_intermediate_dim": 12, "num_experts": 5, "top_k": 2}
_SCALED = {
    "rope_max_wavelength": 5e5,
    "rope_frequency_adjustment_factor": 8.0,
    "rope_low_freq_factor": 1.0,
    "rope_high_freq_factor": 4.0,
    "rope_pretraining_sequence_length": 8,
}

# How the SentencePiece models of Gemma are trained.
_GEMMA_PIECES = {
    "vocab_size": 20,
    "control_symbols": [],
    "user_defined_symbols": ["<start_of_turn>", "<end_of_turn>"],
    **{"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3},
    **{"bos_piece": "<bos>", "eos_piece": "<eos>", "add_dummy_prefix": False},
}
_IMAGE_TOKENS = ["<img>", "<start_of_image>", "<end_of_image>"]
_PIECES = {
    "Gemma": _GEMMA_PIECES,
    "Gemma3": _GEMMA_PIECES
    | {
        "vocab_size": 23,
        "user_defined_symbols": [*_GEMMA_PIECES["user_defined_symbols"], *_IMAGE_TOKENS],
    },
}


def sentence_piece_proto(**settings: Any) -> bytes:
    """Return a small SentencePiece model."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["abc ab", "abcd ab abcde"]),
        model_writer=model,
        **{
            "vocab_size": 19,
            "model_type": "bpe",
            "control_symbols": ["<|endoftext|>", "<|end|>"],
            "minloglevel": 2,
            **settings,
        },
    )
    return model.getvalue()


@contextmanager
def no_initial_values() -> Iterator[None]:
    """Begin with zeros instead of random numbers, for which JAX compiles a program per shape."""

    def zeros(shape: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> np.ndarray:
        return np.zeros(shape, dtype or "float32")

    names = ("normal", "truncated_normal", "uniform")
    with mock.patch.multiple(random_initializers.random, **dict.fromkeys(names, zeros)):
        yield


@dataclass(frozen=True)
class Case:
    """One configuration of one of KerasHub's models."""

    prefix: str
    arguments: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    """The tokenizer, where it is not `<prefix>Tokenizer`."""

    def cls(self, kind: str) -> Any:
        """Return one of KerasHub's classes."""
        import keras_hub
        from keras_hub.src.models.gemma3 import gemma3_causal_lm_preprocessor

        # It is needed for images only.
        gemma3_causal_lm_preprocessor.assert_tf_installed = lambda _: None
        return getattr(keras_hub.models, f"{self.prefix}{kind}")

    def model(self, dtype: str = "float32") -> Any:
        """Return a random model."""
        keras.utils.set_random_seed(0)
        with no_initial_values():
            backbone = self.cls("Backbone")(dtype=dtype, **self.arguments)
        random = np.random.default_rng(0)
        for weight in backbone.trainable_weights:
            value = np.asarray(weight).astype("float32")
            weight.assign(3 * value + 0.2 * random.normal(size=weight.shape))
        preprocessor = self.cls("CausalLMPreprocessor")(
            self.make_tokenizer(), sequence_length=12, add_end_token=False
        )
        return self.cls("CausalLM")(backbone=backbone, preprocessor=preprocessor)

    def make_tokenizer(self) -> Any:
        """Return a small tokenizer."""
        import keras_hub

        cls = getattr(keras_hub.models, self.tokenizer or f"{self.prefix}Tokenizer")
        if issubclass(cls, keras_hub.models.MistralTekkenTokenizer):
            return cls(vocabulary=VOCABULARY, merges=MERGES, split_pattern=TEKKEN_PATTERN)
        if issubclass(cls, keras_hub.tokenizers.SentencePieceTokenizer):
            return cls(proto=sentence_piece_proto(**_PIECES.get(self.prefix, {})))
        return cls(vocabulary=VOCABULARY, merges=MERGES)


CASES = {
    "gpt2": Case("GPT2", _SIZES | {"num_heads": 2, "max_sequence_length": 32}),
    "llama": Case("Llama", _LLAMA),
    "llama3": Case("Llama3", _LLAMA | {"layer_norm_epsilon": 1e-5, "num_key_value_heads": 1}),
    "llama3-tied": Case("Llama3", _LLAMA | {"tie_word_embeddings": True}),
    "llama3-scaled": Case("Llama3", _LLAMA | _SCALED),
    "mistral": Case("Mistral", _WINDOWED | {"head_dim": 6}),
    "mistral-tekken": Case("Mistral", _WINDOWED, tokenizer="MistralTekkenTokenizer"),
    "mixtral": Case("Mixtral", _WINDOWED | {"num_experts": 5, "rope_scaling_factor": 2.0}),
    "qwen": Case("Qwen", _LLAMA | {"rope_scaling_factor": 2.0}),
    "qwen-head": Case("Qwen", _LLAMA | {"tie_word_embeddings": False, "rope_max_wavelength": 1e6}),
    "qwen3": Case("Qwen3", _LLAMA | {"head_dim": 8, "layer_norm_epsilon": 1e-5}),
    "phi3": Case("Phi3", _LLAMA | {"rope_max_wavelength": 5e5, "max_sequence_length": 64}),
    "phi3-long": Case(
        "Phi3",
        _LLAMA
        | {
            "max_sequence_length": 64,
            "pretraining_sequence_length": 8,
            "rope_scaling_type": "su",
            "rope_scaling_short_factor": [1.0, 1.5],
            "rope_scaling_long_factor": [2.0, 5.0],
        },
    ),
    "gemma": Case("Gemma", _GEMMA | {"num_key_value_heads": 1}),
    "gemma2": Case("Gemma", _GEMMA | _GEMMA2),
    "gemma3": Case("Gemma3", _GEMMA | _GEMMA3 | {"num_layers": 6}),
    "smollm3": Case("SmolLM3", _SMOLLM3),
    "qwen-moe": Case("QwenMoe", _EXPERTS | {"shared_expert_intermediate_dim": 20}),
    "qwen3-moe": Case("Qwen3Moe", _EXPERTS | {"mlp_only_layers": [1], "norm_top_k_prob": True}),
    "gpt-oss": Case(
        "GptOss",
        _LLAMA
        | {"num_experts": 5, "head_dim": 6, "rope_scaling_factor": 4.0}
        # See `test_keras_hub_departures.py`.
        | {"sliding_window": None},
    ),
    "opt": Case("OPT", _SIZES | {"num_heads": 2, "max_sequence_length": 32}),
    "bloom": Case("Bloom", _SIZES | {"num_heads": 4, "layer_norm_epsilon": 1e-3}),
    "gpt-neox": Case("GPTNeoX", _SIZES | {"num_heads": 2, "rotary_percentage": 0.5}),
    "falcon": Case("Falcon", _SIZES | {"num_attention_heads": 4}),
}
TINY_SHARDS = 3000 / 2**30


LENGTHS = (20, 13)


def logits(model: Any, row: int | None = None) -> np.ndarray:
    """Return the logits of a model, of either library, for two rows with padding, or one alone."""
    token_ids = np.random.default_rng(1).integers(0, 23, (2, max(LENGTHS)))
    padding_mask = np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]
    if row is not None:
        token_ids, padding_mask = (a[[row], : LENGTHS[row]] for a in (token_ids, padding_mask))
    # One program compiles faster than all its operations do.
    call = jax.jit(lambda inputs: model(inputs)) if keras.backend.backend() == "jax" else model
    outputs = call({"token_ids": token_ids, "padding_mask": padding_mask})
    return np.where(padding_mask[..., None], np.asarray(outputs).astype("float32"), 0)


def assert_close(ours: Any, theirs: Any) -> None:
    """Compare the logits of two models in float32."""
    assert difference(ours, theirs) < 1e-5


def difference(ours: Any, theirs: Any, row: int | None = None) -> float:
    """Return how far the logits of two models are apart, measured by the largest of them."""
    expected = logits(theirs, row)
    scale = np.abs(expected).max()
    assert scale > 1  # the comparison says something
    return float(np.abs(logits(ours, row) - expected).max() / scale)


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
