"""What the choice of each row's next token depends on, apart from its logits."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from keras import ops

from nextword.generation.request import Request
from nextword.samplers import Sampler
from nextword.samplers.randomness import seed_words


class SamplingInputs(NamedTuple):
    """The sampler's numbers and the seeds of some rows, as inputs of compiled programs.

    Attributes:
        parameters: the sampler's parameters, each an array of shape `[rows]`.
        seeds: int32 array of shape `[rows, 2]`, the two words of each request's seed.
    """

    parameters: dict[str, Any]
    seeds: Any

    @classmethod
    def of(cls, requests: Sequence[Request], sampler: Sampler) -> Self:
        """Return the inputs for requests, one row each."""
        parameters = {
            name: np.full(len(requests), value, "int32" if isinstance(value, int) else "float32")
            for name, value in sampler.parameters().items()
        }
        return cls(parameters, np.array([seed_words(r.seed) for r in requests], "int32"))

    def select(self, rows: Sequence[int]) -> Self:
        """Return the inputs of some of the rows."""
        selected = {name: values[list(rows)] for name, values in self.parameters.items()}
        return type(self)(selected, self.seeds[list(rows)])

    def repeat(self, times: int) -> Self:
        """Return the inputs with each row `times` times in a row; usable in compiled programs."""
        repeated = {name: ops.repeat(v, times, axis=0) for name, v in self.parameters.items()}
        return type(self)(repeated, ops.repeat(self.seeds, times, axis=0))
