"""From text to the id arrays that a model takes."""

from nextword.preprocessing.packing import frame, pad

__all__ = ["frame", "pad"]
