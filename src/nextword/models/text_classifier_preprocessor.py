"""`TextClassifierPreprocessor`: from texts, or pairs of them, to the inputs of a classifier."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import keras

from nextword.models.preprocessor import Preprocessor
from nextword.preprocessing import TRUNCATIONS, pack_segments, pad, text_list
from nextword.presets.config_reader import ConfigReader
from nextword.tokenizers import Tokenizer


class TextClassifierPreprocessor(Preprocessor):
    """Turns texts, or pairs of texts, into the inputs of a `TextClassifier`.

    A text becomes the tokenizer's start token, its tokens and the end token (`[CLS]`, a text and
    `[SEP]` of BERT). Further parts follow, each with an end token of its own.

    Args:
        tokenizer: splits text into token ids.
        sequence_length: number of tokens in a sample. Can be set at any time.
        truncate: how parts that are too long together share the room. "round_robin" gives each in
            turn one token more, "waterfall" fills up the first, then the second, and so on.

    Raises:
        ValueError: `sequence_length` is not a positive integer, `truncate` is something else, or
            the tokenizer has no start or no end token.

    Example:
    ```python
    preprocessor = TextClassifierPreprocessor(tokenizer, sequence_length=16)
    x = preprocessor("The quick brown fox jumped.")
    x, y = preprocessor(["The quick brown fox jumped.", "I forgot my homework."], [1, 0])

    first = ["The quick brown fox jumped.", "Call me Ishmael."]
    second = ["The fox tripped.", "Oh look, a whale."]
    x, y = preprocessor((first, second), [1, 1])
    ```
    """

    config_keys: ClassVar[tuple[str, ...]] = ("sequence_length", "truncate")

    def __init__(
        self,
        tokenizer: Tokenizer,
        sequence_length: int = 512,
        truncate: Literal["round_robin", "waterfall"] = "round_robin",
    ) -> None:
        super().__init__(tokenizer, sequence_length)
        if truncate not in TRUNCATIONS:
            raise ValueError(
                f"`truncate` must be {' or '.join(map(repr, TRUNCATIONS))}. Received: "
                f"truncate={truncate!r:.80}."
            )
        self.truncate = truncate
        self._ends()

    @classmethod
    def stored_arguments(cls, config: ConfigReader) -> dict[str, Any]:
        truncate = config.choice("truncate", list(TRUNCATIONS), None)
        return super().stored_arguments(config) | {"truncate": truncate}

    def write_tokenizer_for_transformers(self, directory: Path) -> None:
        self.tokenizer.save_for_transformers(directory, add_start_token=True, add_end_token=True)

    def __call__(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Return the inputs of a classifier for some samples.

        Args:
            x: a text, or a list or array of texts. Or a tuple of several such, the parts of the
                samples: two texts, or two lists of texts.
            y: labels, which are returned as they are.
            sample_weight: weights, which are returned as they are.

        Returns:
            The inputs, or `(inputs, y)` or `(inputs, y, sample_weight)`. The inputs are a dict of
            `token_ids` (int32), `padding_mask` (bool) and `segment_ids` (int32: 0 for the first
            part and for padding, 1 for the second), each of shape `[batch, sequence_length]`, or
            `[sequence_length]` where the parts are single texts.

        Raises:
            TypeError: `x` is no text.
            ValueError: the parts have different lengths, or the special tokens have no room.
        """
        parts, is_batch = _parts(x)
        start_token_id, end_token_id = self._ends()
        tokens = [self.tokenizer.tokenize(texts) for texts in parts]
        packed = [
            pack_segments(
                segments,
                self.sequence_length,
                start_token_id=start_token_id,
                end_token_id=end_token_id,
                truncate=self.truncate,
            )
            for segments in zip(*tokens, strict=True)
        ]
        length = self.sequence_length
        token_ids, mask = pad([row.token_ids for row in packed], length, self._pad_token_id())
        segment_ids, _ = pad([row.segment_ids for row in packed], length, 0)
        inputs = {"token_ids": token_ids, "padding_mask": mask, "segment_ids": segment_ids}
        if not is_batch:
            inputs = {name: array[0] for name, array in inputs.items()}
        return keras.utils.pack_x_y_sample_weight(inputs, y, sample_weight)

    def call(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Return what calling the preprocessor returns."""
        return self(x, y, sample_weight)

    def _ends(self) -> tuple[int, int]:
        start_token_id, end_token_id = self.tokenizer.start_token_id, self.tokenizer.end_token_id
        if start_token_id is None or end_token_id is None:
            raise ValueError(
                "`tokenizer` must have a start and an end token, to put around the parts of a "
                f"sample. Received: a {type(self.tokenizer).__name__} without."
            )
        return start_token_id, end_token_id


def _parts(x: Any) -> tuple[list[list[str]], bool]:
    """Return the texts of each part of the samples, and whether they are a batch."""
    segments = x if isinstance(x, tuple) else (x,)
    if not segments:
        raise ValueError("`x` must have at least one part. Received: x=().")
    parts, are_batches = zip(*map(text_list, segments), strict=True)
    lengths = [len(texts) for texts in parts]
    if len(set(are_batches)) > 1 or len(set(lengths)) > 1:
        raise ValueError(
            "The parts of the samples must all be texts, or all be lists of as many texts. "
            f"Received: lengths {lengths} (1 for a text alone)."
        )
    return list(parts), are_batches[0]
