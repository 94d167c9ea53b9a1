"""Sampling from the whole distribution."""

from typing import Any

from nextword.samplers.arguments import check_seed
from nextword.samplers.sampler import Sampler


class RandomSampler(Sampler):
    """Chooses each token with its probability.

    Args:
        seed: integer from 0 to 2**63 - 1, or None for a new seed in every request.
        temperature: number >= 0 by which logits are divided; 0 is greedy choice.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    Example:
    ```python
    lm.compile(sampler=nextword.samplers.RandomSampler(seed=1, temperature=0.7))
    lm.generate("Keras is a", max_new_tokens=8)
    ```
    """

    def __init__(self, seed: int | None = None, *, temperature: float = 1.0) -> None:
        super().__init__(temperature=temperature)
        self.seed = check_seed(seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self.seed}
