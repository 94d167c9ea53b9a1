"""The backend's top-k: equal scores, of which low precision makes many, keep their order."""

import keras
import numpy as np
import pytest

from nextword.generation.backend import get_backend


@pytest.mark.parametrize("k", [1, 7, 300])
def test_equal_scores_keep_their_order(k: int) -> None:
    random = np.random.default_rng(0)
    choices = np.array([-np.inf, -2e38, -1.5, -0.0, 0.0, 1e-40, 0.25, 3e38], "float32")
    scores = random.choice(choices, (5, 300))
    scores[0] = -np.inf
    selected, indices = get_backend().top_k(keras.ops.convert_to_tensor(scores), k)
    assert keras.backend.standardize_dtype(indices.dtype) == "int32"
    places, indices = np.arange(300)[None], keras.ops.convert_to_numpy(indices)
    order = np.lexsort((np.broadcast_to(places, scores.shape), -scores.astype("float64")), axis=-1)
    expected = np.take_along_axis(scores, order[:, :k], axis=1)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(selected), expected)
    zeros = expected == 0  # two of them, between which backends may tell
    np.testing.assert_array_equal(np.where(zeros, 0, indices), np.where(zeros, 0, order[:, :k]))
