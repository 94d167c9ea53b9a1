"""Top-k sampling."""

from typing import Any

from nextword.samplers.arguments import MAX_INT32, check_count, check_seed
from nextword.samplers.filters import filter_top_k
from nextword.samplers.sampler import Sampler


class TopKSampler(Sampler):
    """Chooses among the `k` most probable tokens, each with its probability.

    Tokens that tie with the last of them take part too.

    Args:
        k: integer >= 1. Values beyond the size of the vocabulary keep all tokens.
        seed: integer from 0 to 2**63 - 1, or None for a new seed in every request.
        temperature: number >= 0 by which logits are divided; 0 is greedy choice.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    Example:
    ```python
    lm.compile(sampler="top_k")
    lm.compile(sampler=nextword.samplers.TopKSampler(k=30, seed=1))
    lm.generate("Keras is a", max_new_tokens=8)
    ```
    """

    def __init__(self, k: int = 5, seed: int | None = None, *, temperature: float = 1.0) -> None:
        super().__init__(temperature=temperature)
        self.k = check_count("k", k)
        self.seed = check_seed(seed)

    def parameters(self) -> dict[str, float | int]:
        return {**super().parameters(), "k": min(self.k, MAX_INT32)}

    def filter_logits(self, logits: Any, parameters: dict[str, Any], total: Any = None) -> Any:
        return filter_top_k(logits, parameters["k"])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k, "seed": self.seed}
