"""Greedy tokens of the default preset on torch: by the kernels, by Keras, and those of JAX."""

import json
from pathlib import Path
from typing import Any

import pytest

from backends import python_on_torch
from nextword.ops.native import kernels_in_use

pytestmark = pytest.mark.skipif(kernels_in_use() is None, reason="built without native kernels")

PROMPT = "Emoji: 🙂 naïve. The capital of France is"
NEW_TOKENS = 14

ON_TORCH = f"""
import json, sys
from unittest import mock
import nextword
from nextword.ops.native import kernels_used, torch_calls

def generate(**kwargs):
    lm = nextword.models.CausalLM.from_preset(sys.argv[1], **kwargs)
    lm.compile(sampler="greedy")
    def run():
        return lm.generate({PROMPT!r}, max_new_tokens={NEW_TOKENS})
    with mock.patch.object(torch_calls, "decode_step", wraps=torch_calls.decode_step) as step:
        return run, run(), step.call_count

floats, text, steps = generate(dtype="float32")
with kernels_used(None):
    portable = floats()
_, blocks, block_steps = generate()
print(json.dumps([text, steps, portable, blocks, block_steps]))
"""


def test_tokens(smollm2_path: Path, smollm2: Any, smollm2_in_floats: Any) -> None:
    printed = python_on_torch("-c", ON_TORCH, str(smollm2_path))
    text, steps, portable, blocks, block_steps = json.loads(printed.splitlines()[-1])
    assert text == portable
    assert text == smollm2_in_floats.generate(PROMPT, max_new_tokens=NEW_TOKENS)
    assert blocks == smollm2.generate(PROMPT, max_new_tokens=NEW_TOKENS)
    assert steps == block_steps == NEW_TOKENS - 1  # a call for each, all layers at once
