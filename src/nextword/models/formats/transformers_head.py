"""The head of a model that classifies texts, in checkpoints of transformers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nextword.errors import PresetError
from nextword.models.family import StoredHead
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import transformers_settings
from nextword.presets.weight_table import CheckpointWeights, WeightTable, linear

if TYPE_CHECKING:
    from nextword.models.task import Task

# What a model there returns are logits; its pipelines apply softmax to them.
_ACTIVATIONS = ("linear", "softmax")


@dataclass(frozen=True, kw_only=True)
class ClassifierHead:
    """How transformers keeps a classifier of a family.

    Attributes:
        class_name: transformers' class of the whole model.
        prefix: what the names of the backbone's tensors begin with in it.
        layer: the name of the head's linear layer.
        dropout_key: where the dropout rate is that the head has where it names none of its own.
    """

    class_name: str
    prefix: str
    layer: str = "classifier"
    dropout_key: str = "hidden_dropout_prob"

    @property
    def table(self) -> WeightTable:
        """Where each variable of the head is stored."""
        return linear("logits", self.layer, bias=True)

    def read(self, checkpoint: Checkpoint, task: "type[Task]") -> StoredHead | None:
        """Return the head of a checkpoint of this class, None for other models.

        Raises:
            PresetError: what config.json says of it cannot be.
        """
        if checkpoint.config.get("architectures") != [self.class_name]:
            return None
        labels = checkpoint.config.get("id2label")
        if not isinstance(labels, Mapping | None) or labels == {}:
            raise PresetError(
                f"The key 'id2label' of {checkpoint.name} must name the classes. Received: "
                f"{labels!r:.80}."
            )
        config = transformers_settings(checkpoint)
        dropout = config.fraction(self.dropout_key, 0.1)
        backbone = re.escape(self.prefix) + ".*"
        return StoredHead(
            arguments={
                "num_classes": 2 if labels is None else len(labels),
                "dropout": config.fraction("classifier_dropout", dropout),
            },
            weights=lambda: CheckpointWeights(checkpoint, self.table, ignored=(backbone,)),
        )

    def settings(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return what config.json says of a head.

        Args:
            arguments: those of the task, see `TextClassifier`.

        Raises:
            PresetError: transformers does not compute its activation.
        """
        if arguments["activation"] not in _ACTIVATIONS:
            raise PresetError(
                "transformers knows no `activation` of a classifier but softmax, which its "
                f"pipelines apply. Received: activation={arguments['activation']!r:.80}."
            )
        labels = {str(i): f"LABEL_{i}" for i in range(arguments["num_classes"])}
        return {
            "classifier_dropout": arguments["dropout"],
            "id2label": labels,
            "label2id": {label: int(i) for i, label in labels.items()},
        }
