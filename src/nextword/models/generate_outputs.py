"""What `generate` returns, put together from the tokens of a generation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nextword.generation import Generation
from nextword.models.generate_inputs import token_id_rows
from nextword.models.text_stream import CompletionDecoder
from nextword.preprocessing import pad
from nextword.tokenizers import Tokenizer


def generated_texts(
    generation: Generation,
    tokenizer: Tokenizer,
    *,
    num_sequences: int | None,
    stop: Sequence[str],
    strip_prompt: bool,
) -> list[Any]:
    """Run a generation and return the text of each request.

    Args:
        generation: the generation.
        tokenizer: of the model.
        num_sequences: number of sequences of each request, for a list of texts; None for a text.
        stop: strings that end a continuation.
        strip_prompt: whether to return the continuations alone.
    """
    decoders = [
        [
            CompletionDecoder(tokenizer, request.token_ids, stop)
            for _ in range(1 if num_sequences is None else num_sequences)
        ]
        for request in generation.requests
    ]
    texts = [["" if strip_prompt else decoder.prompt for decoder in row] for row in decoders]
    with generation:
        for request, token_id, finish_reason, sequence in generation:
            decoder = decoders[request][sequence]
            texts[request][sequence] += decoder.push(token_id)
            if finish_reason is not None:
                texts[request][sequence] += decoder.flush()
            elif all(decoder.is_stopped for decoder in decoders[request]):
                generation.cancel(request)
    return texts if num_sequences is not None else [row[0] for row in texts]


def generated_token_ids(
    generation: Generation, *, num_sequences: int | None, strip_prompt: bool
) -> dict[str, np.ndarray]:
    """Run a generation and return the token ids and padding mask of all requests.

    Args:
        generation: the generation.
        num_sequences: number of sequences of each request; None for one, without an axis for it.
        strip_prompt: whether to return the continuations alone.
    """
    width = 1 if num_sequences is None else num_sequences
    rows = [
        [] if strip_prompt else list(request.token_ids)
        for request in generation.requests
        for _ in range(width)
    ]
    with generation:
        for token in generation:
            rows[token.request * width + token.sequence].append(token.token_id)
    return _token_id_arrays(rows, num_sequences)


def joined_token_ids(
    batches: Iterable[Mapping[str, np.ndarray]], num_sequences: int | None
) -> dict[str, np.ndarray]:
    """Return the token ids and padding masks of several batches as one.

    Args:
        batches: what `generated_token_ids` returned.
        num_sequences: see there.
    """
    rows = []
    for batch in batches:
        flat = {name: array.reshape(-1, array.shape[-1]) for name, array in batch.items()}
        rows += token_id_rows(flat)
    return _token_id_arrays(rows, num_sequences)


def _token_id_arrays(
    rows: Sequence[Sequence[int]], num_sequences: int | None
) -> dict[str, np.ndarray]:
    length = max(map(len, rows), default=0)
    shape = (
        (len(rows), length)
        if num_sequences is None
        else (len(rows) // num_sequences, num_sequences, length)
    )
    token_ids, padding_mask = pad(rows, length, pad_token_id=0)
    return {"token_ids": token_ids.reshape(shape), "padding_mask": padding_mask.reshape(shape)}
