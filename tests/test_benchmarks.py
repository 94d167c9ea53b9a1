"""The benchmark writes the files of every contender, and measures what loads from them."""

from pathlib import Path
from typing import Any

import pytest
from benchmarks.__main__ import CONTENDERS
from benchmarks.contenders import nextword as contender
from benchmarks.models import Model, ModelFiles
from benchmarks.protocol import Contender, Task, measure

import nextword


def tiny() -> Any:
    models = nextword.models
    preprocessor = models.Preprocessor.from_preset(nextword.presets.DEFAULT_PRESET)
    backbone = models.Llama3Backbone(
        vocabulary_size=preprocessor.tokenizer.vocabulary_size(),
        num_layers=1,
        num_query_heads=1,
        num_key_value_heads=1,
        hidden_dim=32,
        intermediate_dim=32,
        tie_word_embeddings=True,
    )
    return models.Llama3CausalLM(
        backbone, models.Llama3CausalLMPreprocessor(preprocessor.tokenizer)
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    precisions = CONTENDERS["nextword"][1]
    return ModelFiles(Model("tiny", tiny, precisions, new_tokens=3), tmp_path_factory.mktemp("m"))


@pytest.mark.parametrize("precision", CONTENDERS["nextword"][1])
def test_files_and_their_size(files: ModelFiles, precision: str) -> None:
    formats = ("gguf",) if precision.startswith("q") else ("gguf", "keras", "transformers")
    for file_format in formats:
        assert files.path(file_format, precision).exists()
    bits = {"float32": 32, "bfloat16": 16, "int8": 8, "q8_0": 8.5, "q4_1": 5, "q4_0": 4.5}
    weights = tiny().backbone.count_params()
    assert files.bytes_per_token(precision) == pytest.approx(
        weights * bits[precision] / 8, rel=0.01
    )


@pytest.mark.parametrize("precision", ["float32", "q4_1"])
def test_figures(files: ModelFiles, precision: str) -> None:
    path: Path = files.path("gguf" if precision == "q4_1" else "transformers", precision)
    task = Task(
        path=str(path),
        precision=precision,
        rows=2,
        prompt_tokens=20,
        new_tokens=3,
        repeats=1,
        vocabulary_size=files.vocabulary_size(),
        text=list(range(100, 120)),
        started=0.0,
    )
    figures = measure(Contender(contender.load, contender.generate, contender.logits), task)
    # Of so small a model the time for a token says nothing, and may seem to be negative.
    assert figures.pop("decode_tokens_per_second")
    assert all(value > 0 for value in figures.values())
    assert figures["perplexity"] > 1000  # of a model that knows nothing
