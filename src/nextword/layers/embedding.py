"""Token and position embeddings."""

from typing import Any

import keras
from keras import ops

from nextword.layers.layer import Layer
from nextword.layers.matrix import Matrix


class TokenEmbedding(Layer):
    """Turn token ids into vectors, and hidden states back into logits.

    Args:
        vocabulary_size: number of token ids.
        hidden_dim: width of a vector.
        tie_weights: whether `reverse` uses the embedding itself (https://arxiv.org/abs/1608.05859)
            or a matrix of its own.
        scale: what embedded tokens are multiplied with.
        use_head_bias: whether logits have a bias.
        logit_scale: factor of the logits.
        logit_soft_cap: optional bound `c` of the logits, as `c * tanh(logits / c)`.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.

    Attributes:
        embeddings: the `Matrix` whose rows are the tokens' vectors, once the layer is built.
        reverse_embeddings: the one that gives the logits, which may be the same.

    Example:
    >>> import numpy as np
    >>> embedding = TokenEmbedding(10, 4, tie_weights=True)
    >>> hidden_states = embedding(np.array([[1, 2]]))
    >>> embedding(hidden_states, reverse=True).shape
    (1, 2, 10)
    """

    def __init__(
        self,
        vocabulary_size: int,
        hidden_dim: int,
        *,
        tie_weights: bool,
        scale: float = 1.0,
        use_head_bias: bool = False,
        logit_scale: float = 1.0,
        logit_soft_cap: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary_size = vocabulary_size
        self.hidden_dim = hidden_dim
        self.tie_weights = tie_weights
        self.scale = scale
        self.use_head_bias = use_head_bias
        self.logit_scale = logit_scale
        self.logit_soft_cap = logit_soft_cap

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        shape = (self.vocabulary_size, self.hidden_dim)
        self.embeddings = Matrix(self, "embeddings", shape)
        self.reverse_embeddings = (
            self.embeddings if self.tie_weights else Matrix(self, "reverse_embeddings", shape)
        )
        self.head_bias = (
            self.add_weight(name="head_bias", shape=shape[:1], initializer="zeros")
            if self.use_head_bias
            else None
        )

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The layer's matrices; LoRA trains the first."""
        own = (self.embeddings, self.reverse_embeddings)
        return own[:1] if self.tie_weights else own

    def call(self, inputs: Any, reverse: bool = False) -> Any:
        """Embed token ids, or project hidden states onto the vocabulary.

        Args:
            inputs: int32 tensor of shape `[batch, length]`, or with `reverse=True` a float tensor
                of shape `[..., hidden_dim]`.
            reverse: whether to compute logits.

        Returns:
            Float tensor of shape `[batch, length, hidden_dim]`, or `[..., vocabulary_size]`.
        """
        if not reverse:
            embedded = self.embeddings.rows(inputs)
            # In the compute dtype: checkpoints were trained with the scale rounded to it.
            return embedded * ops.cast(self.scale, embedded.dtype) if self.scale != 1 else embedded
        logits = self.reverse_embeddings.apply(inputs, self.head_bias)
        if self.logit_scale != 1:
            logits = logits * ops.cast(self.logit_scale, logits.dtype)
        if self.logit_soft_cap is None:
            return logits
        return self.logit_soft_cap * ops.tanh(logits / self.logit_soft_cap)

    def compute_output_spec(self, inputs: Any, reverse: bool = False) -> keras.KerasTensor:
        shape = (
            (*inputs.shape[:-1], self.vocabulary_size)
            if reverse
            else (*inputs.shape, self.hidden_dim)
        )
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary_size": self.vocabulary_size,
            "hidden_dim": self.hidden_dim,
            "tie_weights": self.tie_weights,
            "scale": self.scale,
            "use_head_bias": self.use_head_bias,
            "logit_scale": self.logit_scale,
            "logit_soft_cap": self.logit_soft_cap,
        }


class PositionEmbedding(Layer):
    """Add a learned vector for each position.

    Args:
        context_length: number of positions.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.

    Example:
    >>> import numpy as np
    >>> PositionEmbedding(8)(np.zeros((1, 3, 4), "float32")).shape
    (1, 3, 4)
    """

    def __init__(self, context_length: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.context_length = context_length

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.context_length, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )

    def call(self, hidden_states: Any, positions: Any | None = None) -> Any:
        """Add the vectors of `positions`.

        Args:
            hidden_states: float tensor of shape `[batch, length, hidden_dim]`.
            positions: int32 tensor of shape `[batch or 1, length]`; by default 0, 1, 2, …

        Returns:
            Float tensor of the shape of `hidden_states`.
        """
        if positions is None:
            return hidden_states + self.embeddings[: ops.shape(hidden_states)[1]]
        # The padding of a prompt may lie beyond the table. Nobody looks at it, but it must not be
        # NaN, as what lies outside an array is to JAX: zero times NaN is NaN, too.
        rows = ops.minimum(positions, self.context_length - 1)
        return hidden_states + ops.take(self.embeddings, rows, axis=0)

    def compute_output_spec(self, hidden_states: Any, **kwargs: Any) -> keras.KerasTensor:
        return keras.KerasTensor(hidden_states.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "context_length": self.context_length}
