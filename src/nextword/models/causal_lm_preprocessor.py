"""`CausalLMPreprocessor`: from text to the inputs of a causal language model, and back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nextword.models.preprocessor import Preprocessor, checked_length
from nextword.preprocessing import frame, pad, text_list
from nextword.presets.config_reader import ConfigReader
from nextword.tokenizers import Tokenizer


class CausalLMPreprocessor(Preprocessor):
    """Turns text into the inputs of a `CausalLM`, for training and for generation.

    Args:
        tokenizer: splits text into token ids.
        sequence_length: number of tokens in a training sample, and the default `max_length` of
            generation. Can be set at any time.
        add_start_token: whether to put the tokenizer's start token, if it has one, before a text.
        add_end_token: whether to put the tokenizer's end token, if it has one, behind a training
            sample.

    Attributes:
        parse_special: whether text that looks like a special token, for example `<|im_end|>`,
            becomes that token in prompts and training samples. False, unless it is set: text from
            outside could change the structure of a prompt. It is not stored, so that no preset
            can switch it on.

    Raises:
        ValueError: `sequence_length` is not a positive integer.

    Example:
    ```python
    preprocessor = CausalLMPreprocessor(tokenizer, sequence_length=64)
    x, y, sample_weight = preprocessor(["The quick brown fox"])
    ```
    """

    config_keys: ClassVar[tuple[str, ...]] = (
        "sequence_length",
        "add_start_token",
        "add_end_token",
    )

    def __init__(
        self,
        tokenizer: Tokenizer,
        sequence_length: int = 1024,
        add_start_token: bool = True,
        add_end_token: bool = True,
    ) -> None:
        super().__init__(tokenizer, sequence_length)
        self.add_start_token = add_start_token
        self.add_end_token = add_end_token
        self.parse_special = False

    def write_tokenizer_for_transformers(self, directory: Path) -> None:
        self.tokenizer.save_for_transformers(directory, add_start_token=self.add_start_token)

    @classmethod
    def stored_arguments(cls, config: ConfigReader) -> dict[str, Any]:
        own = ("add_start_token", "add_end_token")
        return super().stored_arguments(config) | {key: config.boolean(key, None) for key in own}

    @classmethod
    def arguments_for(cls, tokenizer: Tokenizer) -> dict[str, Any]:
        return {"add_start_token": tokenizer.add_start_token}

    def __call__(
        self,
        x: str | Sequence[str],
        y: None = None,
        sample_weight: None = None,
        sequence_length: int | None = None,
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Turn texts into training samples: each token is to predict the next.

        A text becomes its start token, its tokens and its end token. One that is too long is cut
        before its end token. Padding has sample weight 0, so a text that leaves nothing to predict
        (an empty one without start and end token) does not count.

        Args:
            x: a text, or a list, tuple or array of texts.
            y: None, since the labels come from the text.
            sample_weight: None, since the weights come from the padding.
            sequence_length: number of tokens of a sample, instead of `self.sequence_length`.

        Returns:
            The inputs (`token_ids`, int32, and `padding_mask`, bool), the labels (int32) and the
            sample weights (bool), each of shape `[batch, sequence_length]`, or
            `[sequence_length]` for a single string.

        Raises:
            TypeError: `x` is no text.
            ValueError: `y` or `sample_weight` is given.
        """
        for name, value in (("y", y), ("sample_weight", sample_weight)):
            if value is not None:
                raise ValueError(
                    f"`{name}` must be None: a {type(self).__name__} makes labels and sample "
                    "weights from the text itself. To give your own, use a model with "
                    f"`preprocessor=None`. Received: {name}={value!r:.80}."
                )
        texts, is_batch = self._texts(x)
        # One token more than a sample has: the last one is only a label.
        token_ids, mask = self._pack(texts, self._length(sequence_length) + 1)
        if not is_batch:
            token_ids, mask = token_ids[0], mask[0]
        inputs = {"token_ids": token_ids[..., :-1], "padding_mask": mask[..., :-1]}
        return inputs, token_ids[..., 1:], mask[..., 1:]

    def call(
        self,
        x: str | Sequence[str],
        y: None = None,
        sample_weight: None = None,
        sequence_length: int | None = None,
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Return what calling the preprocessor returns."""
        return self(x, y, sample_weight, sequence_length)

    def tokenize_prompts(self, prompts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of prompts: no padding, no end token, nothing cut."""
        start_token_id = self._start_token_id()
        return [
            frame(ids, start_token_id=start_token_id)
            for ids in self.tokenizer.tokenize(list(prompts), parse_special=self.parse_special)
        ]

    def generate_preprocess(
        self, x: str | Sequence[str], sequence_length: int | None = None
    ) -> dict[str, np.ndarray]:
        """Turn prompts into padded arrays: with a start token, if any, and without an end token.

        Args:
            x: a prompt, or a list, tuple or array of prompts.
            sequence_length: length of the arrays, instead of `self.sequence_length`.

        Returns:
            `token_ids` (int32) and `padding_mask` (bool) of shape `[batch, sequence_length]`, or
            `[sequence_length]` for a single string.

        Raises:
            TypeError: `x` is no text.
            ValueError: a prompt has more tokens than the arrays have room for.
        """
        length = self._length(sequence_length)
        texts, is_batch = self._texts(x)
        rows = self.tokenize_prompts(texts)
        for index, row in enumerate(rows):
            if len(row) > length:
                raise ValueError(
                    f"Prompt {index} has {len(row)} tokens, more than sequence_length={length}."
                )
        token_ids, mask = pad(rows, length, self._pad_token_id())
        if not is_batch:
            token_ids, mask = token_ids[0], mask[0]
        return {"token_ids": token_ids, "padding_mask": mask}

    def generate_postprocess(self, x: Mapping[str, Any]) -> str | list[str]:
        """Turn generated arrays into texts, without padding and special tokens.

        Args:
            x: `token_ids` and `padding_mask` of shape `[batch, length]` or `[length]`.

        Returns:
            A list of texts, or a text for arrays of one dimension.
        """
        token_ids, mask = np.asarray(x["token_ids"]), np.asarray(x["padding_mask"], "bool")
        if token_ids.ndim == 1:
            return self.tokenizer.detokenize(token_ids[mask])
        return [
            self.tokenizer.detokenize(ids[kept]) for ids, kept in zip(token_ids, mask, strict=True)
        ]

    def _texts(self, x: Any) -> tuple[list[str], bool]:
        if isinstance(x, Mapping):
            raise TypeError(
                f"A {type(self).__name__} takes text: a string, or a list, tuple or array of "
                "strings. For token ids, use a model with `preprocessor=None`. Received: a dict "
                f"with the keys {list(x)!r:.200}."
            )
        return text_list(x)

    def _pack(self, texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        rows = [
            frame(
                ids,
                start_token_id=self._start_token_id(),
                end_token_id=self.tokenizer.end_token_id if self.add_end_token else None,
                max_length=length,
            )
            for ids in self.tokenizer.tokenize(texts, parse_special=self.parse_special)
        ]
        return pad(rows, length, self._pad_token_id())

    def _length(self, sequence_length: int | None) -> int:
        return self.sequence_length if sequence_length is None else checked_length(sequence_length)

    def _start_token_id(self) -> int | None:
        return self.tokenizer.start_token_id if self.add_start_token else None
