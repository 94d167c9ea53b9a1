"""From an opened checkpoint to a backbone with its weights."""

from typing import Any

from nextword.layers import initialize_from
from nextword.models.backbone import Backbone
from nextword.models.family import Family, StoredFormat
from nextword.presets import PresetError
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.weight_table import CheckpointWeights


def load_backbone(
    checkpoint: Checkpoint,
    family: Family,
    stored: StoredFormat,
    *,
    load_weights: bool = True,
    dtype: Any = None,
) -> Backbone:
    """Make the backbone that a checkpoint describes.

    Args:
        checkpoint: the stored model.
        family: the family that it belongs to.
        stored: how the family is stored in the checkpoint's format.
        load_weights: whether variables take their stored values, each as it is created, or random
            ones.
        dtype: name of a dtype or a Keras dtype policy; the stored dtype by default.

    Returns:
        The backbone.

    Raises:
        PresetError: the configuration or the weights are not what the family knows.
    """
    arguments = stored.arguments(checkpoint)
    backbone_cls = family.causal_lm.backbone_cls
    try:
        config = backbone_cls.describe(**arguments)
    except ValueError as error:
        raise PresetError(f"The configuration of {checkpoint.name} is not valid: {error}") from None
    arguments["dtype"] = dtype or checkpoint.dtype
    if not load_weights:
        return backbone_cls(**arguments)
    weights = CheckpointWeights(
        checkpoint, stored.weights(checkpoint, config), ignored=stored.ignored
    )
    with initialize_from(weights):
        return backbone_cls(**arguments)
