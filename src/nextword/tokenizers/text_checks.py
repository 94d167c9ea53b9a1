"""What must hold of text before it is tokenized."""


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
