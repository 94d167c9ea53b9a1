"""The few hot operations, each with a portable implementation in `keras.ops`."""

from nextword.ops.attention import attention
from nextword.ops.linear import linear

__all__ = ["attention", "linear"]
