"""ONNX Runtime GenAI, on the model that its own builder makes. It does not tell logits."""

import json
from typing import Any

import numpy as np
import onnxruntime_genai

from benchmarks.machine import THREADS
from benchmarks.protocol import Contender, Task, main


def load(task: Task) -> Any:
    """Load the model with as many threads as the others have."""
    config = onnxruntime_genai.Config(task.path)
    options = {"intra_op_num_threads": THREADS}
    config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    return onnxruntime_genai.Model(config)


def generate(model: Any, prompts: list[list[int]], new_tokens: int) -> None:
    """Continue prompts of one length; see `Contender.generate`."""
    length = len(prompts[0]) + new_tokens
    parameters = onnxruntime_genai.GeneratorParams(model)
    parameters.set_search_options(
        batch_size=len(prompts), max_length=length, min_length=length, do_sample=False
    )
    generator = onnxruntime_genai.Generator(model, parameters)
    generator.append_tokens(np.array(prompts, "int32"))
    for _ in range(new_tokens):
        generator.generate_next_token()
    if generator.token_count() != length:
        raise RuntimeError(f"Not {length} tokens there are: {generator.token_count()}.")


if __name__ == "__main__":
    main(Contender(load, generate))
