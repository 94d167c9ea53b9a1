"""From an opened checkpoint to a backbone with its weights."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

from nextword._garbage import collection_paused
from nextword.layers import held_as, initialize_from
from nextword.models.backbone import Backbone
from nextword.models.family import Family, StoredFormat
from nextword.models.matrix_loading import StoredMatrices
from nextword.ops.native import uses_kernels
from nextword.presets import PresetError
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.progress import progress_bar
from nextword.presets.weight_table import CheckpointWeights
from nextword.quantization import WeightFormat

# Loading fewer takes less time than a bar takes to read.
_ELEMENTS_WORTH_A_BAR = 500_000_000


def load_backbone(
    checkpoint: Checkpoint,
    family: Family,
    stored: StoredFormat,
    *,
    load_weights: bool = True,
    dtype: Any = None,
    form: WeightFormat | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Backbone:
    """Make the backbone that a checkpoint describes.

    Args:
        checkpoint: the stored model.
        family: the family that it belongs to.
        stored: how the family is stored in the checkpoint's format.
        load_weights: whether variables take their stored values, each as it is created, or random
            ones.
        dtype: name of a dtype or a Keras dtype policy; the stored dtype by default.
        form: how matrices are held; as they are stored by default. Blocks of GGUF then become
            floats where `dtype` is given, or where no native kernels compute with them.
        overrides: arguments of the backbone to use instead of the stored ones.

    Returns:
        The backbone.

    Raises:
        PresetError: the configuration or the weights are not what the family knows.
    """
    arguments = stored.arguments(checkpoint)
    backbone_cls = family.task.backbone_cls
    described = inspect.signature(backbone_cls.describe).parameters
    arguments |= overrides or {}
    try:
        config = backbone_cls.describe(**{k: v for k, v in arguments.items() if k in described})
    except ValueError as error:
        raise PresetError(f"The configuration of {checkpoint.name} is not valid: {error}") from None
    arguments["dtype"] = dtype or checkpoint.dtype
    if not load_weights:
        backbone = backbone_cls(**arguments)
        if form is not None:
            backbone.quantize(form.mode)
        return backbone
    table = stored.weights(checkpoint, config)
    stored_names = checkpoint.tensor_names()
    names = {n for entry in table.values() for n in entry.names if n in stored_names}
    elements = sum(math.prod(checkpoint.shape(name)) for name in names)
    is_long = elements >= _ELEMENTS_WORTH_A_BAR
    with progress_bar("Loading weights", elements, worth_showing=is_long) as advance:
        weights = CheckpointWeights(checkpoint, table, ignored=stored.ignored, on_read=advance)
        matrices = StoredMatrices(
            checkpoint,
            table,
            weights,
            stored.packed(checkpoint, table),
            form=form,
            # Without kernels, unpacking them in each step would take ten times as long as the rest.
            keeps_blocks=form is not None or (dtype is None and uses_kernels()),
        )
        with collection_paused(), initialize_from(weights), held_as(matrices):
            return backbone_cls(**arguments)
