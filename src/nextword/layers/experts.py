"""A mixture of expert feed-forward networks (https://arxiv.org/abs/2101.03961)."""

import functools
from typing import Any

import keras
from keras import ops

from nextword.layers.config import DecoderConfig
from nextword.layers.feed_forward import FeedForward, gated
from nextword.layers.layer import Layer
from nextword.layers.linear import Linear
from nextword.layers.matrix import Matrix, rows_shape
from nextword.ops.native import can_call_kernels
from nextword.ops.native.step_program import Register, StepProgram, written
from nextword.ops.packed_layout import TILE
from nextword.quantization import GroupedFormat, WeightFormat


class Router(Linear):
    """A linear layer whose outputs choose experts.

    Blocks of GGUF never hold its kernel, as in llama.cpp: it is small, and what is rounded here
    changes who computes at all.
    """

    def accepts(self, form: WeightFormat) -> bool:
        """Return whether the kernel may be rounded to a format."""
        return not isinstance(form, GroupedFormat)


class Experts(Layer):
    """Gated feed-forward networks, of which a router chooses a few for each token.

    In `call` every expert computes every token, and those that were not chosen get weight 0: that
    keeps shapes fixed, at the price of work that grows with the number of experts. In `infer` and
    in a native step only the chosen ones compute.

    The matrices of all experts are held as one. Of the formats of packed weights they take the
    blocks of GGUF, as in llama.cpp; 8 bits with a scale for each output they do not, because
    KerasHub keeps them in floats then.

    Args:
        config: the decoder's description, with `experts`.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.
    """

    def __init__(self, config: DecoderConfig, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if config.experts is None or not config.feed_forward_gate:
            raise ValueError(
                "Experts need `experts`, and are gated. Received: "
                f"experts={config.experts}, feed_forward_gate={config.feed_forward_gate}."
            )
        self.config = config
        self.experts = experts = config.experts
        policy, use_bias = self.dtype_policy, config.feed_forward_bias
        self.router = Router(experts.num_experts, use_bias=use_bias, name="router", dtype=policy)
        self.shared = (
            FeedForward(config, experts.shared_dim, name="shared", dtype=policy)
            if experts.shared_dim
            else None
        )
        self.shared_gate = (
            Router(1, name="shared_gate", dtype=policy) if experts.shared_gate else None
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in (self.router, self.shared, self.shared_gate):
            if layer is not None:
                layer.build(input_shape)
        hidden_dim, inner = input_shape[-1], self.experts.intermediate_dim
        self.expert_gate, self.expert_gate_bias = self._kernel("expert_gate", hidden_dim, inner)
        self.expert_intermediate, self.expert_intermediate_bias = self._kernel(
            "expert_intermediate", hidden_dim, inner
        )
        self.expert_output, self.expert_output_bias = self._kernel(
            "expert_output", inner, hidden_dim
        )
        self.choice_bias = (
            self.add_weight(
                name="choice_bias", shape=(self.experts.num_experts,), initializer="zeros"
            )
            if self.experts.choice_bias
            else None
        )

    def _kernel(self, name: str, inputs: int | None, outputs: int | None) -> tuple[Matrix, Any]:
        """Return the stack of matrices `[num_experts, outputs, inputs]`, and the biases."""
        number = self.experts.num_experts
        shape: Any = (number, outputs, inputs)
        kernel = Matrix(self, name, shape, functools.partial(_accepts, shape))
        if not self.config.feed_forward_bias:
            return kernel, None
        bias = self.add_weight(name=f"{name}_bias", shape=(number, outputs), initializer="zeros")
        return kernel, bias

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The matrices of all experts."""
        return self.expert_gate, self.expert_intermediate, self.expert_output

    def call(self, hidden_states: Any, training: bool | None = None) -> Any:
        """Transform each token by the experts chosen for it.

        Args:
            hidden_states: float tensor of shape `[batch, length, hidden_dim]`.
            training: whether dropout is active in the network that all tokens take.

        Returns:
            Float tensor of the same shape.
        """
        dtype = keras.backend.standardize_dtype(hidden_states.dtype)
        weights = ops.cast(self._router_weights(hidden_states), dtype)
        gates, intermediates, kernels = (matrix.floats(dtype) for matrix in self.matrices)
        gate = ops.einsum("bth,eih->btei", hidden_states, gates)
        intermediate = ops.einsum("bth,eih->btei", hidden_states, intermediates)
        if self.expert_gate_bias is not None:
            gate = gate + self.expert_gate_bias
            intermediate = intermediate + self.expert_intermediate_bias
        weighted = gated(self.config, gate, intermediate) * ops.expand_dims(weights, -1)
        outputs = ops.einsum("btei,ehi->bth", weighted, kernels)
        if self.expert_output_bias is not None:
            outputs = outputs + ops.matmul(weights, self.expert_output_bias)
        if self.shared is None:
            return outputs
        shared = self.shared(hidden_states, training=training)
        if self.shared_gate is not None:
            shared = shared * ops.sigmoid(self.shared_gate(hidden_states))
        return outputs + shared

    def infer(self, hidden_states: Any) -> Any:
        """Return what `call` does, by the chosen experts alone where there are native kernels.

        It has no gradient.

        Args:
            hidden_states: see `call`.
        """
        if can_call_kernels(hidden_states):
            width = hidden_states.shape[-1]
            program = written(self, lambda: self._program(width))
            if program is not None:
                return program.run_without_caches(hidden_states)
        return self(hidden_states, training=False)

    def _program(self, width: int) -> StepProgram:
        program = StepProgram(width, [])
        program.result = self.emit(program, program.hidden_states)
        return program

    def emit(self, program: StepProgram, inputs: Register) -> Register:
        """Compute in a native step what `call` returns."""
        experts, config = self.experts, self.config
        (logits,) = program.linear(inputs, self.router.native())
        choice = program.route(
            logits,
            self.choice_bias,
            chosen=experts.experts_per_token,
            is_sigmoid=experts.scoring == "sigmoid",
            is_normalized=experts.normalized,
            scale=experts.scale,
            groups=experts.num_groups,
            chosen_groups=experts.groups_per_token,
            scores_per_group=experts.scores_per_group,
        )
        projected = program.expert_linear(
            inputs,
            choice,
            (self.expert_gate.native(), self.expert_gate_bias),
            (self.expert_intermediate.native(), self.expert_intermediate_bias),
        )
        activated = program.activate(config.activation, *projected, limit=config.gate_limit)
        (said,) = program.expert_linear(
            activated, choice, (self.expert_output.native(), self.expert_output_bias)
        )
        outputs = program.mix(said, choice)
        if self.shared is None:
            return outputs
        shared = self.shared.emit(program, inputs)
        if self.shared_gate is not None:
            # The one expert of a router of its own.
            (gate,) = program.linear(inputs, self.shared_gate.native())
            weight = program.route(gate, None, chosen=1, is_sigmoid=True, is_normalized=False)
            shared = program.mix(shared, weight)
        return program.add(outputs, shared)

    def _router_weights(self, hidden_states: Any) -> Any:
        """Return each expert's weight for each token, `[batch, length, num_experts]`."""
        experts = self.experts
        logits = ops.cast(self.router(hidden_states), "float32")
        is_softmax = experts.scoring == "softmax"
        scores = ops.softmax(logits, axis=-1) if is_softmax else ops.sigmoid(logits)
        chosen = self._chosen(scores)
        weights = scores * chosen
        if experts.normalized:
            weights = weights / (ops.sum(weights, axis=-1, keepdims=True) + 1e-20)
        return weights * experts.scale

    def _chosen(self, scores: Any) -> Any:
        """Return 1 for each expert that is chosen, else 0."""
        experts = self.experts
        if self.choice_bias is not None:
            scores = scores + ops.cast(self.choice_bias, "float32")
        if experts.num_groups > 1:
            shape = (*ops.shape(scores)[:-1], experts.num_groups, -1)
            grouped = ops.reshape(scores, shape)
            best, _ = ops.top_k(grouped, experts.scores_per_group)
            allowed = _largest(ops.sum(best, axis=-1), experts.groups_per_token)
            grouped = ops.where(ops.expand_dims(allowed, -1) > 0, grouped, -1e30)
            scores = ops.reshape(grouped, ops.shape(scores))
        return _largest(scores, experts.experts_per_token)


def _accepts(shape: tuple[int, int, int], form: WeightFormat) -> bool:
    """Return whether the matrices of experts may be rounded to a format."""
    # Each expert has whole tiles, so that its part of the packed weights is its own.
    is_whole = shape[1] % TILE == 0
    return isinstance(form, GroupedFormat) and is_whole and form.fits(rows_shape(shape))


def _largest(scores: Any, number: int) -> Any:
    """Return 1 for each of the largest scores of the last axis, else 0."""
    _, indices = ops.top_k(scores, number)
    return ops.sum(ops.one_hot(indices, scores.shape[-1], dtype="float32"), axis=-2)
