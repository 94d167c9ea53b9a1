"""Checks on what the user gives to `generate`, `stream` and `chat`, and on samples for `fit`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nextword.tokenizers import Tokenizer


def token_id_rows(inputs: Any) -> list[list[int]]:
    """Return the prompts in `generate`'s inputs of a model without a preprocessor.

    Raises:
        TypeError: the inputs are no dict of integer arrays.
        ValueError: the arrays do not fit together.
    """
    if not isinstance(inputs, Mapping) or set(inputs) != {"token_ids", "padding_mask"}:
        raise TypeError(
            "Without a preprocessor `inputs` must be a dict of 'token_ids' and 'padding_mask'. "
            f"Received: {list(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__}."
        )
    token_ids, mask = np.asarray(inputs["token_ids"]), np.asarray(inputs["padding_mask"])
    if token_ids.ndim != 2 or token_ids.shape != mask.shape or not token_ids.size:
        raise ValueError(
            "`token_ids` and `padding_mask` must have the same shape [batch, length]. Received: "
            f"shapes {token_ids.shape} and {mask.shape}."
        )
    if token_ids.dtype.kind not in "iu":
        raise TypeError(f"`token_ids` must be integers. Received: dtype {token_ids.dtype}.")
    return [row[kept].tolist() for row, kept in zip(token_ids, mask.astype("bool"), strict=True)]


def check_assistant(assistant_model: Any, lm: Any) -> None:
    """Raise unless a model can have this `assistant_model`, or None, with its sampler.

    Args:
        assistant_model: the argument.
        lm: the `CausalLM` that is to generate.
    """
    from nextword.models.causal_lm import CausalLM  # which needs these checks

    strategy = lm.sampler.strategy
    if assistant_model is None:
        if strategy == "speculative":
            raise ValueError(
                "Speculative decoding needs a draft model. Pass a small one with the same "
                "vocabulary as `assistant_model`, or compile with another sampler. Received: "
                "assistant_model=None."
            )
        return
    if strategy not in ("sampling", "speculative"):
        raise ValueError(
            f"`assistant_model` has no use with the sampler {lm.sampler!r}. Leave it out, or "
            "compile with a sampler that chooses one token at a time."
        )
    if not isinstance(assistant_model, CausalLM):
        raise TypeError(
            "`assistant_model` must be a `CausalLM` of nextword. Received: an object of type "
            f"{type(assistant_model).__name__}."
        )
    ours = lm.backbone.config.vocabulary_size
    theirs = assistant_model.backbone.config.vocabulary_size
    if ours != theirs:
        raise ValueError(
            f"`assistant_model` must have the vocabulary of the model, which has {ours} tokens. "
            f"Received: a model with {theirs} tokens."
        )


def check_positive(name: str, value: Any) -> None:
    """Raise unless `value` is None or a positive integer."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer. Received: {name}={value!r}.")


def check_prompt(index: int, token_ids: Sequence[int], limit: float, vocabulary_size: int) -> None:
    """Raise if a prompt is empty, leaves no room below `limit`, or holds ids that do not exist."""
    if not token_ids:
        raise ValueError(
            f"Prompt {index} is empty: it has no tokens, and the model puts no start token "
            "before a prompt. Give it at least one token to continue."
        )
    if len(token_ids) >= limit:
        raise ValueError(
            f"Prompt {index} has {len(token_ids)} tokens, which leaves no room to generate within "
            f"the limit of {limit} tokens. Shorten it, or raise `max_length` if the model's "
            "context allows."
        )
    check_token_ids(f"Prompt {index}", min(token_ids), max(token_ids), vocabulary_size)


def check_samples(samples: Any, vocabulary_size: int) -> None:
    """Raise if preprocessed samples hold token ids that do not exist.

    Args:
        samples: what a preprocessor returned. Labels of every position are token ids, too.
        vocabulary_size: number of token ids of the model.
    """
    inputs, *labels = samples if isinstance(samples, tuple) else (samples,)
    token_ids = inputs.get("token_ids") if isinstance(inputs, Mapping) else None
    if not isinstance(token_ids, np.ndarray) or not token_ids.size:
        return
    check_token_ids("A sample", token_ids.min(), token_ids.max(), vocabulary_size)
    if labels and np.shape(labels[0]) == token_ids.shape:
        check_token_ids("A label", 0, np.max(labels[0]), vocabulary_size)


def check_token_ids(owner: str, lowest: int, highest: int, vocabulary_size: int) -> None:
    """Raise unless the lowest and the highest of some token ids exist.

    Args:
        owner: what they are of, the beginning of the message.
        lowest: lowest of the ids.
        highest: highest of the ids.
        vocabulary_size: number of token ids of the model.
    """
    if lowest < 0 or highest >= vocabulary_size:
        raise ValueError(
            f"{owner} has the token id {lowest if lowest < 0 else highest}. Token ids of this "
            f"model go from 0 to {vocabulary_size - 1}."
        )


def check_stop_strings(stop: Any) -> tuple[str, ...]:
    """Return the strings of the `stop` argument."""
    strings = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if not all(isinstance(string, str) and string for string in strings):
        raise ValueError(
            f"`stop` must be a string or strings, none empty. Received: stop={stop!r}."
        )
    return strings


def check_stop_token_ids(stop_token_ids: Any, tokenizer: Tokenizer | None) -> frozenset[int]:
    """Return the ids of the `stop_token_ids` argument.

    Args:
        stop_token_ids: "auto", None, or a sequence of ids.
        tokenizer: what "auto" takes the ids from.
    """
    if isinstance(stop_token_ids, str) and stop_token_ids == "auto":
        if tokenizer is None:
            raise ValueError(
                '`stop_token_ids="auto"` needs a preprocessor, which knows the end tokens. Give '
                "the ids, or None to stop at the length limit only."
            )
        return frozenset(tokenizer.end_token_ids)
    if stop_token_ids is None:
        return frozenset()
    try:
        ids = [int(token_id) for token_id in stop_token_ids]
        valid = ids == list(stop_token_ids)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ValueError(
            '`stop_token_ids` must be "auto", None or a sequence of token ids. Received: '
            f"stop_token_ids={stop_token_ids!r}."
        )
    return frozenset(ids)
