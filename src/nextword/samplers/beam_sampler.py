"""Beam search."""

from typing import Any

from nextword.samplers.arguments import check_count, check_flag, check_range
from nextword.samplers.loop_sampler import LoopSampler


class BeamSampler(LoopSampler):
    """Searches for the most probable continuation, along `num_beams` of them at once.

    At each step the beams are extended by every token, and the best `num_beams` go on. Those that
    end with a stop token are set aside with the score `log_probability / length**length_penalty`,
    where the log probability and the length are those of the new tokens. The search ends at the
    length limit, or once `num_beams` are set aside and no beam scores better, at the length it has
    by then, than the worst of them. The result is deterministic.

    Strings given as `stop` cut the text of the result; the search does not know them. `stream`
    yields the best text in one piece, since it is not known before the end.

    Args:
        num_beams: integer >= 1.
        return_all_beams: whether `generate` returns a list of the `num_beams` best continuations
            of each prompt, best first, in the place of just the best.
        temperature: number >= 0 by which logits are divided; 0 leaves only the greedy choice. A
            prompt with fewer possible continuations than beams gets empty ones for the rest.
        length_penalty: number from -5 to 5. Above 0 it favours long continuations, below 0 short
            ones; at 0 the score is the log probability, at 1 its mean.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    Example:
    ```python
    lm.compile(sampler="beam")
    lm.generate("Keras is a", max_new_tokens=8)
    lm.compile(sampler=nextword.samplers.BeamSampler(num_beams=3, return_all_beams=True))
    best, second, third = lm.generate("Keras is a", max_new_tokens=8)
    ```
    """

    strategy = "beam"

    def __init__(
        self,
        num_beams: int = 5,
        return_all_beams: bool = False,
        *,
        temperature: float = 1.0,
        length_penalty: float = 1.0,
    ) -> None:
        super().__init__(temperature=temperature)
        self.num_beams = check_count("num_beams", num_beams)
        self.return_all_beams = check_flag("return_all_beams", return_all_beams)
        # Within these, no length that fits in memory overflows float32.
        self.length_penalty = check_range("length_penalty", length_penalty, -5, 5)
        self.num_sequences = self.num_beams if self.return_all_beams else None

    def parameters(self) -> dict[str, float | int]:
        return {**super().parameters(), "length_penalty": self.length_penalty}

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "num_beams": self.num_beams,
            "return_all_beams": self.return_all_beams,
        }
        # KerasHub does not have it, and reads only what it has.
        return (
            config if self.length_penalty == 1 else config | {"length_penalty": self.length_penalty}
        )
