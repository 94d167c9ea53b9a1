"""What nextword and KerasHub are asked in the same words, since their models have the same face."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


def generate(lm: Any, prompts: list[list[int]], new_tokens: int) -> None:
    """Continue prompts of one length; see `Contender.generate`."""
    length = len(prompts[0])
    token_ids = np.zeros((len(prompts), length + new_tokens), "int32")
    token_ids[:, :length] = prompts
    mask = np.broadcast_to(np.arange(length + new_tokens) < length, token_ids.shape)
    inputs = {"token_ids": token_ids, "padding_mask": mask.astype("int32")}
    outputs = lm.generate(inputs, stop_token_ids=None)
    if np.shape(outputs["token_ids"]) != token_ids.shape:
        raise RuntimeError(f"Not {new_tokens} tokens were generated: {np.shape(outputs)}.")


def logits(lm: Any, token_ids: Sequence[int]) -> np.ndarray:
    """Return the logits of one text; see `Contender.logits`."""
    batch = np.array([token_ids], "int32")
    outputs = lm({"token_ids": batch, "padding_mask": np.ones_like(batch)})
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(outputs, "float32")))[0]
