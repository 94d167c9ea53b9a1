"""A linear layer whose kernel is stored `[out, in]`."""

from typing import Any

from nextword.layers.layer import Layer
from nextword.layers.matrix import Matrix
from nextword.ops.native.step_program import NativeMatrix
from nextword.quantization import WeightFormat


class Linear(Layer):
    """Project the last axis: `inputs @ kernel.T + bias`.

    Args:
        units: size of the output's last axis.
        use_bias: whether to add a bias.
        **kwargs: `name`, `dtype` and the like, see `keras.layers.Layer`.

    Attributes:
        kernel: the `Matrix`, once the layer is built.
        bias: the variable, or None.

    Example:
    >>> import numpy as np
    >>> Linear(3)(np.zeros((2, 5, 4), "float32")).shape
    (2, 5, 3)
    """

    def __init__(self, units: int, *, use_bias: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.use_bias = use_bias

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        width: Any = input_shape[-1]
        self.kernel = Matrix(self, "kernel", (self.units, width), self.accepts)
        self.bias = (
            self.add_weight(name="bias", shape=(self.units,), initializer="zeros")
            if self.use_bias
            else None
        )

    def accepts(self, form: WeightFormat) -> bool:
        """Return whether the kernel may be rounded to a format."""
        return True

    def call(self, inputs: Any) -> Any:
        return self.kernel.apply(inputs, self.bias)

    def native(self) -> tuple[NativeMatrix, Any | None]:
        """Return the matrix and the bias for a `StepProgram`."""
        return self.kernel.native(), self.bias

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The layer's matrices; LoRA trains the first."""
        return (self.kernel,)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "use_bias": self.use_bias}
