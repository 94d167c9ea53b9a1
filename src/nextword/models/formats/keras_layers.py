"""The layers of KerasHub's models: what they are called, and how KerasHub counts them."""

from collections.abc import Iterator, Mapping
from typing import Any

from nextword.presets.weight_table import WeightTable

_LAYER = "transformer_layer_{i}"
LAYER_PATHS: Mapping[str, str] = {
    "token_embedding": "token_embedding",
    "self_attention/query": f"{_LAYER}/self_attention/query",
    "self_attention/key": f"{_LAYER}/self_attention/key",
    "self_attention/value": f"{_LAYER}/self_attention/value",
    "self_attention/attention_output": f"{_LAYER}/self_attention/attention_output",
    "feed_forward/gate": f"{_LAYER}/feedforward_gate_dense",
    "feed_forward/intermediate": f"{_LAYER}/feedforward_intermediate_dense",
    "feed_forward/feed_forward_output": f"{_LAYER}/feedforward_output_dense",
}
"""Path of a layer that has a matrix, within its transformer layer, to its path in KerasHub.

These are the paths that most of KerasHub's models have. They are not those of the weight files,
which are made of the names of classes and attributes.
"""

ATTENTION_PATHS = {path: name for path, name in LAYER_PATHS.items() if "feed_forward" not in path}
"""Those of the models whose feed-forward networks are called otherwise."""

# What some of KerasHub's models call the projections of attention, and its documentation all.
_ALIASES = {"query_dense": "query", "key_dense": "key", "value_dense": "value"}


def layer_paths(attention: str) -> dict[str, str]:
    """Return the paths of the models that call the layer of attention otherwise.

    Args:
        attention: what they call it.

    Example:
    >>> layer_paths("attention")["self_attention/query"]
    'transformer_layer_{i}/attention/query'
    """
    return {
        ours: theirs.replace("/self_attention/", f"/{attention}/")
        for ours, theirs in LAYER_PATHS.items()
    }


def layer_aliases(paths: Mapping[str, str]) -> dict[str, set[str]]:
    """Return what KerasHub calls the layers, and the names that these have here.

    Args:
        paths: see `LAYER_PATHS`.

    Example:
    >>> layer_aliases({"feed_forward/gate": "transformer_layer_{i}/feedforward_gate_dense"})
    {'query_dense': {'query'}, 'key_dense': {'key'}, 'value_dense': {'value'}, \
'feedforward_gate_dense': {'gate'}}
    """
    names = {alias: {name} for alias, name in _ALIASES.items()}
    for ours, theirs in paths.items():
        names.setdefault(_last(theirs), set()).add(_last(ours))
    return names


def keras_names(paths: Mapping[str, str]) -> dict[str, str]:
    """Return the names that layers have here, and what KerasHub calls them.

    Args:
        paths: see `LAYER_PATHS`.

    Example:
    >>> keras_names({"feed_forward/gate": "transformer_layer_{i}/feedforward_gate_dense"})
    {'gate': 'feedforward_gate_dense'}
    """
    return {_last(ours): _last(theirs) for ours, theirs in paths.items()}


def counted_layers(table: WeightTable) -> list[str]:
    """Return the layers of a KerasHub model that have weights, in the order of its count.

    KerasHub identifies a layer in a file of LoRA weights by its index in this list.

    Args:
        table: where KerasHub stores each variable, in the order in which it makes the layers.

    Returns:
        The paths of the layers in the weight file, without `layers/`.

    Example:
    >>> from nextword.presets.weight_table import Stored
    >>> table = {
    ...     "embedding": Stored("layers/embedding/vars/0"),
    ...     "query": Stored("layers/decoder/attention/query/vars/0"),
    ...     "key": Stored("layers/decoder/attention/key/vars/0"),
    ...     "norm": Stored("layers/decoder/norm/vars/0"),
    ... }
    >>> counted_layers(table)  # doctest: +NORMALIZE_WHITESPACE
    ['embedding', 'decoder', 'decoder/norm', 'decoder/attention', 'decoder/attention/key',
     'decoder/attention/query']
    """
    tree: dict[str, Any] = {}
    # The table has the layers of the stack at its end, and KerasHub makes what comes behind last.
    for path in sorted(table, key=lambda path: path.startswith(("output_norm/", "pooled_dense/"))):
        parts = layer_of(table[path].name).split("/")
        node = tree
        for part in parts:
            node = node.setdefault(part, {})
    return [path for name, node in tree.items() for path in (name, *_below(name, node))]


def layer_of(name: str) -> str:
    """Return the layer that a variable in the weight file belongs to.

    Example:
    >>> layer_of("layers/decoder/norm/vars/0")
    'decoder/norm'
    """
    return name.removeprefix("layers/").rpartition("/vars/")[0]


def _below(path: str, node: dict[str, Any]) -> Iterator[str]:
    """Yield the layers inside a layer, last first: Keras puts them before those yet to visit."""
    for name, children in reversed(node.items()):
        yield f"{path}/{name}"
        yield from _below(f"{path}/{name}", children)


def _last(path: str) -> str:
    return path.rpartition("/")[2]
