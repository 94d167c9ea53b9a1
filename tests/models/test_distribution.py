"""Weights spread over several devices by `keras.distribution`, as they are loaded and used."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

PROGRAM = """
import sys

import keras

import nextword

mesh = keras.distribution.DeviceMesh((1, 2), ("batch", "model"), keras.distribution.list_devices())
layout = keras.distribution.LayoutMap(mesh)
layout["token_embedding/embeddings"] = ("model", None)
layout[".*(query|intermediate)/kernel"] = ("model", None)
distribution = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
keras.distribution.set_distribution(distribution)

lm = nextword.models.CausalLM.from_preset(sys.argv[1], dtype="float32")
lm.compile(sampler="greedy")
for path in ("token_embedding/embeddings", "transformer_layer_0/self_attention/query/kernel"):
    (weight,) = (weight for weight in lm.backbone.weights if weight.path == path)
    shards = weight.value.addressable_shards
    assert {shard.data.shape for shard in shards} == {(weight.shape[0] // 2, weight.shape[1])}
print(lm.generate("The capital of France is", max_length=16))
"""


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="two devices out of one are JAX's")
def test_a_model_over_two_devices_says_what_it_says_on_one(
    smollm2_path: Path, smollm2_in_floats: keras.Model
) -> None:
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(smollm2_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == smollm2_in_floats.generate(
        "The capital of France is", max_length=16
    )
