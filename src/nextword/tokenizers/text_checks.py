"""What must hold of text before it is tokenized."""

from typing import Any

import numpy as np


def check_unicode(text: str) -> None:
    r"""Check that a string is made of Unicode characters.

    Python's strings can hold one half of a surrogate pair, for example where a file name or damaged
    JSON was decoded; it stands for no character and has no UTF-8.

    Args:
        text: any string.

    Raises:
        ValueError: it holds a lone surrogate.

    Example:
    >>> check_unicode("a" + chr(0xDC80))
    Traceback (most recent call last):
    ...
    ValueError: Text must not hold lone surrogates. Received: '\udc80' at position 1.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            "Text must not hold lone surrogates. "
            f"Received: {text[error.start]!r} at position {error.start}."
        ) from None


def check_texts(inputs: Any) -> tuple[list[str], bool]:
    """Return the strings in the argument `inputs` of a tokenizer, and whether they are a batch.

    Raises:
        TypeError: it is no string, and no list, tuple or one-dimensional array of strings.
        ValueError: a string holds a lone surrogate.
    """
    if isinstance(inputs, np.ndarray):
        if inputs.ndim > 1:
            raise TypeError(
                "inputs must be a string or a one-dimensional sequence of strings. Received: an "
                f"array of shape {list(inputs.shape)}."
            )
        inputs = inputs.tolist()
    is_batch = isinstance(inputs, list | tuple)
    texts = list(inputs) if is_batch else [inputs]
    for text in texts:
        _check_text(text)
    return texts, is_batch


def _check_text(text: Any) -> None:
    if not isinstance(text, str):
        raise TypeError(
            "inputs must be a string, or a list, tuple or numpy array of strings. Received: "
            f"{text!r:.80} of type {type(text).__name__}."
        )
    check_unicode(text)
