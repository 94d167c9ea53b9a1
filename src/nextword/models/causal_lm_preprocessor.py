"""`CausalLMPreprocessor`: from text to the inputs of a causal language model, and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nextword.preprocessing import frame, pad
from nextword.tokenizers import Tokenizer


class CausalLMPreprocessor:
    """Turns text into the inputs of a `CausalLM`, for training and for generation.

    Args:
        tokenizer: splits text into token ids.
        sequence_length: number of tokens in a training sample, and the default `max_length` of
            generation. Can be set at any time.
        add_start_token: whether to put the tokenizer's start token, if it has one, before a text.
        add_end_token: whether to put the tokenizer's end token behind a training sample.

    Raises:
        ValueError: `sequence_length` is not a positive integer.

    Example:
    ```python
    preprocessor = CausalLMPreprocessor(tokenizer, sequence_length=64)
    x, y, sample_weight = preprocessor(["The quick brown fox"])
    ```
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        sequence_length: int = 1024,
        add_start_token: bool = True,
        add_end_token: bool = True,
    ) -> None:
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self.add_start_token = add_start_token
        self.add_end_token = add_end_token

    @property
    def sequence_length(self) -> int:
        """Number of tokens in a training sample, and the default `max_length` of generation."""
        return self._sequence_length

    @sequence_length.setter
    def sequence_length(self, value: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`sequence_length` must be a positive integer. Received: {value!r}.")
        self._sequence_length = value

    def __call__(
        self, x: str | Sequence[str], *, sequence_length: int | None = None
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Turn texts into training samples: each token is to predict the next.

        Args:
            x: a text or several. Longer ones than a sample are cut.
            sequence_length: number of tokens of a sample, instead of `self.sequence_length`.

        Returns:
            The inputs (`token_ids`, int32, and `padding_mask`, bool), the labels (int32) and the
            sample weights (bool), each of shape `[batch, sequence_length]`.
        """
        length = (sequence_length or self.sequence_length) + 1
        end_token_id = self.tokenizer.end_token_id if self.add_end_token else None
        rows = [
            frame(
                ids,
                start_token_id=self._start_token_id(),
                end_token_id=end_token_id,
                max_length=length,
            )
            for ids in self.tokenizer.tokenize([x] if isinstance(x, str) else x)
        ]
        token_ids, mask = pad(rows, length, self._pad_token_id())
        inputs = {"token_ids": token_ids[:, :-1], "padding_mask": mask[:, :-1]}
        return inputs, token_ids[:, 1:], mask[:, 1:]

    def tokenize_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of prompts: no padding, no end token, nothing cut."""
        start_token_id = self._start_token_id()
        return [
            frame(ids, start_token_id=start_token_id)
            for ids in self.tokenizer.tokenize(list(prompts))
        ]

    def generate_preprocess(
        self, x: str | Sequence[str], sequence_length: int | None = None
    ) -> dict[str, np.ndarray]:
        """Turn prompts into padded arrays.

        Args:
            x: a prompt or several.
            sequence_length: length of the arrays, instead of `self.sequence_length`.

        Returns:
            `token_ids` (int32) and `padding_mask` (bool) of shape `[batch, sequence_length]`.

        Raises:
            ValueError: a prompt has more tokens than the arrays have room for.
        """
        length = sequence_length or self.sequence_length
        rows = self.tokenize_prompts([x] if isinstance(x, str) else x)
        for index, row in enumerate(rows):
            if len(row) > length:
                raise ValueError(
                    f"Prompt {index} has {len(row)} tokens, more than sequence_length={length}."
                )
        token_ids, mask = pad(rows, length, self._pad_token_id())
        return {"token_ids": token_ids, "padding_mask": mask}

    def generate_postprocess(self, x: dict[str, Any]) -> list[str]:
        """Turn generated arrays into texts, without padding and special tokens.

        Args:
            x: `token_ids` and `padding_mask` of shape `[batch, length]`.
        """
        token_ids, mask = np.asarray(x["token_ids"]), np.asarray(x["padding_mask"], "bool")
        return [
            self.tokenizer.detokenize(ids[kept]) for ids, kept in zip(token_ids, mask, strict=True)
        ]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, but for the tokenizer."""
        return {
            "sequence_length": self.sequence_length,
            "add_start_token": self.add_start_token,
            "add_end_token": self.add_end_token,
        }

    def _start_token_id(self) -> int | None:
        return self.tokenizer.start_token_id if self.add_start_token else None

    def _pad_token_id(self) -> int:
        pad_token_id = self.tokenizer.pad_token_id
        return 0 if pad_token_id is None else pad_token_id
