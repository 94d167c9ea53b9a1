"""`CausalLM`: a language model that predicts the next token, and so generates text."""

import math
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import keras
import numpy as np

from nextword import samplers
from nextword.generation import Engine, Generation, Request
from nextword.models.backbone import Backbone
from nextword.models.generate_inputs import (
    check_assistant,
    check_positive,
    check_prompt,
    check_stop_strings,
    check_stop_token_ids,
    token_id_rows,
)
from nextword.models.generate_outputs import (
    generated_texts,
    generated_token_ids,
    joined_token_ids,
)
from nextword.models.task import Task, check_backbone
from nextword.models.text_stream import CompletionDecoder, TextStream
from nextword.preprocessing import text_list
from nextword.training.datasets import is_tensorflow_dataset


class CausalLM(Task):
    """A causal language model: a `Backbone` with a head over the vocabulary.

    Called on `{"token_ids", "padding_mask"}` it returns the logits of every position, of shape
    `[batch, length, vocabulary_size]`. Use `from_preset` to load one, `generate` or `stream` to
    continue text, `chat` to talk to an instruction-tuned one, `fit` to train.

    Args:
        backbone: the model without its head.
        preprocessor: turns text into the backbone's inputs; None to work with token ids. It may
            come first, as some classes of KerasHub have it.
        name: name of the model.

    Raises:
        TypeError: there is no backbone.
        ValueError: the backbone is not causal.

    Example:
    ```python
    lm = CausalLM.from_preset("smollm2_135m_instruct_en")
    lm.compile(sampler="greedy")
    print(lm.generate("The capital of France is", max_length=64))
    ```
    """

    kind = "CausalLM"

    def __init__(
        self, backbone: Backbone, preprocessor: Any | None = None, *, name: str | None = None
    ) -> None:
        if isinstance(preprocessor, Backbone):
            backbone, preprocessor = preprocessor, backbone
        check_backbone(backbone)
        if not backbone.config.causal:
            raise ValueError(
                "`backbone` must be causal: no token may see those that it is to predict. "
                f"Received: a {type(backbone).__name__}."
            )
        inputs = backbone.input
        outputs = backbone.token_embedding(backbone(inputs), reverse=True)
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        self.dtype_policy = backbone.dtype_policy
        self.backbone = backbone
        self.preprocessor = preprocessor
        self._engine = Engine(backbone)
        self.compile()

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        *,
        weighted_metrics: Any = "auto",
        sampler: Any = "top_k",
        **kwargs: Any,
    ) -> None:
        """Choose how the model is trained and how `generate` samples.

        Args:
            optimizer: an optimizer or its name; "auto" is Adam with learning rate 2e-5.
            loss: a loss or its name; "auto" is sparse categorical cross-entropy of logits.
            weighted_metrics: metrics that leave padding out; "auto" is token accuracy.
            sampler: a sampler, its name or its config, see `nextword.samplers`.
            **kwargs: see `keras.Model.compile`.
        """
        self.sampler = _sampler(sampler)
        if optimizer == "auto":
            optimizer = keras.optimizers.Adam(2e-5)
        if loss == "auto":
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        if weighted_metrics == "auto":
            weighted_metrics = [keras.metrics.SparseCategoricalAccuracy()]
        super().compile(optimizer=optimizer, loss=loss, weighted_metrics=weighted_metrics, **kwargs)

    def _forget_programs(self) -> None:
        super()._forget_programs()
        self._engine = Engine(self.backbone)

    def export_to_gguf(self, path: str | os.PathLike[str], *, dtype: str | None = None) -> None:
        """Write the model, with its tokenizer, as one GGUF file, which llama.cpp reads, too.

        What LoRA has trained is merged. Norms, biases, what routes tokens to experts and learned
        positions are stored in float32, as llama.cpp wants them. A matrix whose rows are no
        multiple of 32 cannot be stored in blocks, and is stored as "f16" instead.

        Args:
            path: the file. One that is there is replaced.
            dtype: how matrices are stored: "f32", "f16" or "bf16", or in blocks of 32 that share a
                scale, "q8_0", "q4_1" (with a minimum for each) or "q4_0". By default each as it is
                held; one that is held in the blocks that are asked for is not rounded again.

        Raises:
            PresetError: GGUF cannot store such a model or such a tokenizer, or a weight is too
                large for the dtype. Nothing is written then.
            ValueError: there is no such dtype.

        Example:
        ```python
        lm.export_to_gguf("model-q8_0.gguf", dtype="q8_0")
        ```
        """
        # Needs the families, and they this.
        from nextword.models.gguf_export import export_to_gguf

        export_to_gguf(self.backbone, self.preprocessor, Path(path), dtype)

    def get_compile_config(self) -> dict[str, Any]:
        return {**super().get_compile_config(), "sampler": samplers.serialize(self.sampler)}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        others = {name: value for name, value in config.items() if name != "sampler"}
        super().compile_from_config(others)
        if "sampler" in config:
            self.sampler = _sampler(config["sampler"])

    def generate(
        self,
        inputs: Any,
        max_length: int | None = None,
        stop_token_ids: Any = "auto",
        strip_prompt: bool = False,
        *,
        max_new_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        assistant_model: "CausalLM | None" = None,
    ) -> Any:
        """Continue prompts.

        The sampler given to `compile` chooses the tokens. Each row is what it would be alone,
        whatever else is in the batch.

        Args:
            inputs: a text, or a list, tuple or array of texts. Without a preprocessor a dict of
                `token_ids` and `padding_mask`, integer arrays of shape `[batch, length]`. Or a
                `tf.data.Dataset` of batches of these, which are taken one after the other.
            max_length: the most tokens of a prompt and its continuation together. By default the
                preprocessor's `sequence_length` (unless `max_new_tokens` is given), or without a
                preprocessor the length of the arrays.
            stop_token_ids: ids that end a row; "auto" for those that end a text or turn in the
                preprocessor's vocabulary, None for none.
            strip_prompt: whether to return the continuation alone.
            max_new_tokens: the most tokens to generate.
            stop: strings that end a row's continuation and are not part of it.
            assistant_model: a smaller model with the same vocabulary that proposes tokens, for
                speed: see `nextword.samplers.SpeculativeSampler`. It does not change which text
                comes out, or with which probability.

        Returns:
            A text for a text and a list for several. Without a preprocessor a dict of `token_ids`
            and `padding_mask` as wide as the longest row. With a sampler that returns several
            sequences (`BeamSampler(return_all_beams=True)`) a list of texts, best first, in the
            place of each text, and arrays of shape `[batch, sequences, length]`.

        Raises:
            ValueError: a prompt is empty or leaves no room to generate, or an argument is out of
                its range.
            TypeError: an argument has the wrong type.

        Example:
        ```python
        lm.generate(["Once upon a time", "The sky is"], max_new_tokens=32, stop=".")
        ```
        """
        stop = check_stop_strings(stop)
        num_sequences = self.sampler.num_sequences
        if is_tensorflow_dataset(inputs):
            outputs = [
                self.generate(
                    batch,
                    max_length,
                    stop_token_ids,
                    strip_prompt,
                    max_new_tokens=max_new_tokens,
                    stop=stop,
                    assistant_model=assistant_model,
                )
                for batch in inputs.as_numpy_iterator()
            ]
            if self.preprocessor is None:
                return joined_token_ids(outputs, num_sequences)
            return [text for texts in outputs for text in texts]
        if self.preprocessor is None:
            if stop:
                raise ValueError("`stop` needs a preprocessor, to know the text of token ids.")
            prompts = token_id_rows(inputs)
            width = np.shape(inputs["token_ids"])[1]
            requests = self._requests(
                prompts, max_length, max_new_tokens, stop_token_ids, default_max_length=width
            )
            return generated_token_ids(
                self._start(requests, assistant_model),
                num_sequences=num_sequences,
                strip_prompt=strip_prompt,
            )
        texts, is_batch = text_list(inputs, "inputs")
        if not texts:
            raise ValueError("`inputs` must hold at least one prompt. Received: inputs=[].")
        requests = self._requests(
            self.preprocessor.tokenize_prompts(texts),
            max_length,
            max_new_tokens,
            stop_token_ids,
            default_max_length=self.preprocessor.sequence_length,
        )
        texts = generated_texts(
            self._start(requests, assistant_model),
            self.preprocessor.tokenizer,
            num_sequences=num_sequences,
            stop=stop,
            strip_prompt=strip_prompt,
        )
        return texts if is_batch else texts[0]

    def stream(
        self,
        prompt: str,
        max_length: int | None = None,
        stop_token_ids: Any = "auto",
        *,
        max_new_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        assistant_model: "CausalLM | None" = None,
    ) -> TextStream:
        """Continue one prompt, piece by piece as the text is made.

        Args:
            prompt: the text to continue.
            max_length: see `generate`.
            stop_token_ids: see `generate`.
            max_new_tokens: see `generate`.
            stop: see `generate`.
            assistant_model: see `generate`.

        Returns:
            An iterator of pieces of the continuation, without the prompt. Close it, or leave its
            `with` block, to end early. With beam search the best text is known only at the end, and
            comes in one piece.

        Raises:
            ValueError: see `generate`.
            TypeError: see `generate`.

        Example:
        ```python
        for piece in lm.stream("The capital of France is", max_new_tokens=16):
            print(piece, end="", flush=True)
        ```
        """
        self._require_preprocessor("stream")
        if not isinstance(prompt, str):
            raise TypeError(f"`prompt` must be a string. Received: prompt={prompt!r}.")
        return self._stream(
            self.preprocessor.tokenize_prompts([prompt])[0],
            max_length,
            max_new_tokens,
            stop_token_ids,
            stop,
            assistant_model,
        )

    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_length: int | None = None,
        stop_token_ids: Any = "auto",
        *,
        stream: Literal[False] = False,
        max_new_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        assistant_model: "CausalLM | None" = None,
    ) -> str: ...

    @overload
    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_length: int | None = None,
        stop_token_ids: Any = "auto",
        *,
        stream: Literal[True],
        max_new_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        assistant_model: "CausalLM | None" = None,
    ) -> TextStream: ...

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        max_length: int | None = None,
        stop_token_ids: Any = "auto",
        *,
        stream: bool = False,
        max_new_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        assistant_model: "CausalLM | None" = None,
    ) -> str | TextStream:
        """Answer a conversation, written in the form that the model was trained on.

        Text in a message that looks like a special token stays text.

        Args:
            messages: the conversation so far, each message a dict of "role" ("system", "user" or
                "assistant") and "content".
            max_length: the most tokens of the conversation and the answer together.
            stop_token_ids: see `generate`.
            stream: whether to return the answer piece by piece as it is made.
            max_new_tokens: see `generate`.
            stop: see `generate`.
            assistant_model: see `generate`.

        Returns:
            The answer, or with `stream=True` an iterator of its pieces.

        Raises:
            ValueError: the model has no chat template, or a message is not what it takes.

        Example:
        ```python
        lm.chat([{"role": "user", "content": "What is the capital of France?"}])
        ```
        """
        self._require_preprocessor("chat")
        pieces = self._stream(
            self.preprocessor.tokenizer.encode_chat(messages),
            max_length,
            max_new_tokens,
            stop_token_ids,
            stop,
            assistant_model,
        )
        return pieces if stream else "".join(pieces)

    def _stream(
        self,
        prompt: list[int],
        max_length: int | None,
        max_new_tokens: int | None,
        stop_token_ids: Any,
        stop: str | Sequence[str] | None,
        assistant_model: "CausalLM | None",
    ) -> TextStream:
        stop = check_stop_strings(stop)
        requests = self._requests(
            [prompt],
            max_length,
            max_new_tokens,
            stop_token_ids,
            default_max_length=self.preprocessor.sequence_length,
        )
        generation = self._start(requests, assistant_model)
        return TextStream(generation, CompletionDecoder(self.preprocessor.tokenizer, prompt, stop))

    def _start(self, requests: Sequence[Request], assistant_model: "CausalLM | None") -> Generation:
        """Start a generation with the sampler, and with the draft model if there is one."""
        check_assistant(assistant_model, self)
        if assistant_model is None:
            return self._engine.generate(requests, self.sampler)
        sampler = self.sampler
        if not isinstance(sampler, samplers.SpeculativeSampler):
            sampler = samplers.SpeculativeSampler(base_sampler=sampler)
        return self._engine.generate(requests, sampler, draft=assistant_model._engine)

    def _requests(
        self,
        prompts: Sequence[Sequence[int]],
        max_length: int | None,
        max_new_tokens: int | None,
        stop_token_ids: Any,
        *,
        default_max_length: int,
    ) -> list[Request]:
        """Check the arguments of a generation and turn them into requests."""
        check_positive("max_length", max_length)
        check_positive("max_new_tokens", max_new_tokens)
        context_length = self.backbone.config.context_length
        if max_length is not None and context_length is not None and max_length > context_length:
            raise ValueError(
                f"`max_length` must be at most {context_length}, the context of the model. "
                f"Received: max_length={max_length}."
            )
        if max_length is None and max_new_tokens is None:
            max_length = default_max_length
        limit = min(n for n in (max_length, context_length, math.inf) if n is not None)
        tokenizer = self.preprocessor.tokenizer if self.preprocessor else None
        stop_ids = check_stop_token_ids(stop_token_ids, tokenizer)
        seed = getattr(self.sampler, "seed", None)
        requests = []
        for index, prompt in enumerate(prompts):
            check_prompt(index, prompt, limit, self.backbone.config.vocabulary_size)
            requests.append(
                Request(
                    token_ids=prompt,
                    max_new_tokens=int(min(limit - len(prompt), max_new_tokens or math.inf)),
                    stop_token_ids=stop_ids,
                    # Drawn from the generator that `keras.utils.set_random_seed` seeds.
                    seed=random.randrange(2**63) if seed is None else seed,
                )
            )
        return requests

    def _require_preprocessor(self, method: str) -> None:
        if self.preprocessor is None:
            raise ValueError(
                f"`{method}` needs a preprocessor, and this model has none: `preprocessor=None`."
            )


def _sampler(identifier: Any) -> samplers.Sampler:
    sampler = samplers.get(identifier)
    if sampler is None:
        raise ValueError(
            "`sampler` must be a sampler, its name or its config. Received: sampler=None."
        )
    return sampler
