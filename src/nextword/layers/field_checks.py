"""Checks of the fields of a description."""


def check_integer(name: str, value: object, limit: int) -> None:
    """Check that a field is an integer from 1 to `limit`.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
        raise ValueError(f"`{name}` must be an integer from 1 to {limit}. Received: {value!r}.")
