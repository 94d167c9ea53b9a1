"""How a backbone is laid out in a transformers checkpoint: found by asking its family's reader."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nextword.errors import PresetError
from nextword.layers import DecoderConfig
from nextword.models.family import Family
from nextword.models.formats.offered_settings import OfferedSettings, differences
from nextword.models.formats.transformers import TransformersFormat, without_prefix
from nextword.models.formats.transformers_settings import decoder_settings
from nextword.presets.stored_tensors import StoredTensors
from nextword.presets.weight_table import WeightTable, stored_shapes


class _Draft(StoredTensors):
    """A checkpoint that is about to be written, which readers take for one that has no tensors yet.

    Args:
        architecture: `model_type` of config.json.
        config: the settings; those that a reader has asked for are there.
    """

    format = "transformers"

    def __init__(self, architecture: str, config: Mapping[str, Any]) -> None:
        super().__init__("the checkpoint to be written", [])
        self.architecture = architecture
        self.config = config


@dataclass(frozen=True)
class TransformersLayout:
    """How a backbone is stored in a transformers checkpoint.

    Attributes:
        class_name: transformers' class of the whole model.
        settings: those of config.json that describe the model.
        table: where each variable is stored.
        shapes: shape of each stored tensor, by its name.
    """

    class_name: str
    settings: Mapping[str, Any]
    table: WeightTable
    shapes: Mapping[str, tuple[int, ...]]


def transformers_layout(
    family: Family,
    config: DecoderConfig,
    shapes: Mapping[str, tuple[int, ...]],
    head: Mapping[str, Any] | None = None,
) -> TransformersLayout:
    """Return how transformers stores a decoder, or a classifier.

    What nextword reads from the checkpoint is the same decoder: that is checked before anything is
    written.

    Args:
        family: the decoder's family.
        config: the decoder's description.
        shapes: path of each variable to its shape, those of the head among them.
        head: the arguments of a classifier.

    Raises:
        PresetError: no architecture of the family computes in transformers what the decoder does.
    """
    backbone_cls = family.task.backbone_cls
    # How much each architecture cannot tell, and that in words.
    reasons: list[tuple[float, str]] = []
    for stored, architecture, class_name in _candidates(family):
        offered = OfferedSettings(decoder_settings(config))
        draft = _Draft(architecture, offered)
        try:
            read = backbone_cls.describe(**stored.arguments(draft))
        except (PresetError, ValueError) as error:
            reasons.append((math.inf, str(error).rstrip(".")))
            continue
        if wrong := differences(read, config):
            listed = ", ".join(f"{name}={value!r:.80}" for name, value in wrong.items())
            reasons.append((len(wrong), f"{class_name} of transformers has no {listed}"))
            continue
        settings = {"model_type": architecture, **offered.taken()}
        if settings.get("sliding_window", 0) is None and read.sliding_window is not None:
            # No layer has one, and the family's class wants the number all the same.
            settings["sliding_window"] = read.sliding_window
        table = stored.weights(_Draft(architecture, settings), config)
        if (classifier := stored.classifier) is not None:
            if head is not None:
                class_name = classifier.class_name
                settings |= classifier.settings(head)
                table = {**table, **classifier.table}
            else:
                table = without_prefix(table, classifier.prefix)
        return TransformersLayout(class_name, settings, table, stored_shapes(table, shapes))
    _, reason = min(reasons, key=lambda entry: entry[0])
    raise PresetError(
        f"transformers cannot compute what this {backbone_cls.__name__} does: {reason}."
    )


def _candidates(family: Family) -> Iterator[tuple[TransformersFormat, str, str]]:
    """Yield how a family may be stored: the format, the architecture, transformers' class."""
    for stored in family.stored_in("transformers"):
        assert isinstance(stored, TransformersFormat)  # noqa: S101  # for the type checker
        assert isinstance(stored.architectures, Mapping)  # noqa: S101  # with their classes
        for architecture, class_name in stored.architectures.items():
            yield stored, architecture, class_name
