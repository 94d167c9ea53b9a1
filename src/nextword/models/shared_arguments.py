"""What the arguments that backbones share say of a decoder, said once.

An argument that is called like a field of `DecoderConfig` fills it, in every family.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from nextword.layers import DecoderConfig

_FIELDS = {field.name for field in dataclasses.fields(DecoderConfig)}
# Other names of arguments, as KerasHub has them.
_SYNONYMS = {
    "num_heads": "num_query_heads",
    "num_attention_heads": "num_query_heads",
    "max_sequence_length": "context_length",
    "max_position_embeddings": "context_length",
    "layer_norm_epsilon": "norm_epsilon",
}


def shared_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `DecoderConfig` that follow from the names of a backbone's arguments.

    A family's `describe` hands in `locals()`, which are its arguments and what it has made of them,
    and names the fields that are special about it.

    Args:
        arguments: the values by name. Names that stand for no field are left out.

    Returns:
        The fields. Unless they say otherwise there are as many key/value heads as query heads, each
        as wide as makes them `hidden_dim` together.

    Example:
    >>> shared_fields({"hidden_dim": 32, "num_heads": 4, "max_sequence_length": 64, "seed": 1})
    {'num_key_value_heads': 4, 'hidden_dim': 32, 'num_query_heads': 4, 'context_length': 64, \
'head_dim': 8}
    """
    named = {_SYNONYMS.get(name, name): value for name, value in arguments.items()}
    fields = {name: value for name, value in named.items() if name in _FIELDS}
    for name in ("sliding_layers", "rotary_layers"):
        if fields.get(name) is not None:
            fields[name] = tuple(fields[name])  # JSON has lists only
    num_heads = fields["num_query_heads"]
    if fields.get("head_dim") is None:
        fields["head_dim"] = fields["hidden_dim"] // num_heads
    return {"num_key_value_heads": num_heads, **fields}
