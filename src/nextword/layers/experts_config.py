"""`ExpertsConfig`: how a mixture of expert feed-forward networks is made, as data."""

import dataclasses
from collections.abc import Collection
from typing import Literal

from nextword.layers.field_checks import check_integer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """A mixture of expert feed-forward networks (https://arxiv.org/abs/2101.03961).

    Attributes:
        num_experts: number of expert networks, of which a router chooses a few for each token.
        experts_per_token: how many it chooses.
        intermediate_dim: width inside each of them.
        layers: for each layer whether it has experts, or the one network; None for all of them.
        scoring: how the router's logits become scores.
        normalized: whether the scores of the chosen are divided by their sum, before they weigh
            what the experts say.
        scale: factor of the weights.
        choice_bias: whether a learned bias is added to the scores, for the choice alone
            (https://arxiv.org/abs/2408.15664).
        num_groups: number of groups that the experts are divided into.
        groups_per_token: how many groups a token's experts may be of.
        scores_per_group: how many of a group's best scores are added up to choose it.
        shared_dim: width inside a network that every token takes, too; None for no such network.
        shared_gate: whether a learned gate weighs what that network says.

    Raises:
        ValueError: a field is out of its range, or two of them contradict each other.
    """

    num_experts: int
    experts_per_token: int
    intermediate_dim: int
    layers: tuple[bool, ...] | None = None
    scoring: Literal["softmax", "sigmoid"] = "softmax"
    normalized: bool = True
    scale: float = 1.0
    choice_bias: bool = False
    num_groups: int = 1
    groups_per_token: int = 1
    scores_per_group: int = 1
    shared_dim: int | None = None
    shared_gate: bool = False

    # Far above any model there is, and far below what an allocation could not survive.
    MAX_EXPERTS = 1024
    MAX_DIMENSION = 2**24

    def __post_init__(self) -> None:
        check_integer("num_experts", self.num_experts, self.MAX_EXPERTS)
        check_integer("experts_per_token", self.experts_per_token, self.num_experts)
        check_integer("intermediate_dim", self.intermediate_dim, self.MAX_DIMENSION)
        check_integer("num_groups", self.num_groups, self.num_experts)
        check_integer("groups_per_token", self.groups_per_token, self.num_groups)
        if self.num_experts % self.num_groups:
            raise ValueError(
                "`num_experts` must be a multiple of `num_groups`. Received: "
                f"num_experts={self.num_experts}, num_groups={self.num_groups}."
            )
        group = self.num_experts // self.num_groups
        check_integer("scores_per_group", self.scores_per_group, group)
        check_integer("experts_per_token", self.experts_per_token, group * self.groups_per_token)
        if self.shared_dim is not None:
            check_integer("shared_dim", self.shared_dim, self.MAX_DIMENSION)
        elif self.shared_gate:
            raise ValueError("`shared_gate` needs `shared_dim`. Received: None.")


def expert_layers(num_layers: int, step: int, without: Collection[int]) -> tuple[bool, ...]:
    """Return for each layer whether it has experts.

    Args:
        num_layers: number of layers.
        step: every how many layers there are experts.
        without: indices of layers that have none all the same.

    Example:
    >>> expert_layers(5, 2, [3])
    (False, True, False, False, False)
    """
    return tuple((i + 1) % step == 0 and i not in without for i in range(num_layers))
