"""The rotary embedding's settings in the many spellings of transformers and GGUF, in our words."""

from typing import Any

from nextword.layers import yarn_magnitude
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader

KINDS = ("linear", "dynamic", "llama3", "yarn", "longrope")
"""transformers' names of scalings."""
GGUF_PAIR_FACTORS = "rope_freqs.weight"
"""GGUF's tensor of what divides the frequency of each rotated pair."""
GGUF_SHORT_FACTORS, GGUF_LONG_FACTORS = "rope_factors_short.weight", "rope_factors_long.weight"
"""The same in short and in long texts, where they differ."""


def rotary_arguments(
    config: ConfigReader,
    context_length: int,
    default_theta: float = 10000.0,
    default_fraction: float | None = None,
) -> dict[str, Any]:
    """Read the rotary embedding of a family that knows every kind of scaling.

    Args:
        config: the model's configuration.
        context_length: the most positions that the model was made for.
        default_theta: the base of the wavelengths where none is given.
        default_fraction: the part of a head that is rotated where none is given; None in families
            that rotate whole heads.

    Returns:
        `rope_max_wavelength`, `rope_scaling` as `nextword.layers.rotary_scaling` takes it,
        `partial_rotary_factor` where there is a default, and `context_length` where the scaling
        reaches farther.
    """
    rope, kind, theta = rotary_section(config, KINDS, default_theta)
    original = config.integer("original_max_position_embeddings", None)
    arguments: dict[str, Any] = {"rope_max_wavelength": theta}
    if default_fraction is not None:
        fraction = config.number("partial_rotary_factor", default_fraction)
        arguments["partial_rotary_factor"] = rope.number("partial_rotary_factor", fraction)
    return arguments | _with_scaling(rope, kind, context_length, original)


def _with_scaling(
    rope: ConfigReader, kind: str, context_length: int, original: int | None
) -> dict[str, Any]:
    scaling = scaling_settings(rope, kind, context_length, original)
    rope.check_all_read()
    arguments: dict[str, Any] = {"rope_scaling": scaling}
    if scaling is not None and kind in ("dynamic", "yarn"):
        reach = min(scaling["factor"] * scaling["original_context_length"], 2**31 - 1)
        arguments["context_length"] = max(context_length, int(reach))
    return arguments


def rotary_arguments_by_layer(
    config: ConfigReader, context_length: int, theta: float, sliding_theta: float
) -> dict[str, Any]:
    """Read the rotary embeddings of a family whose layers with a sliding window have another.

    Args:
        config: the model's configuration.
        context_length: the most positions that the model was made for.
        theta: the base of the wavelengths where none is given.
        sliding_theta: the same of the layers with a sliding window, which are not scaled.

    Returns:
        What `rotary_arguments` returns, and `sliding_rope_max_wavelength`.
    """
    theta = config.number("rope_theta", theta)
    sections = config.section("rope_parameters") or _no_settings()
    rope = sections.section("full_attention") or config.section("rope_scaling") or _no_settings()
    sliding = sections.section("sliding_attention") or _no_settings()
    config.skip("rope_scaling")
    sections.check_all_read()
    kind, theta = _kind_and_theta(rope, KINDS, theta)
    _, sliding_theta = _kind_and_theta(sliding, (), sliding_theta)
    sliding.check_all_read()
    return _with_scaling(rope, kind, context_length, None) | {
        "rope_max_wavelength": theta,
        "sliding_rope_max_wavelength": sliding_theta,
    }


def factored(scaling: dict[str, Any] | None) -> dict[str, Any]:
    """Return the arguments for a scaling in a family that has one of its own for linear scaling.

    Returns:
        `rope_scaling_factor` for linear scaling, else `rope_scaling`.
    """
    if scaling is not None and scaling["kind"] == "linear":
        return {"rope_scaling": None, "rope_scaling_factor": scaling["factor"]}
    return {"rope_scaling": scaling}


def rotary_section(
    config: ConfigReader, kinds: tuple[str, ...], default_theta: float = 10000.0
) -> tuple[ConfigReader, str, float]:
    """Find the settings of the rotary embedding, in the older spelling or that of transformers 5.

    Args:
        config: the model's configuration.
        kinds: the kinds of scaling that the family knows, besides "default".
        default_theta: the base of the wavelengths where none is given.

    Returns:
        A reader of the kind's own settings (to be ended with `check_all_read`), the kind, and the
        base of the wavelengths.

    Raises:
        PresetError: the kind is another one.
    """
    theta = config.number("rope_theta", default_theta)
    section = config.section("rope_parameters") or config.section("rope_scaling")
    config.skip("rope_scaling")
    section = section or _no_settings()
    return section, *_kind_and_theta(section, kinds, theta)


