"""ALiBi's slopes and biases are those of transformers, to the last bit where it rounds."""

from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
import torch
from transformers.models.bloom import modeling_bloom
from transformers.models.falcon import modeling_falcon

from nextword.layers.alibi import alibi_bias, alibi_slopes

LENGTH = 700  # beyond 256, where bfloat16 no longer holds every position


@pytest.mark.parametrize("num_heads", [1, 6, 16, 71])
@pytest.mark.parametrize(
    ("module", "dtype", "tolerance"),
    [(modeling_bloom, "float32", 1e-6), (modeling_falcon, "bfloat16", 0)],
    ids=["bloom", "falcon"],
)
def test_biases(module: ModuleType, dtype: Any, tolerance: float, num_heads: int) -> None:
    mask = torch.ones((1, LENGTH), dtype=torch.int64)
    expected = module.build_alibi_tensor(mask, num_heads, torch.float32).numpy()
    positions = np.arange(LENGTH, dtype="int32")[None]
    biases = alibi_bias(alibi_slopes(num_heads), positions, dtype=dtype, scale=0.5)
    biases = keras.ops.convert_to_numpy(biases)
    assert biases.shape == (1, num_heads, 1, LENGTH)
    np.testing.assert_allclose(biases[0], expected / 2, rtol=tolerance)
