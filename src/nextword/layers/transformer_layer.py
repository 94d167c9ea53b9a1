"""One transformer layer: attention and feed-forward, each around the residual stream."""

from collections.abc import Hashable
from typing import Any

import keras
from keras import ops

from nextword.layers.attention import Attention, LayerCache
from nextword.layers.config import DecoderConfig
from nextword.layers.experts import Experts
from nextword.layers.feed_forward import FeedForward
from nextword.layers.latent_attention import LatentAttention
from nextword.layers.layer import Layer
from nextword.layers.linear import Linear
from nextword.layers.normalization import Normalization, norm_layer
from nextword.layers.rotary_embedding import RotaryEmbedding
from nextword.ops.native.step_program import Cache, Register, StepProgram


class TransformerLayer(Layer):
    """A transformer layer as a `DecoderConfig` describes it.

    Args:
        config: the decoder's description.
        layer: index of the layer, for decoders whose layers differ.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.
    """

    def __init__(self, config: DecoderConfig, layer: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        policy = self.dtype_policy
        has_norms_before = config.norm_placement != "branch"
        has_norms_behind = config.norm_placement in ("branch", "sandwich")
        self.config = config
        self._index = layer
        self.self_attention_norm = self._norm("self_attention_norm") if has_norms_before else None
        attention_cls = Attention if config.latent is None else LatentAttention
        self.self_attention = attention_cls(config, layer, name="self_attention", dtype=policy)
        self.self_attention_post_norm = (
            self._norm("self_attention_post_norm") if has_norms_behind else None
        )
        self.feed_forward_norm = (
            self._norm("feed_forward_norm") if has_norms_before and not config.shared_norm else None
        )
        feed_forward_cls = Experts if config.has_experts(layer) else FeedForward
        self.feed_forward = feed_forward_cls(config, name="feed_forward", dtype=policy)
        self.feed_forward_post_norm = (
            self._norm("feed_forward_post_norm") if has_norms_behind else None
        )

    @property
    def rotary(self) -> RotaryEmbedding | None:
        """The rotary embedding of the layer's attention."""
        rotary: RotaryEmbedding | None = self.self_attention.rotary
        return rotary

    @property
    def kind(self) -> Hashable:
        """What tells from layers that compute otherwise, given other values of their variables."""
        config, layer = self.config, self._index
        held = [each for each in self._flatten_layers() if isinstance(each, Linear | Experts)]
        return (
            config.window(layer),
            config.rotary_of(layer),
            config.has_experts(layer),
            *((v.path.removeprefix(self.path), tuple(v.shape), v.dtype) for v in self.variables),
            *(matrix.kind for each in held for matrix in each.matrices),
        )

    def _norm(self, name: str) -> Normalization:
        return norm_layer(self.config, name=name, dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in (
            self.self_attention_norm,
            self.self_attention,
            self.self_attention_post_norm,
            self.feed_forward_norm,
            self.feed_forward,
            self.feed_forward_post_norm,
        ):
            if layer is not None:
                layer.build(input_shape)

    def call(
        self,
        hidden_states: Any,
        padding_mask: Any | None = None,
        positions: Any | None = None,
        cache: LayerCache | None = None,
        rotation: tuple[Any, Any] | None = None,
        training: bool | None = None,
    ) -> Any:
        """Add what attention and feed-forward say to the residual stream.

        Args:
            hidden_states: float tensor of shape `[batch, length, hidden_dim]`.
            padding_mask: see `Attention.call`.
            positions: int32 tensor of shape `[batch or 1, length]`; by default 0, 1, 2, …
            cache: see `Attention.call`.
            rotation: see `Attention.call`.
            training: whether dropout is active.

        Returns:
            Float tensor of shape `[batch, length, hidden_dim]`.
        """
        is_post = self.config.norm_placement == "post"
        if positions is None:
            positions = ops.expand_dims(ops.arange(ops.shape(hidden_states)[1], dtype="int32"), 0)
        normalized = hidden_states
        if self.self_attention_norm is not None and not is_post:
            normalized = self.self_attention_norm(hidden_states)
        attended = self.self_attention(
            normalized,
            positions,
            padding_mask=padding_mask,
            cache=cache,
            rotation=rotation,
            training=training,
        )
        if self.self_attention_post_norm is not None:
            attended = self.self_attention_post_norm(attended)
        residual = hidden_states + self._scaled(attended)
        if self.self_attention_norm is not None and is_post:
            residual = self.self_attention_norm(residual)
        if not self.config.shared_norm:
            normalized = hidden_states if self.config.parallel_residual else residual
        if self.feed_forward_norm is not None and not is_post:
            normalized = self.feed_forward_norm(normalized)
        if cache is not None and isinstance(self.feed_forward, Experts):
            transformed = self.feed_forward.infer(normalized)
        else:
            transformed = self.feed_forward(normalized, training=training)
        if self.feed_forward_post_norm is not None:
            transformed = self.feed_forward_post_norm(transformed)
        outputs = residual + self._scaled(transformed)
        if self.feed_forward_norm is not None and is_post:
            outputs = self.feed_forward_norm(outputs)
        return outputs

    def emit(
        self,
        program: StepProgram,
        inputs: Register,
        cache: tuple[Cache, Cache],
    ) -> Register:
        """Compute in a native step what `call` returns.

        Args:
            program: what the instructions are added to.
            inputs: hidden states.
            cache: the layer's keys and values.
        """
        config = self.config
        is_post = config.norm_placement == "post"
        normalized = inputs
        if self.self_attention_norm is not None and not is_post:
            normalized = self.self_attention_norm.emit(program, inputs)
        attended = self.self_attention.emit(program, normalized, cache)
        if self.self_attention_post_norm is not None:
            attended = self.self_attention_post_norm.emit(program, attended)
        residual = program.add(inputs, attended, config.residual_scale)
        if self.self_attention_norm is not None and is_post:
            residual = self.self_attention_norm.emit(program, residual)
        if not config.shared_norm:
            normalized = inputs if config.parallel_residual else residual
        if self.feed_forward_norm is not None and not is_post:
            normalized = self.feed_forward_norm.emit(program, normalized)
        transformed = self.feed_forward.emit(program, normalized)
        if self.feed_forward_post_norm is not None:
            transformed = self.feed_forward_post_norm.emit(program, transformed)
        outputs = program.add(residual, transformed, config.residual_scale)
        if self.feed_forward_norm is not None and is_post:
            outputs = self.feed_forward_norm.emit(program, outputs)
        return outputs

    def _scaled(self, branch: Any) -> Any:
        scale = self.config.residual_scale
        return branch if scale == 1 else branch * ops.cast(scale, branch.dtype)

    def compute_output_spec(self, hidden_states: Any, **kwargs: Any) -> keras.KerasTensor:
        # Known without tracing the call, which makes building a deep model cheap.
        return keras.KerasTensor(hidden_states.shape, dtype=self.compute_dtype)
