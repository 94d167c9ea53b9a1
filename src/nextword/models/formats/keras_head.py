"""The head of a model in presets of KerasHub: arguments in task.json, weights in their own file."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from nextword.models.family import StoredHead
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.keras import TASK_WEIGHTS, KerasTaskWeights
from nextword.presets.keras_config import TASK, read_serialized
from nextword.presets.weight_layouts import Transposed
from nextword.presets.weight_table import CheckpointWeights, Stored, WeightTable

if TYPE_CHECKING:
    from nextword.models.formats.keras import KerasClasses
    from nextword.models.task import Task

NO_WEIGHTS = (r".*/seed_generator/vars/0",)
"""States of dropout's random numbers, which old versions of Keras stored with the weights."""

NO_HEAD_WEIGHTS = (*NO_WEIGHTS, r"optimizer/.*")
"""What is stored beside a head: the state of the optimizer, too."""


def head_table(names: Mapping[str, str]) -> WeightTable:
    """Return the table of where the linear layers of a head are stored.

    Args:
        names: path of a layer to its name in the file.

    Example:
    >>> [stored.name for stored in head_table({"logits": "layers/dense"}).values()]
    ['layers/dense/vars/0', 'layers/dense/vars/1']
    """
    return {
        f"{layer}/{variable}": Stored(f"{name}/vars/{index}", Transposed())
        for layer, name in names.items()
        for index, variable in enumerate(("kernel", "bias"))
    }


def stored_head(
    checkpoint: Checkpoint,
    task: "type[Task]",
    classes: "Iterable[KerasClasses]",
    table: WeightTable,
) -> StoredHead | None:
    """Find the head of a model in a preset; None where it holds none, or a model for another task.

    Args:
        checkpoint: the preset.
        task: the task class of the preset's family.
        classes: what KerasHub calls the family's classes.
        table: where each variable of the head is stored.

    Raises:
        PresetError: the preset describes a head that the task cannot have.
    """
    keras_checkpoint: Any = checkpoint
    path = keras_checkpoint.source.find(TASK) if task.head_size else None
    if path is None:
        return None
    serialized = read_serialized(path)
    if task.kind not in [each.kind_of(serialized, task) for each in classes]:
        return None

    def weights() -> CheckpointWeights:
        stored = KerasTaskWeights(keras_checkpoint.source.path(TASK_WEIGHTS), task.__name__)
        return CheckpointWeights(stored, table, ignored=NO_HEAD_WEIGHTS)

    config = ConfigReader(serialized.config, name=f"{TASK} of {checkpoint.name}")
    return StoredHead(arguments=task.stored_arguments(config), weights=weights)
