"""transformers on torch, eager."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from benchmarks.machine import THREADS
from benchmarks.protocol import Contender, Task, main


def load(task: Task) -> Any:
    """Load a checkpoint."""
    torch.set_num_threads(THREADS)
    dtype = getattr(torch, task.precision)
    return AutoModelForCausalLM.from_pretrained(task.path, dtype=dtype).eval()


@torch.inference_mode()
def generate(model: Any, prompts: list[list[int]], new_tokens: int) -> None:
    """Continue prompts; see `Contender.generate`."""
    inputs = torch.tensor(prompts)
    outputs = model.generate(
        inputs,
        attention_mask=torch.ones_like(inputs),
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=0,
    )
    if outputs.shape != (len(prompts), len(prompts[0]) + new_tokens):
        raise RuntimeError(f"Not {new_tokens} tokens were generated: {tuple(outputs.shape)}.")


@torch.inference_mode()
def logits(model: Any, token_ids: Sequence[int]) -> np.ndarray:
    """Return the logits of one text; see `Contender.logits`."""
    return model(torch.tensor([token_ids])).logits[0].float().numpy()


if __name__ == "__main__":
    main(Contender(load, generate, logits))
