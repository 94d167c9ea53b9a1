"""`TextStream`: generated text, piece by piece, as it is made."""

from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Self

from nextword.generation import FinishReason, Generation, Statistics
from nextword.tokenizers import Tokenizer


class CompletionDecoder:
    """Turns the tokens that continue one prompt into text, up to a stop string.

    Text that could be the beginning of a stop string is held back until it is known not to be.

    Args:
        tokenizer: of the model.
        prompt_ids: the prompt's token ids; how some tokenizers write a token depends on those
            before it.
        stop: strings that end the text; they are not part of it.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt_ids: Sequence[int], stop: Sequence[str] = ()
    ) -> None:
        self._decoder = tokenizer.stream_decoder()
        self._vocabulary_size = tokenizer.vocabulary_size()
        self.prompt = self._decoder.push(list(prompt_ids))
        self.is_stopped = False
        self._stop = tuple(stop)
        self._held = ""

    def push(self, token_id: int) -> str:
        """Return the text that a token completes; empty once `is_stopped`."""
        if token_id >= self._vocabulary_size:
            # Embeddings are often padded beyond the vocabulary; such a token stands for no text.
            return ""
        return self._release(self._decoder.push([token_id]), is_last=False)

    def flush(self) -> str:
        """Return the text that was held back, at the end."""
        return self._release(self._decoder.flush(), is_last=True)

    def _release(self, text: str, *, is_last: bool) -> str:
        if self.is_stopped:
            return ""
        held = self._held + text
        found = [held.find(stop) for stop in self._stop if stop in held]
        if found:
            self.is_stopped = True
            return held[: min(found)]
        keep = 0 if is_last else self._possible_stop_length(held)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def _possible_stop_length(self, text: str) -> int:
        """Return the length of the longest end of `text` that begins a stop string."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        for length in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stop):
                return length
        return 0


class TextStream:
    """Generated text, piece by piece: an iterator of `str`, and a context manager that ends it.

    Pieces never hold part of a character, and together they are the whole text.

    Attributes:
        text: the text so far.
        finish_reason: why the text ended ("stop", "length" or "cancelled"), or None before that.
        statistics: counts and times so far.

    Example:
    ```python
    with lm.stream("The capital of France is", max_new_tokens=16) as stream:
        for piece in stream:
            print(piece, end="", flush=True)
    ```
    """

    def __init__(self, generation: Generation, decoder: CompletionDecoder) -> None:
        self.text = ""
        self.finish_reason: FinishReason | None = None
        self._generation = generation
        self._pieces = self._run(decoder)

    @property
    def statistics(self) -> Statistics:
        """Counts and times so far."""
        return self._generation.statistics

    def _run(self, decoder: CompletionDecoder) -> Generator[str]:
        for token in self._generation:
            piece = decoder.push(token.token_id)
            finish_reason = token.finish_reason
            if finish_reason is not None:
                piece += decoder.flush()
            if decoder.is_stopped:
                finish_reason = "stop"
                self._generation.close()
            self.text += piece
            self.finish_reason = finish_reason
            if piece:
                yield piece
            if finish_reason is not None:
                return

    def close(self) -> None:
        """End the generation where it is and free its memory."""
        self._pieces.close()
        self._generation.close()
        if self.finish_reason is None:
            self.finish_reason = "cancelled"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
