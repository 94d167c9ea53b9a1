"""Speculative decoding."""

from collections.abc import Mapping
from reprlib import repr as short_repr
from typing import Any, Self

from nextword.samplers.arguments import check_count, check_seed
from nextword.samplers.greedy_sampler import GreedySampler
from nextword.samplers.loop_sampler import LoopSampler
from nextword.samplers.sampler import Sampler


class SpeculativeSampler(LoopSampler):
    """Lets a small draft model propose tokens, several of which one step of the model checks.

    Speculative decoding (Leviathan et al. 2023, arXiv:2211.17192). Tokens are chosen as
    `base_sampler` chooses them: with a greedy one the text is the same as without a draft, and
    otherwise it follows the same distribution. Only the speed depends on the draft.

    The draft is given to `generate(..., assistant_model=draft)`. There, any other sampler than
    this one becomes the base of a `SpeculativeSampler` with the defaults.

    Args:
        num_speculative_tokens: integer >= 1, how many tokens the draft proposes at a time.
        base_sampler: how tokens are chosen; None for `GreedySampler`. It must be one that does not
            override `get_next_token`, so that its probabilities are known.
        seed: integer from 0 to 2**63 - 1, or None for the seed of `base_sampler`.
        temperature: number >= 0, or None for the temperature of `base_sampler`.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.

    Example:
    ```python
    base_sampler = nextword.samplers.TopKSampler(k=10, temperature=0.7)
    lm.compile(sampler=nextword.samplers.SpeculativeSampler(3, base_sampler))
    draft = lm  # in earnest a smaller model with the same vocabulary
    lm.generate("Keras is a", max_new_tokens=8, assistant_model=draft)
    ```
    """

    strategy = "speculative"

    def __init__(
        self,
        num_speculative_tokens: int = 5,
        base_sampler: Sampler | None = None,
        seed: int | None = None,
        *,
        temperature: float | None = None,
    ) -> None:
        _check_base(base_sampler)
        if base_sampler is not None and temperature is not None:
            config = base_sampler.get_config() | {"temperature": temperature}
            base_sampler = type(base_sampler).from_config(config)
        if base_sampler is not None:
            temperature = base_sampler.temperature
        super().__init__(temperature=1.0 if temperature is None else temperature)
        self.num_speculative_tokens = check_count("num_speculative_tokens", num_speculative_tokens)
        self.base_sampler = base_sampler
        self.seed = check_seed(seed)
        if self.seed is None and base_sampler is not None:
            self.seed = base_sampler.seed

    @property
    def chooser(self) -> Sampler:
        """The sampler whose choices are sped up."""
        return self.base_sampler or GreedySampler()

    @property
    def program(self) -> Any:
        return self.chooser.program

    def parameters(self) -> dict[str, float | int]:
        return self.chooser.parameters()

    def get_config(self) -> dict[str, Any]:
        from nextword.samplers.serialization import serialize  # which needs all samplers

        base_sampler = self.base_sampler and serialize(self.base_sampler)
        return {
            **super().get_config(),
            "num_speculative_tokens": self.num_speculative_tokens,
            "base_sampler": base_sampler,
            "seed": self.seed,
        }

    def __repr__(self) -> str:
        arguments = self.get_config() | {"base_sampler": self.base_sampler}
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in arguments.items())})"

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Mapping[str, type[Sampler]] | None = None
    ) -> Self:
        """Make a sampler from what `get_config` returned.

        Args:
            config: the configuration.
            custom_objects: class name to class, for a base sampler of your own.
        """
        from nextword.samplers.serialization import deserialize  # which needs all samplers

        base_sampler = config.get("base_sampler")
        if isinstance(base_sampler, Mapping):
            arguments = base_sampler.get("config")
            if isinstance(arguments, Mapping) and arguments.get("base_sampler") is not None:
                raise ValueError("The base sampler of a sampler must not have one itself.")
            config = {**config, "base_sampler": deserialize(base_sampler, custom_objects)}
        return cls(**config)


def _check_base(base_sampler: Any) -> None:
    if base_sampler is None:
        return
    if not isinstance(base_sampler, Sampler):
        raise TypeError(
            "`base_sampler` must be a `Sampler` or None. "
            f"Received: base_sampler={short_repr(base_sampler)}."
        )
    is_known = type(base_sampler).get_next_token is Sampler.get_next_token
    if isinstance(base_sampler, LoopSampler) or not is_known:
        raise TypeError(
            "`base_sampler` must choose one token at a time, with probabilities that are known: "
            "speculative decoding cannot build on a search, nor on a sampler that overrides "
            f"`get_next_token`. Received: base_sampler={short_repr(base_sampler)}."
        )
