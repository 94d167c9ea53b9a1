"""What KerasHub calls the layers of its decoder blocks, whose projections are all einsums."""

from collections.abc import Iterable

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.formats.decoder_tables import LayerNames
from nextword.models.formats.keras import KerasClasses, KerasFormat, keras_format
from nextword.presets.weight_layouts import SplitHeads, SwappedAxes

_BLOCK = "decoder_block_{i}"
# What KerasHub calls the layers, see `LAYER_PATHS`.
_PATHS = {
    "token_embedding": "token_embedding",
    "self_attention/query": f"{_BLOCK}/attention/query",
    "self_attention/key": f"{_BLOCK}/attention/key",
    "self_attention/value": f"{_BLOCK}/attention/value",
    "self_attention/attention_output": f"{_BLOCK}/attention/attention_output",
    "feed_forward/gate": f"{_BLOCK}/ffw_gating",
    "feed_forward/intermediate": f"{_BLOCK}/ffw_gating_2",
    "feed_forward/feed_forward_output": f"{_BLOCK}/ffw_linear",
}
# Those without heads.
_EINSUM = tuple(path for path in _PATHS if path.startswith("feed_forward/"))


def block_format(
    backbone_cls: type[Backbone], block: str, *classes: KerasClasses, unheeded: Iterable[str] = ()
) -> KerasFormat:
    """Return how a family that is made of these blocks is stored in presets of KerasHub.

    Args:
        backbone_cls: see `keras_format`.
        block: see `block_names`.
        *classes: see `keras_format`.
        unheeded: see `keras_format`.
    """
    return keras_format(
        backbone_cls,
        block_names(block),
        *classes,
        laid_out=lambda config: block_layouts(config, block),
        paths=_PATHS,
        einsum=_EINSUM,
        unheeded=unheeded,
    )


def block_names(block: str) -> dict[str, str]:
    """Return where the weight file keeps each layer.

    Args:
        block: what the file calls a transformer layer: its class's name in snake case.

    Example:
    >>> block_names("gemma_decoder_block")["feed_forward/gate"]
    'layers/gemma_decoder_block_{i}/gating_ffw'
    """
    layer = f"layers/{block}_{{i}}"
    return {
        "token_embedding": "layers/reversible_embedding",
        "output_norm": "layers/rms_normalization",
        "self_attention_norm": f"{layer}/pre_attention_norm",
        "self_attention_post_norm": f"{layer}/post_attention_norm",
        "self_attention/query": f"{layer}/attention/query_dense",
        "self_attention/key": f"{layer}/attention/key_dense",
        "self_attention/value": f"{layer}/attention/value_dense",
        "self_attention/query_norm": f"{layer}/attention/query_norm",
        "self_attention/key_norm": f"{layer}/attention/key_norm",
        "self_attention/attention_output": f"{layer}/attention/output_dense",
        "feed_forward_norm": f"{layer}/pre_ffw_norm",
        "feed_forward_post_norm": f"{layer}/post_ffw_norm",
        "feed_forward/gate": f"{layer}/gating_ffw",
        "feed_forward/intermediate": f"{layer}/gating_ffw_2",
        "feed_forward/feed_forward_output": f"{layer}/ffw_linear",
    }


def block_layouts(config: DecoderConfig, block: str) -> LayerNames:
    """Return the names of the projections whose kernels are `[heads, in, head_dim]`.

    Args:
        config: the decoder's description.
        block: see `block_names`.
    """
    names = block_names(block)
    heads = {
        "self_attention/query": config.num_query_heads,
        "self_attention/key": config.num_key_value_heads,
        "self_attention/value": config.num_key_value_heads,
    }
    return {
        path: (names[path], SwappedAxes(), SplitHeads(num_heads))
        for path, num_heads in heads.items()
    }
