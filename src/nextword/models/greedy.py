"""`compile` of the models that KerasHub samples greedily by default."""

from typing import Any

from nextword.models.causal_lm import CausalLM


def compile_greedily(
    self: CausalLM,
    optimizer: Any = "auto",
    loss: Any = "auto",
    *,
    weighted_metrics: Any = "auto",
    sampler: Any = "greedy",
    **kwargs: Any,
) -> None:
    """Do what `CausalLM.compile` does; `compile = compile_greedily` in a class makes it its own."""
    CausalLM.compile(
        self, optimizer, loss, weighted_metrics=weighted_metrics, sampler=sampler, **kwargs
    )
