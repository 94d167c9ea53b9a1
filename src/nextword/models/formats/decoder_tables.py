"""Weight tables of the one decoder, made from the names that a format gives to its layers.

A family lists the names of layers; which variables a layer has follows from the `DecoderConfig`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from nextword.layers import DecoderConfig
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.weight_layouts import (
    GroupedHeads,
    InterleavedRotary,
    Layout,
    Rows,
    Transposed,
)
from nextword.presets.weight_table import Stored, WeightTable, linear, norm, per_layer

_NETWORK = ("feed_forward/gate", "feed_forward/intermediate", "feed_forward/feed_forward_output")
_HEAD = "token_embedding/reverse_embeddings"

LayerNames = Mapping[str, str | tuple[Any, ...] | Stored]
"""Path of a layer to its stored name, or to its stored name followed by the layouts of its weights;
path of a variable that is no layer's kernel, scale or bias to how it is stored.

Layers outside the stack are "token_embedding", "head", "position_embedding", "segment_embedding",
"embedding_norm", "output_norm" and "pooled_dense". Names of layers in the stack hold `{i}`, and
their paths begin inside the transformer layer: "self_attention_norm", "self_attention/query",
"feed_forward/gate" and so on. Those of experts are "feed_forward/router",
"feed_forward/expert_gate", "feed_forward/shared/gate" and so on. In the names of experts that are
stored one by one, `*` stands for the expert's index.
"""
NamesReader = Callable[[Checkpoint, DecoderConfig], LayerNames]
"""Finds the names where they follow from the checkpoint, or from the decoder."""


def table_reader(
    names: LayerNames | NamesReader,
) -> Callable[[Checkpoint, DecoderConfig], WeightTable]:
    """Return what finds the weight table of a checkpoint.

    Args:
        names: stored names of the decoder's layers, or what finds them.
    """

    def table(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
        return decoder_table(config, names(checkpoint, config) if callable(names) else names)

    return table


def decoder_table(config: DecoderConfig, names: LayerNames) -> WeightTable:
    """Return the table of where each variable of a decoder is stored.

    Args:
        config: the decoder's description; says which biases exist and whether the head is tied.
        names: stored names of the decoder's layers. Those the decoder does not have are left out.

    Example:
    >>> from nextword.layers import RotaryConfig
    >>> config = DecoderConfig(
    ...     vocabulary_size=8, num_layers=1, hidden_dim=8, intermediate_dim=8, num_query_heads=1,
    ...     num_key_value_heads=1, head_dim=8, rotary=RotaryConfig(), query_key_value_bias=True,
    ... )
    >>> table = decoder_table(config, {"self_attention/query": "h.{i}.q"})
    >>> {path: stored.name for path, stored in table.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'transformer_layer_0/self_attention/query/kernel': 'h.0.q.weight',
     'transformer_layer_0/self_attention/query/bias': 'h.0.q.bias'}
    """
    table: dict[str, Stored] = {}
    # Layers without experts, and those with them, have different parts.
    layer_tables: dict[bool, dict[str, Stored]] = {False: {}, True: {}}
    for path, place in names.items():
        name = (
            place.name if isinstance(place, Stored) else (place, *place)[isinstance(place, tuple)]
        )
        is_in_stack = "{i}" in name
        full_path = f"transformer_layer_{{i}}/{path}" if is_in_stack else path
        entries = _entries(config, full_path, place)
        if not is_in_stack:
            table |= entries
        for has_experts, layer_table in layer_tables.items():
            if is_in_stack and _is_part(path, has_experts):
                layer_table |= entries
    for i in range(config.num_layers):
        table |= per_layer([i], layer_tables[config.has_experts(i)])
    return table


def _name(place: str | tuple[Any, ...] | Stored) -> str:
    if isinstance(place, Stored):
        return place.name
    name: str = place if isinstance(place, str) else place[0]
    return name


def _is_part(path: str, has_experts: bool) -> bool:
    """Return whether a layer has a part, given whether it has experts."""
    return not path.startswith("feed_forward/") or (path in _NETWORK) != has_experts


def query_key_value(config: DecoderConfig, name: str, *layouts: Layout) -> LayerNames:
    """Return the names of the query, key and value projections that are stored as one.

    Args:
        config: the decoder's description.
        name: the stored name, which holds `{i}`.
        *layouts: steps from what is stored to rows of all queries, all keys and all values.
    """
    names: dict[str, tuple[Any, ...]] = {}
    start = 0
    for part, heads in (
        ("query", config.num_query_heads),
        ("key", config.num_key_value_heads),
        ("value", config.num_key_value_heads),
    ):
        stop = start + heads * config.head_dim
        names[f"self_attention/{part}"] = (name, *layouts, Rows(start, stop))
        start = stop
    return names


def grouped_query_key_value(config: DecoderConfig, name: str) -> LayerNames:
    """Return the names of these projections where rows are stored by keys: queries, key, value.

    Args:
        config: the decoder's description.
        name: the stored name, which holds `{i}`.
    """
    return query_key_value(config, name, GroupedHeads(config.num_key_value_heads, config.head_dim))


def interleaved_rotary(config: DecoderConfig, names: LayerNames) -> LayerNames:
    """Return the names of what is stored for a rotary embedding of neighbouring pairs.

    Args:
        config: the decoder's description.
        names: the names of the query and key projections and their norms among others, which have
            no layouts yet, or those that take them out of a tensor.
    """
    dimensions = config.rotary.dimensions(config.head_dim) if config.rotary else None
    found: dict[str, tuple[Any, ...]] = {}
    for part, heads in (("query", config.num_query_heads), ("key", config.num_key_value_heads)):
        place: Any = names[f"self_attention/{part}"]
        stored = (place,) if isinstance(place, str) else place
        found[f"self_attention/{part}"] = (*stored, InterleavedRotary(heads, dimensions))
        if norm_name := names.get(f"self_attention/{part}_norm"):
            # Its rows are heads.
            steps = Transposed(), InterleavedRotary(1, dimensions), Transposed()
            found[f"self_attention/{part}_norm"] = (norm_name, *steps)
    return {**names, **found}


def gate_and_intermediate(
    config: DecoderConfig, name: str, *layouts: Layout, of: str = ""
) -> LayerNames:
    """Return the names of the gate and the projection it gates where they are stored as one.

    Args:
        config: the decoder's description.
        name: the stored name, which holds `{i}`.
        *layouts: steps from what is stored to rows of the gate and of what it gates.
        of: what has the gate: "expert_" for the experts, all stored as one, "shared/" for the
            network beside them that every token takes.
    """
    width, axis = config.intermediate_dim, 0
    if of == "expert_" and config.experts:
        width, axis = config.experts.intermediate_dim, 1
    if of == "shared/" and config.experts:
        width = config.experts.shared_dim or 0
    return {
        f"feed_forward/{of}gate": (name, *layouts, Rows(0, width, axis)),
        f"feed_forward/{of}intermediate": (name, *layouts, Rows(width, 2 * width, axis)),
    }


def _entries(
    config: DecoderConfig, path: str, place: str | tuple[Any, ...] | Stored
) -> Mapping[str, Stored]:
    """Return the entries of one layer, or of one variable."""
    if path.endswith("/choice_bias") and not (config.experts and config.experts.choice_bias):
        return {}
    if isinstance(place, Stored):
        return {path: place}
    name, *layouts = (place,) if isinstance(place, str) else place
    if path == "head":
        table = {} if config.tie_word_embeddings else {_HEAD: Stored(f"{name}.weight", *layouts)}
        bias = {"token_embedding/head_bias": Stored(f"{name}.bias")} if config.head_bias else {}
        return table | bias
    if path == "position_embedding" and config.position_embedding != "learned":
        return {}
    if path == "segment_embedding" and config.num_segments is None:
        return {}
    if path == "pooled_dense" and not config.pooler:
        return {}
    if path == "embedding_norm" and not config.embedding_norm:
        return {}
    if path.endswith("_embedding"):
        return {f"{path}/embeddings": Stored(f"{name}.weight", *layouts)}
    has_query_latent = config.latent is not None and config.latent.query_rank is not None
    if path.endswith("/query_norm") and not (config.query_key_norm or has_query_latent):
        return {}
    if path.endswith("/key_norm") and not config.query_key_norm:
        return {}
    if path.endswith("_post_norm") and config.norm_placement == "pre":
        return {}
    if path.endswith(("/self_attention_norm", "/feed_forward_norm")) and (
        config.norm_placement == "branch" or (config.shared_norm and "feed_forward" in path)
    ):
        return {}
    if path.endswith("_norm"):
        return _norm_entries(config, path, name, layouts)
    if path.endswith("/gate") and not config.feed_forward_gate:
        return {}
    if "/feed_forward/expert_" in path:
        stacked = config.experts.num_experts if config.experts and "*" in name else None
        return {path: Stored(f"{name}.weight", *layouts, stacked=stacked)}
    if path.endswith("/shared_gate") and not (config.experts and config.experts.shared_gate):
        return {}
    if "/feed_forward/shared" in path and not (config.experts and config.experts.shared_dim):
        return {}
    return linear(path, name, *layouts, bias=_has_bias(config, path))


def _norm_entries(
    config: DecoderConfig, path: str, name: str, layouts: list[Any]
) -> Mapping[str, Stored]:
    is_of_heads = path.endswith(("/query_norm", "/key_norm"))
    if not (is_of_heads and config.query_key_norm == "each_head"):
        return norm(path, name, *layouts, bias=config.norm == "layer" and config.norm_bias)
    is_query = path.endswith("/query_norm")
    heads = config.num_query_heads if is_query else config.num_key_value_heads
    stacked = heads if "*" in name else None
    return {f"{path}/scale": Stored(f"{name}.weight", *layouts, stacked=stacked)}


def _has_bias(config: DecoderConfig, path: str) -> bool:
    if path == "pooled_dense":
        return True
    if config.latent is not None and path.endswith(("/query", "/query_rotated")):
        return False
    if path.endswith("/shared_gate"):
        return False
    if path.endswith("/attention_output"):
        return config.attention_output_bias
    if "/self_attention/" in path:
        return config.query_key_value_bias
    return config.feed_forward_bias
