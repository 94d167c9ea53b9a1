"""Weights survive what goes wrong while Keras runs."""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def weights_kept(model: keras.Model) -> Iterator[None]:
    """Put a model's variables back if what is done in this context fails or is interrupted.

    On jax, Keras takes the values out of the variables while it trains, evaluates or predicts. If
    the first step fails, by its data or its shapes, or `evaluate` or `predict` is interrupted, it
    does not put them back, and the model is lost (as of Keras 3.15).

    Args:
        model: whose variables; those of its optimizer and its metrics are kept, too. After an
            interruption they have the values of the last complete step.
    """
    optimizer = getattr(model, "optimizer", None)
    variables = [
        *model.variables,
        *model.metrics_variables,
        *(optimizer.variables if optimizer is not None else ()),
    ]
    # No copies: the first step takes over the memory of these arrays.
    values = [variable.value for variable in variables]
    try:
        yield
    except BaseException:
        if hasattr(model, "jax_state_sync"):
            model.jax_state_sync()
        for variable, value in zip(variables, values, strict=True):
            if variable._value is None:
                variable.assign(value)
        raise
