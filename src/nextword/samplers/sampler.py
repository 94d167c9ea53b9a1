"""The contract of all samplers: logits in, one token for each row out."""

from contextvars import ContextVar
from typing import Any, NamedTuple, Self

import keras
from keras import ops

from nextword.samplers.arguments import check_temperature
from nextword.samplers.randomness import gumbel_noise, row_keys
from nextword.samplers.selection import (
    is_greedy,
    log_point_mass,
    pad_vocabulary,
    sample,
    sample_filtered,
    scale_logits,
)


class Rows(NamedTuple):
    """What is known of the rows of one step, besides their logits.

    Attributes:
        parameters: name to tensor `[batch]`, the `Sampler.parameters` of each row.
        seeds: int32 `[batch, 2]`, the words of each row's seed.
        steps: int32 `[batch]`, the index of the token that each row is about to choose.
    """

    parameters: dict[str, Any]
    seeds: Any
    steps: Any

    def noise(self, token_ids: Any) -> Any:
        """Return the Gumbel noise of tokens, float32 `[batch, tokens]`; greedy rows have none."""
        greedy = is_greedy(self.parameters["temperature"])[:, None]
        return ops.where(greedy, 0.0, gumbel_noise(self.seeds, self.steps, token_ids))

    def at_unit_temperature(self) -> "Rows":
        """Return the same rows with their temperatures set to 1; greedy rows stay greedy."""
        greedy = is_greedy(self.parameters["temperature"])
        return self._replace(
            parameters={**self.parameters, "temperature": ops.where(greedy, 0.0, 1.0)}
        )

    def row(self, index: int) -> "Rows":
        """Return one of the rows, as a batch of one."""
        one = slice(index, index + 1)
        parameters = {name: values[one] for name, values in self.parameters.items()}
        return Rows(parameters, self.seeds[one], self.steps[one])


# What `get_next_token` needs besides its argument, whose signature is KerasHub's.
_current_rows: ContextVar[Rows] = ContextVar("nextword_sampler_rows")


