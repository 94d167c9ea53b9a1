"""The models that are measured, in the formats of every contender.

SmolLM2 is real, and its perplexity is told. Speed does not depend on the values of weights, so that
the others are random, with SmolLM2's tokenizer: in the shapes of GPT-2 and of Llama 3.2 1B, and a
mixture of experts in a shape like Qwen3's.
"""

import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGUFReader

import nextword
from nextword.presets import DEFAULT_PRESET, resolve_preset

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Bytes of a weight in each precision that is not one of GGUF's blocks."""


_GGUF_NAMES = {"float32": "f32", "bfloat16": "bf16"}


@dataclass(frozen=True)
class Model:
    """A model to measure.

    Attributes:
        title: what it is called in tables.
        make: returns it, with the weights that it has.
        precisions: the precisions in which it is measured.
        new_tokens: how many tokens are decoded.
        is_real: whether its perplexity means anything.
        unknown_to: contenders that do not have its architecture.
    """

    title: str
    make: Callable[[], Any]
    precisions: tuple[str, ...]
    new_tokens: int
    is_real: bool = False
    unknown_to: tuple[str, ...] = ()


def _default() -> Any:
    return nextword.models.CausalLM.from_preset(DEFAULT_PRESET, dtype="float32")


def _random(backbone_cls: Any, task_cls: Any, dtype: str, **sizes: Any) -> Any:
    import keras  # after nextword, which chooses an installed backend

    keras.utils.set_random_seed(0)
    tokenizer = nextword.models.Preprocessor.from_preset(DEFAULT_PRESET).tokenizer
    preprocessor = task_cls.preprocessor_cls(tokenizer)
    return task_cls(backbone_cls(**sizes, dtype=dtype), preprocessor)


def _gpt2() -> Any:
    models = nextword.models
    return _random(
        models.GPT2Backbone,
        models.GPT2CausalLM,
        "float32",
        vocabulary_size=50257,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        intermediate_dim=3072,
    )


def _llama() -> Any:
    models = nextword.models
    return _random(
        models.Llama3Backbone,
        models.Llama3CausalLM,
        "bfloat16",
        vocabulary_size=128256,
        num_layers=16,
        num_query_heads=32,
        num_key_value_heads=8,
        hidden_dim=2048,
        intermediate_dim=8192,
        rope_max_wavelength=500000.0,
        layer_norm_epsilon=1e-5,
        tie_word_embeddings=True,
    )


def _mixture() -> Any:
    models = nextword.models
    return _random(
        models.Qwen3MoeBackbone,
        models.Qwen3MoeCausalLM,
        "bfloat16",
        vocabulary_size=49152,
        num_layers=16,
        num_query_heads=16,
        num_key_value_heads=4,
        head_dim=64,
        hidden_dim=1024,
        intermediate_dim=2048,
        moe_intermediate_dim=512,
        num_experts=32,
        top_k=4,
        norm_top_k_prob=True,
        sliding_window_size=None,
        tie_word_embeddings=True,
    )


MODELS = {
    "smollm2": Model(
        "SmolLM2-135M",
        _default,
        ("float32", "bfloat16", "int8", "q8_0", "q4_1"),
        new_tokens=128,
        is_real=True,
    ),
    "gpt2": Model(
        "GPT-2 shape, 124M",
        _gpt2,
        ("float32", "bfloat16", "int8", "q8_0", "q4_0"),
        new_tokens=128,
        unknown_to=("onnxruntime", "openvino"),
    ),
    "llama-1b": Model("Llama 3.2 shape, 1.2B", _llama, ("bfloat16", "q8_0", "q4_0"), new_tokens=32),
    "mixture": Model(
        "Qwen3-MoE shape, 0.9B, 4 of 32 experts",
        _mixture,
        ("bfloat16", "q8_0", "q4_0"),
        new_tokens=64,
        unknown_to=("onnxruntime", "openvino"),
    ),
}


def benchmark_text() -> str:
    """Return the text whose perplexity is told."""
    return (Path(__file__).parent / "text.txt").read_text(encoding="utf-8")


def _build_onnx(source: Path, path: Path) -> None:
    """Convert a checkpoint of transformers by ONNX Runtime's own builder, which takes a minute."""
    with tempfile.TemporaryDirectory() as cache:
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
        arguments = ["-i", str(source), "-o", str(path), "-p", "int4", "-e", "cpu", "-c", cache]
        subprocess.run([*builder, *arguments], check=True, capture_output=True)


class ModelFiles:
    """A model's files, each written when it is first asked for.

    Args:
        model: the model.
        directory: where its files are kept from run to run.
    """

    def __init__(self, model: Model, directory: Path) -> None:
        self._model = model
        self._directory = directory
        self._lm: Any = None

    def path(self, file_format: str, precision: str) -> Path:
        """Return the path of a model's files.

        Args:
            file_format: "transformers", "keras", "gguf" or "onnx", whose weights have 4 bits.
            precision: of which the weights are; "int8" begins with float32.
        """
        dtype = "float32" if precision == "int8" else precision
        if file_format == "gguf":
            if self._model.is_real and precision == "q4_1":
                return self._default_file()
            blocks = _GGUF_NAMES.get(dtype, dtype)
            return self._written(
                f"{dtype}.gguf", lambda lm, path: lm.export_to_gguf(path, dtype=blocks)
            )
        if file_format == "keras":
            return self._written("keras", lambda lm, path: lm.save_to_preset(path))
        if file_format == "onnx":
            source = self.path("transformers", "float32")
            return self._written("onnx", lambda lm, path: _build_onnx(source, path))
        return self._written("transformers", lambda lm, path: lm.export_to_transformers(path))

    def bytes_per_token(self, precision: str) -> float:
        """Return how many bytes of weights are read for each token of one row."""
        backbone = self._loaded().backbone
        experts = backbone.config.experts
        idle = 0 if experts is None else 1 - experts.experts_per_token / experts.num_experts
        if precision not in BYTES:
            tensors = GGUFReader(self.path("gguf", precision)).tensors
            has_head = any(tensor.name == "output.weight" for tensor in tensors)
            skipped = "token_embd.weight" if has_head else None
            read = [tensor for tensor in tensors if tensor.name != skipped]
            shares = [1 - idle if "_exps." in tensor.name else 1 for tensor in read]
            return sum(int(t.n_bytes) * share for t, share in zip(read, shares, strict=True))
        weights = backbone.count_params()
        if not backbone.config.tie_word_embeddings:
            weights -= backbone.config.vocabulary_size * backbone.config.hidden_dim
        of_experts = (math.prod(w.shape) for w in backbone.weights if "/expert_" in w.path)
        return (weights - idle * sum(of_experts)) * BYTES[precision]

    def text(self) -> list[int]:
        """Return the tokens of the fixed text, none for a random model."""
        if not self._model.is_real:
            return []
        return list(self._loaded().preprocessor.tokenizer.tokenize(benchmark_text()))

    def vocabulary_size(self) -> int:
        """Return the number of tokens that the tokenizer has."""
        return int(self._loaded().preprocessor.tokenizer.vocabulary_size())

    def _loaded(self) -> Any:
        if self._lm is None:
            self._lm = self._model.make()
        return self._lm

    def _written(self, name: str, write: Callable[[Any, Path], object]) -> Path:
        path = self._directory / name
        if not path.exists():
            self._directory.mkdir(parents=True, exist_ok=True)
            write(self._loaded(), path)
        return path

    @staticmethod
    def _default_file() -> Path:
        path = resolve_preset(DEFAULT_PRESET).gguf_path()
        if path is None:
            raise RuntimeError("The default preset is no GGUF file.")
        return path
