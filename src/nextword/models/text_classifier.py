"""`TextClassifier`: a model that says which of several classes a text is of."""

from collections.abc import Callable
from typing import Any, ClassVar

import keras
import numpy as np

from nextword.layers import Linear
from nextword.models.backbone import Backbone
from nextword.models.task import Task, check_backbone
from nextword.presets.config_reader import ConfigReader

_MAX_CLASSES = 2**20  # bounds what a file can make us allocate
_ACTIVATIONS = sorted(
    {name for name, value in vars(keras.activations).items() if callable(value)}
    - {"get", "serialize", "deserialize"}
)


class TextClassifier(Task):
    """A text classifier: a `Backbone` with a pooler, and a linear head over the classes.

    Called on the preprocessor's `{"token_ids", "segment_ids", "padding_mask"}` it returns the
    logits of the classes, of shape `[batch, num_classes]`, or what `activation` makes of them.

    Args:
        backbone: the model without its head.
        num_classes: number of classes. Given to `from_preset`, the head is a new one with random
            weights; otherwise it is the preset's.
        preprocessor: turns text into the backbone's inputs; None to work with token ids.
        activation: what is applied to the logits: a function or the name of one in
            `keras.activations`, such as "softmax"; None for nothing.
        dropout: dropout rate before the head.
        name: name of the model.

    Raises:
        TypeError: there is no backbone.
        ValueError: an argument is out of its range, or the backbone has no pooler.

    Example:
    ```python
    tokenizer = nextword.models.BertTokenizer(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "a", "good", "bad", "film", "!"],
        lowercase=True,
    )
    classifier = nextword.models.BertTextClassifier(
        nextword.models.BertBackbone(
            vocabulary_size=tokenizer.vocabulary_size(),
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            max_sequence_length=16,
        ),
        num_classes=2,
        preprocessor=nextword.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=16),
    )
    classifier.fit(["What a good film!", "What a bad film!"], [1, 0], batch_size=2)
    logits = classifier.predict(["A bad film."])  # shape [1, 2]
    ```
    """

    kind = "TextClassifier"
    former_kinds: ClassVar[dict[str, str]] = {
        "Classifier": "TextClassifier",
        "Preprocessor": "TextClassifierPreprocessor",
    }
    config_keys = ("num_classes", "activation", "dropout")
    head_size = "num_classes"

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        preprocessor: Any | None = None,
        activation: str | Callable[[Any], Any] | None = None,
        dropout: float = 0.1,
        *,
        name: str | None = None,
    ) -> None:
        is_integer = isinstance(num_classes, int | np.integer) and not isinstance(num_classes, bool)
        if not is_integer or not 1 <= num_classes <= _MAX_CLASSES:
            raise ValueError(
                f"`num_classes` must be an integer from 1 to {_MAX_CLASSES}. Received: "
                f"num_classes={num_classes!r}."
            )
        check_backbone(backbone)
        if not backbone.config.pooler:
            raise ValueError(
                "`backbone` must have a pooler, to make one vector of a text. Received: a "
                f"{type(backbone).__name__}."
            )
        num_classes = int(num_classes)
        policy = backbone.dtype_policy
        head = [
            keras.layers.Dropout(dropout, name="classifier_dropout", dtype=policy),
            Linear(num_classes, use_bias=True, name="logits", dtype=policy),
        ]
        function = keras.activations.get(activation)
        if function is not keras.activations.linear:
            head.append(keras.layers.Activation(function, name="activation", dtype=policy))
        outputs = backbone(backbone.input)["pooled_output"]
        for layer in head:
            outputs = layer(outputs)
        super().__init__(inputs=backbone.input, outputs=outputs, name=name)
        self.dtype_policy = policy
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.num_classes = num_classes
        self.activation = function
        self.dropout = dropout
        self.compile()

    @classmethod
    def stored_arguments(cls, config: ConfigReader) -> dict[str, Any]:
        return {
            "num_classes": config.integer("num_classes", maximum=_MAX_CLASSES),
            "activation": config.choice("activation", _ACTIVATIONS, None),
            "dropout": config.fraction("dropout", 0.1),
        }

    def compile(
        self, optimizer: Any = "auto", loss: Any = "auto", *, metrics: Any = "auto", **kwargs: Any
    ) -> None:
        """Choose how the model is trained.

        Args:
            optimizer: an optimizer or its name; "auto" is Adam with learning rate 5e-5.
            loss: a loss or its name; "auto" is sparse categorical cross-entropy, of probabilities
                where `activation` is softmax, else of logits.
            metrics: metrics; "auto" is the accuracy.
            **kwargs: see `keras.Model.compile`.
        """
        if optimizer == "auto":
            optimizer = keras.optimizers.Adam(5e-5)
        if loss == "auto":
            is_probability = self.activation is keras.activations.softmax
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not is_probability)
        if metrics == "auto":
            metrics = [keras.metrics.SparseCategoricalAccuracy()]
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        self._check_labels(y)
        return super().compute_loss(x, y, y_pred, *args, **kwargs)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        self._check_labels(y)  # here, too: Keras tries the metrics first
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _check_labels(self, y: Any) -> None:
        if y is None and self.loss is not None:
            raise ValueError("`y` must hold the label of each sample. Received: y=None.")

    def preprocess_samples(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        num_segments = self.backbone.config.num_segments or 1
        if isinstance(x, tuple) and len(x) > num_segments:
            raise ValueError(
                f"A sample must have at most {num_segments} parts, which is what the model knows. "
                f"Received: {len(x)} parts."
            )
        if y is not None and isinstance(self.loss, keras.losses.SparseCategoricalCrossentropy):
            self._check_classes(np.asarray(y))
        return super().preprocess_samples(x, y, sample_weight)

    def _check_classes(self, labels: np.ndarray) -> None:
        """Raise if labels are no classes: on jax, Keras would learn nothing from them, silently."""
        if labels.dtype.kind in "iufb":
            is_class = (labels >= 0) & (labels < self.num_classes) & (labels % 1 == 0)
            wrong = labels[~is_class & (labels != self.loss.ignore_class)]
        else:
            wrong = labels.reshape(-1)
        if wrong.size:
            raise ValueError(
                f"`y` must hold classes, integers from 0 to {self.num_classes - 1}. Received: "
                f"{wrong[0].item()!r:.80}."
            )

    def own_config(self) -> dict[str, Any]:
        return super().own_config() | {"activation": keras.activations.serialize(self.activation)}