class Sampler:
    """Chooses the next token of each row from the model's logits.

    A sampler is a description, without state: what it chooses is a function of each row's logits,
    parameters, seed and step, so that a row gets the same tokens alone and in any batch.
    `Sampler` itself draws from the whole distribution.

    **To write your own**, override `get_next_token`, as in KerasHub. It is traced into the
    compiled step, so it must use `keras.ops`; the values of its attributes are constants of that
    program. For a random choice, end it with `return super().get_next_token(probabilities)`, which
    draws with the seed of each request. A `keras.random.SeedGenerator` that is an attribute of the
    sampler works too, at the price of one call for each row: its state is set from the seed and
    step of that row, so the seed it was made with is without effect. Set `self.seed` to make every
    request use that seed.

    Strategies that decide more than one token of one row, such as beam search, cannot be written
    this way: they drive the generation loop (see `nextword.samplers.loop_sampler`).

    Args:
        temperature: number >= 0 by which logits are divided: below 1 the probable tokens become
            more probable, above 1 less. 0 always takes the most probable token.

    Attributes:
        strategy: name of the loop that runs this sampler (see `nextword.generation.engine`).
        num_sequences: number of sequences that a prompt is continued to, where that is a list;
            None for just one.

    Raises:
        TypeError: `temperature` is not a number.
        ValueError: `temperature` is negative or not finite.

    Example:
    ```python
    class WithoutTokens(nextword.samplers.TopKSampler):
        def __init__(self, forbidden_ids, **kwargs):
            super().__init__(**kwargs)
            self.forbidden_ids = forbidden_ids

        def get_next_token(self, probabilities):
            vocabulary_size = probabilities.shape[-1]
            forbidden = keras.ops.one_hot(self.forbidden_ids, vocabulary_size)
            probabilities *= 1 - keras.ops.max(forbidden, axis=0)
            return super().get_next_token(probabilities)

    lm.compile(sampler=WithoutTokens(forbidden_ids=[28, 30], k=10))
    lm.generate("Keras is a", max_new_tokens=8)
    ```
    """

    seed: int | None = None
    strategy: str = "sampling"
    num_sequences: int | None = None

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = check_temperature(temperature)

    @property
    def program(self) -> Any:
        """What two samplers have in common if one compiled program of `next_tokens` serves both.

        For the samplers of this package it is their class, because `parameters` holds all that
        differs. For a subclass made elsewhere it is the sampler itself, because its attributes are
        constants of its program.
        """
        return type(self) if type(self).__module__.startswith(f"{__package__}.") else self

    def parameters(self) -> dict[str, float | int]:
        """Return the numbers that `next_tokens` needs for each row.

        Returns:
            Name to float (to become float32 `[batch]`) or int (to become int32 `[batch]`).
        """
        return {"temperature": self.temperature}

    def next_tokens(self, logits: Any, parameters: dict[str, Any], seeds: Any, steps: Any) -> Any:
        """Choose the next token of each row.

        In order: temperature, then the sampler's own filter (top-k before top-p), then the draw.
        Pure, and traceable with every argument traced.

        Args:
            logits: floating point `[batch, vocabulary]`; minus infinity is a token that must not be
                chosen.
            parameters: the `parameters()` of each row: name to float32 or int32 `[batch]`.
            seeds: int32 `[batch, 2]`, the words of each row's seed
                (see `nextword.samplers.randomness.seed_words`).
            steps: int32 `[batch]`, the index of the token to choose, counted from the first
                generated one.

        Returns:
            int32 `[batch]`, token ids.
        """
        logits = ops.cast(logits, "float32")
        rows = Rows(parameters, seeds, steps)
        if type(self).get_next_token is Sampler.get_next_token:
            return self._choose(logits, rows)
        probabilities = ops.softmax(scale_logits(logits, parameters["temperature"]), axis=-1)
        return self._call_get_next_token(probabilities, rows.at_unit_temperature())

    def get_next_token(self, probabilities: Any) -> Any:
        """Choose the next token of each row from its probabilities. Override this.

        Called by `next_tokens` with the temperature applied (rows with temperature 0 get their
        probabilities at temperature 1, and this method then takes the most probable token).

        Args:
            probabilities: float32 `[batch, vocabulary]`, at least 0; rows need not sum to 1.

        Returns:
            Integers `[batch]`, token ids.

        Raises:
            RuntimeError: called from elsewhere than an override that `next_tokens` called.
        """
        rows = _current_rows.get(None)
        if rows is None:
            raise RuntimeError(
                "`get_next_token` needs the seeds and steps of its rows: "
                "call `next_tokens`, which calls it."
            )
        return self._choose(ops.log(probabilities), rows)

    def filter_logits(self, logits: Any, parameters: dict[str, Any], total: Any = None) -> Any:
        """Remove the tokens that this sampler never chooses.

        Args:
            logits: float32 `[batch, tokens]` with the temperature applied.
            parameters: the `parameters()` of each row: name to float32 or int32 `[batch]`.
            total: None if `logits` are those of the whole vocabulary. Otherwise they are those of
                the most probable tokens in falling order, and `total`, float32 `[batch]`, is
                the sum of `probability_mass` over the vocabulary; if these tokens are not enough to
                know what to remove, the last one must be kept.

        Returns:
            `logits` with minus infinity for the removed tokens. A token is removed only together
            with every less probable one.
        """
        return logits

    def log_probabilities(self, logits: Any, parameters: dict[str, Any]) -> Any:
        """Return the logarithms of the probabilities with which `next_tokens` chooses.

        They say nothing about a sampler that overrides `get_next_token`.

        Args:
            logits: floating point `[batch, vocabulary]`.
            parameters: the `parameters()` of each row: name to float32 or int32 `[batch]`.

        Returns:
            float32 `[batch, vocabulary]`.
        """
        temperature = parameters["temperature"]
        scaled = scale_logits(ops.cast(logits, "float32"), temperature)
        kept = self.filter_logits(scaled, parameters)
        drawn = ops.log_softmax(kept, axis=-1)
        return ops.where(is_greedy(temperature)[:, None], log_point_mass(kept), drawn)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON values."""
        return {"temperature": self.temperature}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a sampler from what `get_config` returned."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"

    def _choose(self, logits: Any, rows: Rows) -> Any:
        scaled = scale_logits(pad_vocabulary(logits), rows.parameters["temperature"])
        if type(self).filter_logits is Sampler.filter_logits:
            return sample(scaled, rows.noise)

        def keep(logits: Any, total: Any) -> Any:
            return self.filter_logits(logits, rows.parameters, total)

        return sample_filtered(scaled, keep, rows.noise)

    def _call_get_next_token(self, probabilities: Any, rows: Rows) -> Any:
        """Call an override, row by row if it has a generator that knows only one seed at a time."""
        generators = [v for v in vars(self).values() if isinstance(v, keras.random.SeedGenerator)]
        if not generators:
            return self._call_with_rows(probabilities, rows)
        tokens = []
        for index in range(probabilities.shape[0]):
            row = rows.row(index)
            # Without the sign bit, the words are valid in every backend's seed dtype.
            words = ops.bitwise_and(ops.concatenate(row_keys(row.seeds, row.steps)), 2**31 - 1)
            states = [(g.state, ops.cast(words, g.state.dtype)) for g in generators]
            with keras.StatelessScope(state_mapping=states):
                tokens.append(self._call_with_rows(probabilities[index : index + 1], row))
        return ops.concatenate(tokens)

    def _call_with_rows(self, probabilities: Any, rows: Rows) -> Any:
        token = _current_rows.set(rows)
        try:
            return ops.cast(self.get_next_token(probabilities), "int32")
        finally:
            _current_rows.reset(token)
