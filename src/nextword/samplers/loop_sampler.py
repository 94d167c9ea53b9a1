"""The base of the samplers that drive the generation loop."""

from typing import Any, NoReturn

from nextword.samplers.sampler import Sampler


class LoopSampler(Sampler):
    """A sampler that decides more than one token of one row, or more than logits can decide.

    It is a description: `strategy` names the loop in `nextword.generation` that carries it out,
    with the numbers of `parameters`. The methods that choose one token from one step's logits are
    not for it, and a subclass that overrides `get_next_token` is refused, because nothing would
    call it.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.get_next_token is not Sampler.get_next_token:
            raise TypeError(
                f"{cls.__name__} must not override `get_next_token`: its loop chooses tokens "
                "without it. Derive it from `Sampler` instead."
            )

    def next_tokens(
        self, logits: Any, parameters: dict[str, Any], seeds: Any, steps: Any
    ) -> NoReturn:
        """Refuse: the loop chooses.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"{type(self).__name__} drives the generation loop, and cannot choose a token from the "
            "logits of one step. Give it to `compile`."
        )
