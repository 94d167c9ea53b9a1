"""KerasHub on JAX."""

from typing import Any

import keras_hub

from benchmarks.contenders.keras_models import generate, logits
from benchmarks.protocol import Contender, Task, main


def load(task: Task) -> Any:
    """Load a preset, and quantise it where that is asked for."""
    dtype = "float32" if task.precision == "int8" else task.precision
    lm = keras_hub.models.CausalLM.from_preset(task.path, dtype=dtype, preprocessor=None)
    if task.precision == "int8":
        lm.quantize("int8")
    lm.compile(sampler="greedy")
    return lm


if __name__ == "__main__":
    main(Contender(load, generate, logits))
