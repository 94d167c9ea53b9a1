"""What a family of models declares about itself, and how the family of a checkpoint is found."""

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nextword.errors import PresetError
from nextword.layers import DecoderConfig, WeightSource
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.weight_table import WeightTable
from nextword.quantization import WeightFormat

if TYPE_CHECKING:
    from nextword.models.task import Task

ArgumentsReader = Callable[[ConfigReader, Checkpoint], dict[str, Any]]
"""Takes the settings of a checkpoint, and it itself, whose tensors tell what they leave out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredHead:
    """What a checkpoint holds of a model beside its backbone.

    Attributes:
        arguments: arguments of the task, those in `Task.config_keys`, checked.
        weights: opens the stored weights; raises `PresetError` where they are not there.
    """

    arguments: Mapping[str, Any]
    weights: Callable[[], WeightSource]


HeadReader = Callable[[Checkpoint, "type[Task]"], StoredHead | None]
"""Finds the head of a model of a task, None where the checkpoint holds none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredFormat:
    """How a family is stored in one file format.

    Attributes:
        architectures: names by which the format calls the family (`model_type` of config.json,
            `general.architecture` of GGUF); for transformers, with the class of the model there.
        settings: opens the settings of a checkpoint.
        reader: turns these, and what the tensors tell, into the arguments of the family's backbone;
            raises `PresetError` for values it does not know.
        weights: the table of where each variable is stored.
        holds: whether a checkpoint of one of these architectures is of the family, where several
            families share its name.
        divides_logits: whether the format stores what logits are divided by, instead of what they
            are multiplied with.
        ignored: regular expressions of stored tensors that are no weights of the backbone.
        head: finds the head of a model of the family's task, None where the checkpoint holds none.
        packed: which matrices of an opened checkpoint stay packed, and how, by their paths.
    """

    architectures: tuple[str, ...] | Mapping[str, str]
    settings: Callable[[Checkpoint], ConfigReader]
    reader: ArgumentsReader
    weights: Callable[[Checkpoint, DecoderConfig], WeightTable]
    holds: Callable[[Checkpoint], bool] = lambda _: True
    divides_logits: bool = False
    ignored: tuple[str, ...] = ()
    head: HeadReader = lambda *_: None
    packed: Callable[[Checkpoint, WeightTable], Mapping[str, WeightFormat]] = lambda *_: {}

    def arguments(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Return the arguments of the family's backbone.

        Args:
            checkpoint: a stored model of the family.

        Raises:
            PresetError: a setting has a value that the family does not know, or is one that its
                reader has not asked for.
        """
        config = self.settings(checkpoint)
        arguments = self.reader(config, checkpoint)
        config.check_all_read()
        return arguments


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relative:
    """Models that another family computes already, and that are stored in a way of their own.

    Attributes:
        task: the class of that family's models, which they become.
        formats: file format name to how they are stored there.
    """

    task: "type[Task]"
    formats: Mapping[str, StoredFormat]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One family of models.

    Attributes:
        task: the class of its models; its `backbone_cls` and `preprocessor_cls` are the family's.
        formats: file format name ("transformers", "gguf", "keras") to how the family is stored
            there. Without "keras", `all_families` adds "nextword".
        written_as: file format name to the architecture of another family, as which the format
            stores this one, whose models compute the same.
        relatives: who become models of the family, too; `all_families` finds them.
    """

    task: "type[Task]"
    formats: Mapping[str, StoredFormat]
    written_as: Mapping[str, str] = dataclasses.field(default_factory=dict)
    relatives: tuple[Relative, ...] = ()

    def stored_in(self, file_format: str) -> Iterator[StoredFormat]:
        """Yield how a file format stores the family, and its relatives after it.

        Args:
            file_format: its name, see `formats`.
        """
        for formats in (self.formats, *(each.formats for each in self.relatives)):
            if file_format in formats:
                yield formats[file_format]


def family_of(part: Any) -> Family:
    """Return the family of a backbone, a preprocessor or a model.

    Raises:
        PresetError: no family has such a part.
    """
    for family in all_families().values():
        task = family.task
        if isinstance(part, task | task.backbone_cls | task.preprocessor_cls):
            return family
    raise PresetError(
        f"Only a part of a known family can be saved as a preset. Received: a "
        f"{type(part).__name__}."
    )


@functools.cache
def all_families() -> dict[str, Family]:
    """Return every family, with its relatives, by the name of its file in `models.families`."""
    from nextword.models.formats.own import with_presets  # which needs what families are

    package = importlib.import_module("nextword.models.families")
    declared: dict[str, Family | Relative] = {
        module.name: importlib.import_module(f"{package.__name__}.{module.name}").FAMILY
        for module in pkgutil.iter_modules(package.__path__)
    }
    relatives = [each for each in declared.values() if isinstance(each, Relative)]
    return {
        name: with_presets(
            dataclasses.replace(
                family, relatives=tuple(each for each in relatives if each.task is family.task)
            )
        )
        for name, family in declared.items()
        if isinstance(family, Family)
    }


def find_family(checkpoint: Checkpoint) -> tuple[Family, StoredFormat]:
    """Return the family that a checkpoint belongs to, and how it is stored there.

    Raises:
        PresetError: no family knows the checkpoint's architecture.
    """
    known: list[str] = []
    for family in all_families().values():
        for stored in family.stored_in(checkpoint.format):
            if checkpoint.architecture in stored.architectures and stored.holds(checkpoint):
                return family, stored
            known.extend(stored.architectures)
    raise PresetError(
        f"{checkpoint.name} has the architecture {checkpoint.architecture!r}, which is not "
        f"supported yet. Supported in this file format are {', '.join(sorted(known))}."
    )
