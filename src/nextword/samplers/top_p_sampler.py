"""Top-p (nucleus) sampling."""

from typing import Any

from keras import ops

from nextword.samplers.arguments import MAX_INT32, check_count, check_p, check_seed
from nextword.samplers.filters import filter_top_k, filter_top_p, probability_mass
from nextword.samplers.sampler import Sampler


class TopPSampler(Sampler):
    """Chooses among the fewest most probable tokens whose probabilities sum to `p` or more.

    At least one token takes part, and so do tokens that tie with the last of them.

    Args:
        p: number greater than 0 and at most 1; 1 keeps all tokens.
        k: integer >= 1, or None. If set, only the `k` most probable tokens are considered, and
            `p` is a share of what they sum to.
        seed: integer from 0 to 2**63 - 1, or None for a new seed in every request.
        temperature: number >= 0 by which logits are divided; 0 is greedy choice.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    Example:
    ```python
    lm.compile(sampler="top_p")
    lm.compile(sampler=nextword.samplers.TopPSampler(p=0.9, temperature=0.7, seed=1))
    lm.generate("Keras is a", max_new_tokens=8)
    ```
    """

    def __init__(
        self,
        p: float = 0.1,
        k: int | None = None,
        seed: int | None = None,
        *,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(temperature=temperature)
        self.p = check_p(p)
        self.k = None if k is None else check_count("k", k)
        self.seed = check_seed(seed)

    def parameters(self) -> dict[str, float | int]:
        return {**super().parameters(), "p": self.p, "k": min(self.k or 0, MAX_INT32)}

    def filter_logits(self, logits: Any, parameters: dict[str, Any], total: Any = None) -> Any:
        k, p = parameters["k"], parameters["p"]
        kept = filter_top_k(logits, k)
        if total is None:
            return filter_top_p(kept, p)
        # If more than these tokens are among the k best, their sum is unknown, and no share of it
        # can be said to be reached.
        are_enough = ops.equal(kept[:, -1], -float("inf"))
        sum_of_k = ops.where(are_enough, ops.sum(probability_mass(kept), axis=-1), float("inf"))
        return filter_top_p(kept, p, ops.where(k > 0, sum_of_k, total))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "p": self.p, "k": self.k, "seed": self.seed}
