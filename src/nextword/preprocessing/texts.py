"""Texts in the containers that users, NumPy and datasets keep them in."""

from typing import Any


def text_list(x: Any, name: str = "x") -> tuple[list[str], bool]:
    """Return the texts in an argument, and whether it is a batch.

    Args:
        x: a string, or a list, tuple or one-dimensional array of strings. Bytes, which is how
            TensorFlow and fixed-width arrays keep text, are read as UTF-8.
        name: what the argument is called, for messages.

    Raises:
        TypeError: there is something else than text.
        ValueError: bytes are no UTF-8.

    Example:
    >>> text_list(["one", b"two"])
    (['one', 'two'], True)
    """
    if hasattr(x, "tolist"):
        x = x.tolist()
    is_batch = isinstance(x, list | tuple)
    values = list(x) if is_batch else [x]
    return [_text(value, name) for value in values], is_batch


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, bytes):
        raise TypeError(
            f"`{name}` must be a string, or a list, tuple or one-dimensional array of strings. "
            f"Received in the place of a string: {value!r:.80} of type {type(value).__name__}."
        )
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"Bytes must be text in UTF-8. Received: {value!r:.80} ({error.reason} at byte "
            f"{error.start})."
        ) from None