def _no_settings() -> ConfigReader:
    return ConfigReader({}, name="the rotary settings")


def _kind_and_theta(
    section: ConfigReader, kinds: tuple[str, ...], theta: float
) -> tuple[str, float]:
    known = ["default", *kinds]
    kind = section.choice("rope_type", known, None) or section.choice("type", known, "default")
    section.skip("type")
    return kind, section.number("rope_theta", theta)


def scaling_settings(
    rope: ConfigReader, kind: str, context_length: int, original: int | None = None
) -> dict[str, Any] | None:
    """Read a kind's own settings.

    Args:
        rope: the settings of the rotary embedding.
        kind: one of `KINDS`, or "default".
        context_length: the most positions that the model was made for.
        original: those of pre-training, where the model's configuration has them beside `rope`.

    Returns:
        What `nextword.layers.rotary_scaling` takes; None for "default".
    """
    if kind == "default":
        return None
    settings: dict[str, Any] = {"kind": kind}
    if kind == "linear":
        return settings | {"factor": rope.number("factor")}
    if kind == "dynamic":
        return settings | {
            "factor": rope.number("factor"),
            "original_context_length": context_length,
        }
    stated = rope.integer("original_max_position_embeddings", context_length)
    settings["original_context_length"] = original or stated
    if kind == "llama3":
        return settings | {
            "factor": rope.number("factor"),
            "low_frequency_factor": rope.number("low_freq_factor"),
            "high_frequency_factor": rope.number("high_freq_factor"),
        }
    reach = context_length / settings["original_context_length"]
    settings["factor"] = rope.number("factor", reach)
    settings["attention_factor"] = rope.number("attention_factor", None)
    if kind == "longrope":
        return settings | {
            "short_factors": rope.numbers("short_factor"),
            "long_factors": rope.numbers("long_factor"),
        }
    scales = rope.number("mscale", None), rope.number("mscale_all_dim", None)
    if settings["attention_factor"] is None and None not in scales:
        above, below = (yarn_magnitude(settings["factor"], scale) for scale in scales)
        settings["attention_factor"] = above / below
    return settings | {
        "fast_turns": rope.number("beta_fast", 32.0),
        "slow_turns": rope.number("beta_slow", 1.0),
        "whole_pairs": rope.boolean("truncate", True),
    }


def gguf_scaling(
    config: ConfigReader, checkpoint: Checkpoint, head_dim: int
) -> dict[str, Any] | None:
    """Read the scaling of a GGUF file, in a family that rotates whole heads.

    Args:
        config: the model's metadata.
        checkpoint: the GGUF file, one of whose tensors may be the scaling.
        head_dim: width of a head.

    Returns:
        What `nextword.layers.rotary_scaling` takes.
    """
    config.choice("rope.dimension_count", [head_dim], head_dim)
    return _gguf_scaling(config, checkpoint)


def gguf_partial_rotary(
    config: ConfigReader, checkpoint: Checkpoint, head_dim: int
) -> dict[str, Any]:
    """Read the rotary embedding of a GGUF file, in a family that rotates a part of each head.

    Args:
        config: the model's metadata.
        checkpoint: the GGUF file, one of whose tensors may be the scaling.
        head_dim: width of a head.

    Returns:
        `partial_rotary_factor` and `rope_scaling`.
    """
    dimensions = config.integer("rope.dimension_count", head_dim, maximum=head_dim)
    return {
        "partial_rotary_factor": dimensions / head_dim,
        "rope_scaling": _gguf_scaling(config, checkpoint),
    }


def _gguf_scaling(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any] | None:
    if GGUF_PAIR_FACTORS in checkpoint.tensor_names():
        config.choice("rope.scaling.type", ["none"], "none")
        return {"kind": "pairs", "factors": checkpoint.tensor(GGUF_PAIR_FACTORS).tolist()}
    kind = config.choice("rope.scaling.type", ["none", "linear", "yarn"], "none")
    if kind == "none":
        return None
    factor = config.number("rope.scaling.factor")
    if kind == "linear":
        return {"kind": "linear", "factor": factor}
    context_length = config.integer("context_length")
    return {
        "kind": "yarn",
        "factor": factor,
        "original_context_length": config.integer(
            "rope.scaling.original_context_length", context_length
        ),
        "attention_factor": yarn_magnitude(factor) * config.number("rope.scaling.attn_factor", 1.0),
        "fast_turns": config.number("rope.scaling.yarn_beta_fast", 32.0),
        "slow_turns": config.number("rope.scaling.yarn_beta_slow", 1.0),
    }
