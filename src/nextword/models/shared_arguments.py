"""What the arguments that backbones share say of a decoder, said once.

An argument that is called like a field of `DecoderConfig` fills it, in every family.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from nextword.layers import (
    DecoderConfig,
    ExpertsConfig,
    RotaryConfig,
    expert_layers,
    rotary_config,
)

_FIELDS = {field.name for field in dataclasses.fields(DecoderConfig)}
# Other names of arguments, as KerasHub has them.
_SYNONYMS = {
    "num_heads": "num_query_heads",
    "num_attention_heads": "num_query_heads",
    "max_sequence_length": "context_length",
    "max_position_embeddings": "context_length",
    "layer_norm_epsilon": "norm_epsilon",
    "sliding_window_size": "sliding_window",
    "attention_logit_soft_cap": "attention_soft_cap",
    "final_logit_soft_cap": "logit_soft_cap",
}
# Arguments that stand for several fields.
_BIASES = {
    "attention_bias": ("query_key_value_bias", "attention_output_bias"),
    "use_bias": ("query_key_value_bias", "attention_output_bias", "feed_forward_bias"),
}


def _rotary(arguments: Mapping[str, Any]) -> RotaryConfig:
    return rotary_config(
        arguments["rope_max_wavelength"],
        arguments.get("rope_scaling"),
        factor=arguments.get("rope_scaling_factor", 1.0),
        fraction=arguments.get("partial_rotary_factor", 1.0),
    )


def experts_config(arguments: Mapping[str, Any], **special: Any) -> ExpertsConfig | None:
    """Return the experts of a backbone; None where `num_experts` is.

    Args:
        arguments: the backbone's, by name.
        **special: fields of `ExpertsConfig` that do not follow from these.

    Raises:
        ValueError: see `ExpertsConfig`.

    Example:
    >>> experts = experts_config({"num_experts": 8, "top_k": 2, "intermediate_dim": 64}, scale=2.5)
    >>> experts.experts_per_token, experts.intermediate_dim, experts.scale
    (2, 64, 2.5)
    """
    if arguments["num_experts"] is None:
        return None
    fields = {
        "num_experts": arguments["num_experts"],
        "experts_per_token": arguments["top_k"],
        "intermediate_dim": arguments.get("moe_intermediate_dim", arguments["intermediate_dim"]),
        "normalized": arguments.get("norm_top_k_prob", True),
    }
    if "decoder_sparse_step" in arguments:
        without = arguments["mlp_only_layers"] or ()
        step = arguments["decoder_sparse_step"]
        fields["layers"] = expert_layers(arguments["num_layers"], step, without)
    return ExpertsConfig(**fields | special)


def _norm_placement(arguments: Mapping[str, Any]) -> str:
    names = ("use_post_ffw_norm", "use_post_attention_norm")
    check_equal(**{name: arguments[name] for name in names})
    return "sandwich" if arguments["use_post_ffw_norm"] else "pre"


def _attention_scale(arguments: Mapping[str, Any]) -> float:
    width: float = arguments["hidden_dim"] // arguments["num_query_heads"]
    if arguments["query_head_dim_normalize"]:
        width = arguments["head_dim"]
    return (arguments["query_pre_attention_scalar"] or width) ** -0.5


# Fields that are made of several arguments, with the one without which there are none of them.
_COMPOSED: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Any]]] = {
    "rotary": ("rope_max_wavelength", _rotary),
    "experts": ("num_experts", experts_config),
    "norm_placement": ("use_post_ffw_norm", _norm_placement),
    "attention_scale": ("query_head_dim_normalize", _attention_scale),
}


def decoder_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `DecoderConfig` that follow from the names of a backbone's arguments.

    A family's `describe` hands in `locals()`, which are its arguments and what it has made of them,
    and names the fields that are special about it. Where an argument means something else to it
    than to other families, it has a variable called like the field.

    Args:
        arguments: the values by name. Names that stand for no field are left out.

    Returns:
        The fields. Unless they say otherwise there are as many key/value heads as query heads, each
        as wide as makes them `hidden_dim` together.

    Example:
    >>> decoder_fields({"hidden_dim": 32, "num_heads": 4, "max_sequence_length": 64, "seed": 1})
    {'hidden_dim': 32, 'num_query_heads': 4, 'context_length': 64, 'num_key_value_heads': 4, \
'head_dim': 8}
    >>> decoder_fields({"hidden_dim": 8, "num_heads": 1, "rope_max_wavelength": 500.0})["rotary"]
    RotaryConfig(theta=500.0, fraction=1.0, scaling=None)
    """
    fields = {_SYNONYMS.get(name, name): value for name, value in arguments.items()}
    for name, biases in _BIASES.items():
        if name in fields:
            fields = dict.fromkeys(biases, fields[name]) | fields
    for field, (argument, compose) in _COMPOSED.items():
        if argument in fields and field not in fields:
            fields[field] = compose(fields)
    if not fields.get("use_sliding_window_attention", True):
        fields["sliding_window"] = None
    for name in ("sliding_layers", "rotary_layers"):
        if fields.get(name) is not None:
            fields[name] = tuple(fields[name])  # JSON has lists only
    if fields.get("num_key_value_heads") is None:
        fields["num_key_value_heads"] = fields["num_query_heads"]
    if fields.get("head_dim") is None:
        fields["head_dim"] = fields["hidden_dim"] // fields["num_query_heads"]
    return {name: value for name, value in fields.items() if name in _FIELDS}


def check_fixed(value: Any, reason: str = "", /, **arguments: Any) -> None:
    """Check arguments that KerasHub has, and that have but one value here.

    Args:
        value: what they must be.
        reason: why, in words that follow a colon.
        **arguments: what was received, by name.

    Raises:
        ValueError: an argument has another value.

    Example:
    >>> check_fixed(None, "only text is read", vision_encoder=7)
    Traceback (most recent call last):
    ValueError: `vision_encoder` must be None: only text is read. Received: vision_encoder=7.
    """
    for name, received in arguments.items():
        if received != value:
            raise ValueError(
                f"`{name}` must be {value}{reason and ': '}{reason}. Received: "
                f"{name}={received!s:.60}."
            )


def check_equal(**arguments: Any) -> None:
    """Check arguments that KerasHub has apart, and that stand for one thing here.

    Args:
        **arguments: what was received, by name.

    Raises:
        ValueError: they are not all equal.

    Example:
    >>> check_equal(attention_dropout=0.1, feedforward_dropout=0.1)
    """
    received = list(arguments.values())
    if any(value != received[0] for value in received):
        names = " and ".join(f"`{name}`" for name in arguments)
        given = ", ".join(f"{name}={value}" for name, value in arguments.items())
        raise ValueError(f"{names} must be equal. Received: {given}.")


def all_but_last(num_layers: int, period: int) -> list[bool]:
    """Return for each layer whether it is another than the last of every `period` layers.

    Such are the layers with a sliding window in many families, or those that rotate.

    Args:
        num_layers: number of layers.
        period: at least 1.

    Example:
    >>> all_but_last(num_layers=5, period=3)
    [True, True, False, True, True]
    """
    return [(layer + 1) % period != 0 for layer in range(num_layers)]
