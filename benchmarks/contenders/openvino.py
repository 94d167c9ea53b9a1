"""OpenVINO GenAI, which reads the GGUF files of some architectures. It does not tell logits.

Its defaults round activations to 8 bits, and keys and values too.
"""

from typing import Any

import numpy as np
import openvino_genai
from openvino import Tensor

from benchmarks.machine import THREADS
from benchmarks.protocol import Contender, Task, main


def load(task: Task) -> Any:
    """Make its pipeline, one that computes each prompt anew."""
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.enable_prefix_caching = False
    return openvino_genai.LLMPipeline(
        task.path, "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=THREADS
    )


def generate(pipeline: Any, prompts: list[list[int]], new_tokens: int) -> None:
    """Continue prompts of one length; see `Contender.generate`."""
    config = openvino_genai.GenerationConfig(max_new_tokens=new_tokens, ignore_eos=True)
    token_ids = np.array(prompts, "int64")
    inputs = openvino_genai.TokenizedInputs(Tensor(token_ids), Tensor(np.ones_like(token_ids)))
    lengths = {len(row) for row in pipeline.generate(inputs, config).tokens}
    if lengths != {new_tokens}:
        raise RuntimeError(f"Not {new_tokens} tokens were generated: {lengths}.")


if __name__ == "__main__":
    main(Contender(load, generate))
