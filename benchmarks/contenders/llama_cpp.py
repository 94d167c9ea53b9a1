"""llama.cpp, through the wheel xllamacpp. It does not tell logits."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import xllamacpp

from benchmarks.machine import THREADS
from benchmarks.protocol import Contender, Task, main


def load(task: Task) -> Any:
    """Start its server, which listens to nobody here."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = task.path
    parameters.n_parallel = task.rows
    parameters.n_ctx = task.rows * (task.prompt_tokens + task.new_tokens + 64)
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = THREADS
    parameters.verbosity = -1
    parameters.warmup = False
    return xllamacpp.Server(parameters)


def generate(server: Any, prompts: list[list[int]], new_tokens: int) -> None:
    """Continue prompts, which it batches; see `Contender.generate`."""

    def complete(prompt: list[int]) -> None:
        request = {
            "prompt": prompt,
            "n_predict": new_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "cache_prompt": False,
        }
        answer = server.handle_completions(request)
        answer = json.loads(answer) if isinstance(answer, str) else answer
        if answer["usage"]["completion_tokens"] != new_tokens:
            raise RuntimeError(f"Not {new_tokens} tokens were generated: {answer['usage']}.")

    with ThreadPoolExecutor(len(prompts)) as pool:
        list(pool.map(complete, prompts))


if __name__ == "__main__":
    main(Contender(load, generate))
