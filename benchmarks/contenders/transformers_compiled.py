"""transformers on torch, with a static cache and compiled steps."""

from typing import Any

import torch

from benchmarks.contenders import transformers
from benchmarks.protocol import Contender, Task, main


def load(task: Task) -> Any:
    """Load a checkpoint and compile it."""
    model = transformers.load(task)
    model.generation_config.cache_implementation = "static"
    model.forward = torch.compile(model.forward)
    return model


if __name__ == "__main__":
    main(Contender(load, transformers.generate, transformers.logits))
