"""`DecoderConfig`: the axes on which decoder-only language models really differ, as data."""

import dataclasses
import math
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Position interpolation: every position is divided by `factor` (arXiv:2306.15595)."""

    factor: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3Scaling:
    """Llama 3.1's interpolation of low frequencies only (https://arxiv.org/abs/2407.21783).

    Wavelengths above `original_context_length / low_frequency_factor` are stretched by `factor`,
    those below `original_context_length / high_frequency_factor` are kept, and those between are
    blended.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context_length: int


RotaryScaling = LinearScaling | Llama3Scaling


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryConfig:
    """How rotary position embedding turns positions into angles.

    Attributes:
        theta: base of the geometric series of wavelengths.
        scaling: how the frequencies are changed to reach beyond the context of pre-training.
    """

    theta: float = 10000.0
    scaling: RotaryScaling | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.theta) and self.theta > 0):
            raise ValueError(
                f"The rotary `theta` must be a positive number. Received: {self.theta}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Everything that tells one decoder-only model from another, apart from its weights.

    Attributes:
        vocabulary_size: number of token ids.
        num_layers: number of transformer layers.
        hidden_dim: width of the residual stream.
        intermediate_dim: width inside the feed-forward network.
        num_query_heads: number of attention heads.
        num_key_value_heads: number of key/value heads; divides `num_query_heads`.
        head_dim: width of one head.
        context_length: the most positions the model can take, or None where it declares no limit.
        position_embedding: "rotary" (needs `rotary`) or "learned" (needs `context_length`).
        rotary: the rotary embedding's parameters, for `position_embedding="rotary"`.
        norm: "rms" or "layer".
        norm_epsilon: added to the variance before its square root.
        query_key_value_bias: whether the query, key and value projections have a bias.
        attention_output_bias: whether the attention's output projection has a bias.
        feed_forward_bias: whether the feed-forward projections have a bias.
        feed_forward_gate: whether the activation gates a second projection (as in SwiGLU,
            https://arxiv.org/abs/2002.05202).
        activation: name of the activation in `keras.activations`, or "gelu_tanh".
        tie_word_embeddings: whether logits are products with the token embedding itself.
        dropout: rate after the embedding, on attention weights' output and on each residual branch.

    Raises:
        ValueError: a field is out of its range, or two of them contradict each other.
    """

    vocabulary_size: int
    num_layers: int
    hidden_dim: int
    intermediate_dim: int
    num_query_heads: int
    num_key_value_heads: int
    head_dim: int
    context_length: int | None = None
    position_embedding: Literal["rotary", "learned"] = "rotary"
    rotary: RotaryConfig | None = None
    norm: Literal["rms", "layer"] = "rms"
    norm_epsilon: float = 1e-6
    query_key_value_bias: bool = False
    attention_output_bias: bool = False
    feed_forward_bias: bool = False
    feed_forward_gate: bool = True
    activation: str = "silu"
    tie_word_embeddings: bool = False
    dropout: float = 0.0

    # Far above any model there is, and far below what an allocation could not survive.
    MAX_DIMENSION = 2**24
    MAX_LAYERS = 4096

    def __post_init__(self) -> None:
        for field in (
            "vocabulary_size",
            "num_layers",
            "hidden_dim",
            "intermediate_dim",
            "num_query_heads",
            "num_key_value_heads",
            "head_dim",
        ):
            limit = self.MAX_LAYERS if field == "num_layers" else self.MAX_DIMENSION
            _check_integer(field, getattr(self, field), limit)
        if self.context_length is not None:
            _check_integer("context_length", self.context_length, 2**31 - 1)
        if self.num_query_heads % self.num_key_value_heads:
            raise ValueError(
                "`num_query_heads` must be a multiple of `num_key_value_heads`. Received: "
                f"num_query_heads={self.num_query_heads}, "
                f"num_key_value_heads={self.num_key_value_heads}."
            )
        if self.position_embedding == "rotary" and (self.rotary is None or self.head_dim % 2):
            raise ValueError(
                "Rotary position embedding needs `rotary` and an even `head_dim`. Received: "
                f"rotary={self.rotary}, head_dim={self.head_dim}."
            )
        if self.position_embedding == "learned" and self.context_length is None:
            raise ValueError("Learned position embedding needs `context_length`. Received: None.")
        if not (isinstance(self.norm_epsilon, float) and 0 < self.norm_epsilon < 1):
            raise ValueError(
                f"`norm_epsilon` must be between 0 and 1. Received: {self.norm_epsilon!r}."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={self.dropout}.")


def _check_integer(name: str, value: object, limit: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
        raise ValueError(f"`{name}` must be an integer from 1 to {limit}. Received: {value!r}.")
