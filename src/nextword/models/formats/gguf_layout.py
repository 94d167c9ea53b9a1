"""How a backbone is laid out in a GGUF file: found by asking the readers of such files."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nextword.errors import PresetError
from nextword.layers import DecoderConfig
from nextword.models.family import Family, StoredFormat, all_families
from nextword.models.formats.gguf_settings import decoder_settings, rotary_tensors
from nextword.models.formats.offered_settings import OfferedSettings, differences
from nextword.presets.weight_table import WeightTable, stored_shapes


@dataclass
class GGUFLayout:
    """A GGUF file that is about to be written, which readers take for a checkpoint.

    Attributes:
        architecture: how GGUF calls the architecture.
        config: the settings; those that a reader has asked for are there.
        table: where each variable is stored.
        further: tensors that are no variables, by name.
        shapes: of all tensors, by name.
        name: what to call it in messages.
    """

    architecture: str
    config: Mapping[str, Any]
    table: WeightTable = field(default_factory=dict)
    further: Mapping[str, np.ndarray] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    name: str = "the file to be written"
    format: str = "gguf"
    dtype: str = "float32"

    def tensor_names(self) -> frozenset[str]:
        """Return the names of all tensors."""
        return frozenset(self.shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.shapes[name]

    def tensor(self, name: str) -> np.ndarray:
        """Return a tensor that is no variable."""
        return self.further[name]

    def block_format(self, name: str) -> None:
        """Return None: nothing is stored yet, in blocks or otherwise."""

    def blocks(self, name: str) -> np.ndarray:
        """Return the blocks of a tensor, which none has."""
        raise PresetError(f"The tensor {name!r} of {self.name} is not stored in blocks.")

    def close(self) -> None:
        """Close what is open: nothing."""


def gguf_layout(
    family: Family, config: DecoderConfig, shapes: Mapping[str, tuple[int, ...]]
) -> GGUFLayout:
    """Return how GGUF stores a decoder.

    What nextword reads from the file is the same decoder: that is checked before it is written.

    Args:
        family: the decoder's family.
        config: the decoder's description.
        shapes: path of each variable to its shape.

    Raises:
        PresetError: no architecture of GGUF computes what the decoder does.
    """
    # How much each architecture cannot tell, and that in words.
    reasons: list[tuple[float, str]] = []
    for stored, task, architecture in _candidates(family):
        layout = _offer(stored, architecture, config)
        try:
            layout.table = stored.weights(layout, config)
            further = {name: tensor.shape for name, tensor in layout.further.items()}
            layout.shapes = stored_shapes(layout.table, shapes) | further
            read = task.backbone_cls.describe(**stored.arguments(layout))
        except (PresetError, ValueError) as error:
            reasons.append((math.inf, str(error).rstrip(".")))
            continue
        wrong = differences(read, config)
        if not wrong:
            return layout
        listed = ", ".join(f"{name}={value!r:.80}" for name, value in wrong.items())
        reasons.append((len(wrong), f"its architecture {architecture!r} cannot tell {listed}"))
    name = family.task.backbone_cls.__name__
    _, reason = min(reasons, default=(0, "it has no architecture for the family"))
    raise PresetError(f"GGUF cannot store this {name}: {reason}.")


def _candidates(family: Family) -> Iterator[tuple[StoredFormat, type[Any], str]]:
    """Yield how a family may be stored: the format, the task of its models, the architecture."""
    target = family.written_as.get("gguf")
    for each in (family,) if target is None else all_families().values():
        for stored in each.stored_in("gguf"):
            for architecture in stored.architectures:
                if target in (None, architecture):
                    yield stored, each.task, architecture


def _offer(stored: StoredFormat, architecture: str, config: DecoderConfig) -> GGUFLayout:
    settings = decoder_settings(config, divides_logits=stored.divides_logits)
    known = {f"{architecture}.{key}": v for key, v in settings.items() if v is not None}
    offered = OfferedSettings(known)
    offered[f"{architecture}.context_length"]  # which llama.cpp asks for, whether or not we do
    return GGUFLayout(architecture, offered, further=rotary_tensors(config))
