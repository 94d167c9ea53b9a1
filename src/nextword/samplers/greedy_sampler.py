"""Greedy search."""

from typing import Any

from nextword.samplers.sampler import Rows, Sampler
from nextword.samplers.selection import log_point_mass, sample


class GreedySampler(Sampler):
    """Always chooses the most probable token, the one with the lowest id if several are.

    Args:
        temperature: number >= 0, accepted as by every sampler; it changes no choice here.

    Example:
    ```python
    lm.compile(sampler="greedy")
    lm.generate("Keras is a", max_new_tokens=8)
    ```
    """

    def _choose(self, logits: Any, rows: Rows) -> Any:
        return sample(logits, lambda token_ids: 0.0)

    def log_probabilities(self, logits: Any, parameters: dict[str, Any]) -> Any:
        return log_point_mass(logits)
