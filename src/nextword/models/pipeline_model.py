"""`PipelineModel`: a Keras model that trains, evaluates and predicts on raw samples."""

from typing import Any

import keras

from nextword.models.summary import preprocessor_summary
from nextword.training import InputPipeline, split_samples, unpack_samples, weights_kept


class PipelineModel(keras.Model):
    """A `keras.Model` whose inputs are preprocessed on their way into `fit` and the like.

    `fit`, `evaluate`, `predict` and their `*_on_batch` forms take what the preprocessor takes, and
    preprocess it batch by batch while the model runs. With `preprocessor=None` they take what
    `keras.Model` takes.

    Attributes:
        preprocessor: called as `preprocessor(x, y=y, sample_weight=sample_weight)`, without what is
            None; returns `x`, `(x, y)` or `(x, y, sample_weight)` for the model. None for none.

    Example:
    ```python
    lm = nextword.models.GPT2CausalLM(
        nextword.models.GPT2Backbone(
            vocabulary_size=tokenizer.vocabulary_size(),
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
        ),
        nextword.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=16),
    )
    texts = ["The quick brown fox jumped.", "I forgot my homework."]
    history = lm.fit(texts, batch_size=2, epochs=2)
    loss, accuracy = lm.evaluate(texts)
    logits = lm.predict(texts)  # shape [2, 16, vocabulary_size]
    ```
    """

    preprocessor: Any = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable(package="nextword")(cls)

    def preprocess_samples(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Return what the model takes for some raw samples; `fit` and the like go through it.

        Args:
            x: inputs, as the preprocessor takes them.
            y: labels, or None.
            sample_weight: weights, or None.

        Returns:
            `x`, `(x, y)` or `(x, y, sample_weight)`, as the preprocessor makes them.

        Example:
        ```python
        x, y, sample_weight = lm.preprocess_samples(["The quick brown fox"])
        ```
        """
        given = {"y": y, "sample_weight": sample_weight}
        return self.preprocessor(x, **{k: v for k, v in given.items() if v is not None})

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
    ) -> Any:
        """Train on raw samples; see `keras.Model.fit` for what is not described here.

        Args:
            x: samples as the preprocessor takes them (for text a list, tuple or array of strings,
                or a dict of them), or a dataset of batches of them: a `keras.utils.PyDataset`,
                `tf.data.Dataset`, `torch.utils.data.DataLoader` or `grain` dataset, a generator,
                or any other iterable that is no sequence.
            y: labels, where the preprocessor does not make them itself.
            batch_size: number of samples in a batch; 32 by default. A dataset has its own.
            epochs: number of passes over the samples.
            verbose: see `keras.Model.fit`.
            callbacks: see `keras.Model.fit`.
            validation_split: fraction of the samples, taken from their end, to validate on.
            validation_data: samples or a dataset to validate on, or a tuple `(x, y)` or
                `(x, y, sample_weight)`.
            shuffle: whether to shuffle samples before each epoch ("batch": within batches). The
                seed is that of `keras.utils.set_random_seed`. A dataset keeps its own order,
                except that Keras shuffles the batches of a finite `PyDataset`.
            class_weight: see `keras.Model.fit`.
            sample_weight: weight of each sample, where the preprocessor takes it.
            initial_epoch: see `keras.Model.fit`.
            steps_per_epoch: see `keras.Model.fit`.
            validation_steps: see `keras.Model.fit`.
            validation_batch_size: see `keras.Model.fit`.
            validation_freq: see `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.

        Raises:
            TypeError: the samples are of no kind that is known.
            ValueError: an argument does not go with the others.
        """
        if self.preprocessor is not None:
            pipeline = InputPipeline(self.preprocess_samples)
            if validation_split and validation_data is None:
                x, validation_data = split_samples(x, y, sample_weight, validation_split)
                y = sample_weight = None
            if validation_data is not None:
                validation_data = pipeline.data(
                    *unpack_samples(validation_data),
                    batch_size=validation_batch_size,
                    default_batch_size=batch_size,
                    steps=validation_steps,
                )
            validation_split, validation_batch_size = 0.0, None
            is_shuffled_by_keras = isinstance(x, keras.utils.PyDataset) and x.num_batches
            x = pipeline.data(
                x,
                y,
                sample_weight,
                batch_size=batch_size,
                shuffle=shuffle,
                steps=steps_per_epoch,
                class_weight=class_weight,
            )
            y = sample_weight = batch_size = None
            shuffle = shuffle if is_shuffled_by_keras else False
        self._prepare_training()
        with weights_kept(self):
            return super().fit(
                x=x,
                y=y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle,
                class_weight=class_weight,
                sample_weight=sample_weight,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_batch_size=validation_batch_size,
                validation_freq=validation_freq,
            )

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Return the loss and the metrics on raw samples; see `keras.Model.evaluate`.

        Args:
            x: samples or a dataset, see `fit`.
            y: see `fit`.
            batch_size: see `fit`.
            verbose: see `keras.Model.evaluate`.
            sample_weight: see `fit`.
            steps: see `keras.Model.evaluate`.
            callbacks: see `keras.Model.evaluate`.
            return_dict: whether to return a dict by name instead of a list.
            **kwargs: Keras' own.
        """
        # Keras passes an argument of its own where `fit` validates on what it has preprocessed.
        if self.preprocessor is not None and not kwargs:
            x = InputPipeline(self.preprocess_samples).data(
                x, y, sample_weight, batch_size=batch_size, steps=steps
            )
            y = sample_weight = batch_size = None
        with weights_kept(self):
            return super().evaluate(
                x=x,
                y=y,
                batch_size=batch_size,
                verbose=verbose,
                sample_weight=sample_weight,
                steps=steps,
                callbacks=callbacks,
                return_dict=return_dict,
                **kwargs,
            )

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """Return the model's outputs for raw samples; see `keras.Model.predict`.

        Args:
            x: samples or a dataset, see `fit`.
            batch_size: see `fit`.
            verbose: see `keras.Model.predict`.
            steps: see `keras.Model.predict`.
            callbacks: see `keras.Model.predict`.

        Returns:
            NumPy array with an element per sample.
        """
        if self.preprocessor is not None:
            x = InputPipeline(self.preprocess_samples).data(x, batch_size=batch_size, steps=steps)
            batch_size = None
        with weights_kept(self):
            return super().predict(
                x, batch_size=batch_size, verbose=verbose, steps=steps, callbacks=callbacks
            )

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Train on one batch of raw samples; see `keras.Model.train_on_batch`."""
        self._prepare_training()
        x, y, sample_weight = self._preprocess_batch(x, y, sample_weight)
        return super().train_on_batch(
            x, y, sample_weight, class_weight=class_weight, return_dict=return_dict
        )

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Return loss and metrics on a batch of raw samples; see `keras.Model.test_on_batch`."""
        x, y, sample_weight = self._preprocess_batch(x, y, sample_weight)
        return super().test_on_batch(x, y, sample_weight, return_dict=return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """Return the outputs for one batch of raw samples; see `keras.Model.predict_on_batch`."""
        return super().predict_on_batch(self._preprocess_batch(x)[0])

    def _prepare_training(self) -> None:
        """Check that the optimizer, if it has been used, was made for what now trains."""
        known = {id(v) for v in getattr(self.optimizer, "_trainable_variables", ())}
        if known and known != {id(variable) for variable in self.trainable_variables}:
            raise ValueError(
                "The optimizer has states for other variables than those that now train. Call "
                "`compile` again after what has changed them, such as `enable_lora`."
            )

    def _preprocess_batch(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        if self.preprocessor is None:
            return x, y, sample_weight
        return InputPipeline(self.preprocess_samples).batch(x, y, sample_weight)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if args and _is_text(args[0]):
            to_continue = ", `generate` to continue them" if hasattr(self, "generate") else ""
            raise TypeError(
                f"A {type(self).__name__} is called on token ids, not on text: use `predict` for "
                f"the outputs of texts{to_continue}, or turn them into the model's inputs with "
                f"`preprocessor`. Received: {args[0]!r:.80}."
            )
        return super().__call__(*args, **kwargs)

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Any = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Any = None,
    ) -> None:
        """Print the preprocessor and the layers; see `keras.Model.summary`."""
        if self.preprocessor is not None:
            text = preprocessor_summary(self.preprocessor, width=line_length)
            print_fn(text) if print_fn else print(text)
        super().summary(
            line_length=line_length,
            positions=positions,
            print_fn=print_fn,
            expand_nested=expand_nested,
            show_trainable=show_trainable,
            layer_range=layer_range,
        )


def _is_text(inputs: Any) -> bool:
    if isinstance(inputs, list | tuple) and inputs:
        inputs = inputs[0]
    kind = getattr(getattr(inputs, "dtype", None), "kind", "")
    return isinstance(inputs, str | bytes) or kind in ("U", "S", "T")
