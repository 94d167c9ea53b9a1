"""nextword on JAX."""

from typing import Any

import nextword
from benchmarks.contenders.keras_models import generate, logits
from benchmarks.protocol import Contender, Task, main


def load(task: Task) -> Any:
    """Load a model, in the blocks that its file has or in floats."""
    dtype = task.precision if task.precision in ("float32", "bfloat16") else None
    lm = nextword.models.CausalLM.from_preset(
        task.path,
        dtype=dtype,
        quantization="int8" if task.precision == "int8" else None,
        preprocessor=None,
    )
    lm.compile(sampler="greedy")
    return lm


if __name__ == "__main__":
    main(Contender(load, generate, logits))
