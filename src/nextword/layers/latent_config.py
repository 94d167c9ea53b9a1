"""`LatentConfig`: the sizes of latent attention, as data."""

import dataclasses

from nextword.layers.field_checks import check_integer


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """Multi-head latent attention (https://arxiv.org/abs/2405.04434, section 2.1).

    Attributes:
        key_value_rank: width of the latent vector of a token's keys and values.
        query_rank: width of that of its queries; None where they are projected at once.
        unrotated_dim: width of the part of a query and key that is not rotated.
        rotated_dim: width of the part that is rotated, which all heads' keys share.
        value_dim: width of a value.
        norm_epsilon: epsilon of the RMS normalization of latent vectors.

    Raises:
        ValueError: a field is out of its range.
    """

    key_value_rank: int
    query_rank: int | None
    unrotated_dim: int
    rotated_dim: int
    value_dim: int
    norm_epsilon: float = 1e-6

    MAX_DIMENSION = 2**24

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and name != "norm_epsilon":
                check_integer(name, value, self.MAX_DIMENSION)
