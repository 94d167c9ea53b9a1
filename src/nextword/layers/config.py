"""`DecoderConfig`: the axes on which transformer language models really differ, as data."""

import dataclasses
from typing import Literal, get_args

from nextword.layers.experts_config import ExpertsConfig
from nextword.layers.field_checks import check_integer
from nextword.layers.latent_config import LatentConfig
from nextword.layers.rotary_config import RotaryConfig

Activation = Literal["gelu", "gelu_tanh", "quick_gelu", "relu", "relu_squared", "silu"]
"""Names of activations: "gelu_tanh" and "quick_gelu" are approximations of "gelu"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Everything that tells one decoder, or encoder, from another, apart from its weights.

    Attributes:
        vocabulary_size: number of token ids.
        num_layers: number of transformer layers.
        hidden_dim: width of the residual stream.
        intermediate_dim: width inside the feed-forward network.
        num_query_heads: number of attention heads.
        num_key_value_heads: number of key/value heads; divides `num_query_heads`.
        head_dim: width of one head.
        context_length: the most positions the model can take, or None where it declares no limit.
        position_embedding: "rotary" (needs `rotary`), "learned" (needs `context_length`) or
            "alibi" (https://arxiv.org/abs/2108.12409).
        alibi_scale: factor of ALiBi's biases.
        alibi_dtype: dtype to which ALiBi's biases are rounded before they are scaled.
        rotary: the rotary embedding's parameters, for `position_embedding="rotary"`.
        sliding_rotary: the same for the layers with a sliding window, where it differs.
        rotary_layers: for each layer whether it rotates queries and keys; None for all of them.
        embedding_scale: what embedded tokens are multiplied with.
        embedding_norm: whether embedded tokens are normalized.
        norm: "rms" or "layer".
        norm_epsilon: added to the variance before its square root.
        norm_offset: added to the stored scale of every normalization.
        norm_bias: whether layer normalizations have a bias.
        norm_placement: whether attention and feed-forward each have a norm before them ("pre"),
            behind them ("branch"), both ("sandwich"), or behind the sum of what they say and what
            they read ("post", https://arxiv.org/abs/1706.03762), which leaves nothing to normalize
            behind the last layer.
        parallel_residual: whether attention and feed-forward both read the layer's input, instead
            of one after the other.
        shared_norm: whether, with `parallel_residual`, they share one norm.
        residual_scale: factor of what attention and feed-forward add to the residual stream.
        query_key_norm: whether queries and keys are normalized before they are rotated: each head
            for itself, by one scale for all heads ("head") or one for each ("each_head", without
            biases), or all heads together ("projection").
        attention_scale: factor of the dot products; `head_dim ** -0.5` by default.
        attention_soft_cap: `c` in `c * tanh(scores / c)` on the scaled dot products, or None.
        attention_sinks: whether each head has a learned logit that takes its share of attention
            and adds nothing (https://arxiv.org/abs/2309.17453).
        logit_scale: factor of the logits.
        logit_soft_cap: the same as `attention_soft_cap` on the logits, or None.
        sliding_window: number of tokens, itself included, that a token sees in layers with a
            sliding window; None where no layer has one.
        sliding_layers: for each layer whether it has the sliding window; None for all of them.
        latent: sizes of latent attention, where keys and values are made of latent vectors;
            `head_dim` is then the sum of `unrotated_dim` and `rotated_dim`.
        query_key_value_bias: whether the query, key and value projections have a bias.
        attention_output_bias: whether the attention's output projection has a bias.
        feed_forward_bias: whether the feed-forward projections have a bias.
        feed_forward_gate: whether the activation gates a second projection (as in SwiGLU,
            https://arxiv.org/abs/2002.05202).
        activation: name of the feed-forward network's activation, see `Activation`.
        gate_limit: bound of the gate from above and of the projection it gates on both sides, to
            which 1 is then added (https://arxiv.org/abs/2508.10925); None for none of this.
        experts: the mixture of experts that takes the feed-forward network's place, or None.
        tie_word_embeddings: whether logits are products with the token embedding itself.
        head_bias: whether the logits have a bias.
        causal: whether a token sees itself and those before it, or all of them. Without that it is
            an encoder, which cannot generate.
        num_segments: number of parts that a text can have, each with a learned vector that is added
            to its tokens; None where tokens do not say what part they are of.
        pooler: whether a dense layer with tanh makes one vector of a text, from its first token.
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
    position_embedding: Literal["rotary", "learned", "alibi"] = "rotary"
    alibi_scale: float = 1.0
    alibi_dtype: Literal["float32", "bfloat16"] = "float32"
    rotary: RotaryConfig | None = None
    sliding_rotary: RotaryConfig | None = None
    rotary_layers: tuple[bool, ...] | None = None
    embedding_scale: float = 1.0
    embedding_norm: bool = False
    norm: Literal["rms", "layer"] = "rms"
    norm_epsilon: float = 1e-6
    norm_offset: float = 0.0
    norm_bias: bool = True
    norm_placement: Literal["pre", "branch", "sandwich", "post"] = "pre"
    parallel_residual: bool = False
    shared_norm: bool = False
    residual_scale: float = 1.0
    query_key_norm: Literal["head", "each_head", "projection"] | None = None
    attention_scale: float | None = None
    attention_soft_cap: float | None = None
    attention_sinks: bool = False
    logit_scale: float = 1.0
    logit_soft_cap: float | None = None
    sliding_window: int | None = None
    sliding_layers: tuple[bool, ...] | None = None
    latent: LatentConfig | None = None
    query_key_value_bias: bool = False
    attention_output_bias: bool = False
    feed_forward_bias: bool = False
    feed_forward_gate: bool = True
    activation: Activation = "silu"
    gate_limit: float | None = None
    experts: ExpertsConfig | None = None
    tie_word_embeddings: bool = False
    head_bias: bool = False
    causal: bool = True
    num_segments: int | None = None
    pooler: bool = False
    dropout: float = 0.0

    # Far above any model there is, and far below what an allocation could not survive.
    MAX_DIMENSION = 2**24
    MAX_LAYERS = 4096
    MAX_ELEMENTS = 2**36

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
            check_integer(field, getattr(self, field), limit)
        # Two dimensions that a matrix has in common are bounded together, too.
        widths = (
            self.vocabulary_size,
            self.intermediate_dim,
            self.num_query_heads * self.head_dim,
            self.experts.num_experts * self.experts.intermediate_dim if self.experts else 0,
            self.num_query_heads * self.latent.value_dim if self.latent else 0,
        )
        ranks = (self.latent.key_value_rank, self.latent.query_rank or 0) if self.latent else ()
        columns = (self.hidden_dim, *ranks)
        if max(widths) * max(columns) > self.MAX_ELEMENTS:
            raise ValueError(
                f"A matrix of the model must have at most {self.MAX_ELEMENTS} elements. Received: "
                f"hidden_dim={self.hidden_dim} and a matrix of {max(widths)} rows."
            )
        if self.context_length is not None:
            check_integer("context_length", self.context_length, 2**31 - 1)
        if self.num_query_heads % self.num_key_value_heads:
            raise ValueError(
                "`num_query_heads` must be a multiple of `num_key_value_heads`. Received: "
                f"num_query_heads={self.num_query_heads}, "
                f"num_key_value_heads={self.num_key_value_heads}."
            )
        if self.position_embedding == "rotary":
            if self.rotary is None:
                raise ValueError("Rotary position embedding needs `rotary`. Received: None.")
            rotated_width = self.latent.rotated_dim if self.latent else self.head_dim
            for rotary in filter(None, (self.rotary, self.sliding_rotary)):
                rotary.check(rotated_width)
        if self.latent is not None:
            for field in ("query_key_norm", "attention_sinks", "attention_soft_cap"):
                if getattr(self, field):
                    raise ValueError(
                        f"With `latent` there can be no `{field}`. Received: "
                        f"{field}={getattr(self, field)!r}."
                    )
        if self.num_segments is not None:
            check_integer("num_segments", self.num_segments, self.MAX_DIMENSION)
        if not self.causal and (self.sliding_window or self.position_embedding == "alibi"):
            raise ValueError(
                "Without `causal`, there can be neither `sliding_window` nor ALiBi. Received: "
                f"sliding_window={self.sliding_window}, "
                f"position_embedding={self.position_embedding!r}."
            )
        if self.parallel_residual and self.norm_placement == "post":
            raise ValueError(
                "`norm_placement` must not be 'post' with `parallel_residual`. Received: 'post'."
            )
        if self.shared_norm and not self.parallel_residual:
            raise ValueError("`shared_norm` needs `parallel_residual`. Received: False.")
        if self.position_embedding == "learned" and self.context_length is None:
            raise ValueError("Learned position embedding needs `context_length`. Received: None.")
        if not (isinstance(self.norm_epsilon, float) and 0 < self.norm_epsilon < 1):
            raise ValueError(
                f"`norm_epsilon` must be between 0 and 1. Received: {self.norm_epsilon!r}."
            )
        if self.sliding_window is not None:
            check_integer("sliding_window", self.sliding_window, 2**31 - 1)
        expert_layers = self.experts.layers if self.experts else None
        for field, layers in (
            ("sliding_layers", self.sliding_layers),
            ("rotary_layers", self.rotary_layers),
            ("experts.layers", expert_layers),
        ):
            if layers is not None and len(layers) != self.num_layers:
                raise ValueError(
                    f"`{field}` must have one entry per layer, {self.num_layers}. Received: "
                    f"{len(layers)} entries."
                )
        if self.activation not in get_args(Activation):
            raise ValueError(
                f"`activation` must be one of {', '.join(map(repr, get_args(Activation)))}. "
                f"Received: activation={self.activation!r}."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={self.dropout}.")

    @property
    def cached_shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The number of heads and their width of what is cached as a token's key, and as value."""
        if self.latent is not None:
            return (1, self.latent.rotated_dim), (1, self.latent.key_value_rank)
        heads = self.num_key_value_heads, self.head_dim
        return heads, heads

    @property
    def changes_beyond(self) -> int | None:
        """The number of tokens beyond which a token's place in a longer text matters, or None."""
        return self.rotary.changes_beyond if self.rotary else None

    @property
    def recomputed_beyond(self) -> int | None:
        """The number of tokens beyond which what is cached of a text no longer holds, or None."""
        return self.rotary.recomputed_beyond if self.rotary else None

    def has_experts(self, layer: int) -> bool:
        """Return whether a layer has a mixture of experts."""
        experts = self.experts
        return experts is not None and (experts.layers is None or experts.layers[layer])

    def rotary_of(self, layer: int) -> RotaryConfig | None:
        """Return the rotary embedding's parameters in a layer, or None where nothing is rotated."""
        if self.rotary_layers is not None and not self.rotary_layers[layer]:
            return None
        is_sliding = self.window(layer) is not None
        return self.sliding_rotary or self.rotary if is_sliding else self.rotary

    def window(self, layer: int) -> int | None:
        """Return how many tokens a token sees in a layer, or None where it sees all."""
        if self.sliding_layers is not None and not self.sliding_layers[layer]:
            return None
        return self.sliding_window
