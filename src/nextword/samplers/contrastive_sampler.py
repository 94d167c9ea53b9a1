"""Contrastive search."""

from typing import Any

from nextword.samplers.arguments import check_count, check_range
from nextword.samplers.loop_sampler import LoopSampler


class ContrastiveSampler(LoopSampler):
    """Chooses among the `k` most probable tokens one that adds something to the text.

    Contrastive search (Su et al. 2022, arXiv:2202.06417): each candidate scores
    `(1 - alpha) * probability - alpha * similarity`, and the best is taken. The similarity is the
    largest cosine similarity of the model's final hidden state for the candidate with those of all
    tokens before it, prompt included. The choice is deterministic. It costs the computation and the
    cache memory of `k` rows.

    Args:
        k: integer >= 1. Values beyond the size of the vocabulary keep all tokens.
        alpha: number from 0 to 1, the weight of the similarity; 0 is greedy choice.
        temperature: number >= 0 by which logits are divided; at 0 only the most probable token has
            any probability.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    Example:
    ```python
    lm.compile(sampler="contrastive")
    lm.compile(sampler=nextword.samplers.ContrastiveSampler(k=4, alpha=0.5))
    lm.generate("Keras is a", max_new_tokens=8)
    ```
    """

    strategy = "contrastive"

    def __init__(self, k: int = 5, alpha: float = 0.6, *, temperature: float = 1.0) -> None:
        super().__init__(temperature=temperature)
        self.k = check_count("k", k)
        self.alpha = check_range("alpha", alpha, 0, 1)

    def parameters(self) -> dict[str, float | int]:
        return {**super().parameters(), "alpha": self.alpha}

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k, "alpha": self.alpha}
