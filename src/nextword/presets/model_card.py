"""The page that a model on the Hugging Face Hub begins with, where its author wrote none."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from nextword.presets.handles import show
from nextword.presets.keras_config import TASK, read_serialized

if TYPE_CHECKING:
    from nextword.presets.checkpoint import Checkpoint
    from nextword.presets.sources import PresetSource

# What the hub calls the library that reads each file format, and what people call the format.
_FORMATS = {
    "keras": ("keras-hub", "a KerasHub preset"),
    "nextword": ("nextword", "a preset of nextword"),
    "transformers": ("transformers", "a checkpoint of transformers"),
}
# What the hub calls the purposes of models.
_PIPELINES = {"CausalLM": "text-generation", "TextClassifier": "text-classification"}

_CARD = """\
---
library_name: {library}
{pipeline}tags:
- nextword
---
# {name}

`{card.architecture}` with {card.parameters:,} parameters in {card.dtype}, as {format}.

```python
import nextword

model = nextword.models.{card.kind}.from_preset("hf://{repository}")
```
"""


@dataclass(frozen=True)
class ModelCard:
    """What a model card says of a model.

    Attributes:
        format: the file format, "keras", "nextword" or "transformers".
        kind: the class, without its family, that loads the whole model.
        architecture: what the format calls the architecture.
        parameters: the number of elements of the stored tensors.
        dtype: the name of the dtype of most of them.
    """

    format: str
    kind: str
    architecture: str
    parameters: int
    dtype: str

    @classmethod
    def of(cls, source: "PresetSource", checkpoint: "Checkpoint") -> Self:
        """Return the card of a preset.

        Args:
            source: its files.
            checkpoint: its model, opened.

        Raises:
            PresetError: a file of the preset is not what it should be.
        """
        shapes = map(checkpoint.shape, checkpoint.tensor_names())
        return cls(
            format=checkpoint.format,
            kind=_kind(source, checkpoint),
            architecture=show(checkpoint.architecture)[1:-1],
            parameters=sum(map(math.prod, shapes)),
            dtype=checkpoint.dtype,
        )

    def markdown(self, repository: str) -> str:
        """Return the card's text.

        Args:
            repository: `"user/name"` on the hub.
        """
        library, format = _FORMATS[self.format]
        pipeline = _PIPELINES.get(self.kind)
        return _CARD.format(
            card=self,
            library=library,
            format=format,
            pipeline=f"pipeline_tag: {pipeline}\n" if pipeline else "",
            name=repository.rpartition("/")[2],
            repository=repository,
        )


def _kind(source: "PresetSource", checkpoint: "Checkpoint") -> str:
    if checkpoint.format == "transformers":
        return "CausalLM"
    task = source.find(TASK)
    class_name = "" if task is None else read_serialized(task).class_name
    return next((kind for kind in _PIPELINES if class_name.endswith(kind)), "Backbone")
