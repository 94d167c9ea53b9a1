"""Quantised weights in presets: where they are, and what config.json says.

Matrices of 8 bits are stored as KerasHub stores them. Blocks of GGUF, for which it has no place,
have names of their own, by which KerasHub knows that it cannot read them.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from nextword.errors import PresetError
from nextword.models.formats.keras_layers import layer_of
from nextword.presets.keras import block_name
from nextword.presets.keras_config import serialized_dtype, serialized_policies
from nextword.presets.weight_layouts import JoinedHeads, LeadingAxes, SplitHeads
from nextword.presets.weight_table import Stored, WeightTable
from nextword.quantization import BLOCK_FORMATS, FORMATS, INT8, WeightFormat

_LAYER = "transformer_layer_"


def in_blocks(mode: str) -> bool:
    """Return whether what `quantize` calls so is stored in blocks of GGUF."""
    return mode.upper() in BLOCK_FORMATS


def quantized_table(
    table: WeightTable, modes: Mapping[str, str], einsum: Collection[str]
) -> WeightTable:
    """Return the table of a backbone some of whose matrices are quantized.

    Args:
        table: where KerasHub stores each variable of the backbone in floats.
        modes: path of each quantized matrix to its mode.
        einsum: see `with_scales`.

    Raises:
        PresetError: see `with_scales`.
    """
    int8 = [path for path, mode in modes.items() if not in_blocks(mode)]
    return {**with_scales(table, int8, einsum), **stored_in_blocks(modes)}


def stored_in_blocks(modes: Mapping[str, str]) -> WeightTable:
    """Return where the matrices in blocks of GGUF are, of all that are quantized to a mode."""
    return {p: Stored(block_name(p, mode)) for p, mode in modes.items() if in_blocks(mode)}


def stored_modes(checkpoint: Any, table: WeightTable) -> dict[str, str]:
    """Return the modes of the matrices of a preset that are quantized.

    Args:
        checkpoint: a `KerasCheckpoint`.
        table: where it would store each variable in floats.
    """
    int8 = int8_matrices(checkpoint, table)
    return {path: form.mode for path, form in int8.items()} | block_modes(checkpoint, table)


def block_modes(checkpoint: Any, paths: Iterable[str]) -> dict[str, str]:
    """Return the modes of those matrices of a preset that are stored in blocks of GGUF."""
    stored = checkpoint.tensor_names()
    forms = [form.mode for form in BLOCK_FORMATS.values()]
    return {p: mode for p in paths for mode in forms if block_name(p, mode) in stored}


def with_scales(table: WeightTable, paths: Collection[str], einsum: Collection[str]) -> WeightTable:
    """Return the table of a backbone some of whose matrices are int8.

    Args:
        table: where KerasHub stores each variable of the backbone in floats.
        paths: the int8 matrices.
        einsum: paths, within a transformer layer, of layers that KerasHub computes as an einsum
            without heads; their scales have the axes of their outputs.

    Raises:
        PresetError: KerasHub keeps an int8 matrix as one with another that is not.
    """
    layers: dict[str, list[str]] = {}
    for path, entry in table.items():
        layers.setdefault(layer_of(entry.name), []).append(path)
    found: dict[str, Stored] = {}
    for layer, members in layers.items():
        quantized = [path for path in members if path in paths]
        kept = {table[path].name for path in members if path not in paths}
        if shared := [path for path in quantized if table[path].name in kept]:
            raise PresetError(
                f"A preset of KerasHub keeps {shared[0]!r} and what is beside it as one weight: "
                "either all of it is quantized, or none."
            )
        found |= (
            {path: table[path] for path in members}
            if not quantized
            else _numbered(layer, {path: table[path] for path in members}, quantized, einsum)
        )
    return found


def _numbered(
    layer: str, table: WeightTable, quantized: Collection[str], einsum: Collection[str]
) -> dict[str, Stored]:
    """Return the entries of one layer with scales, numbered as Keras does.

    The scale of an embedding follows it, that of a kernel comes at the end.
    """
    entries: dict[str, Stored] = {}
    for path, entry in table.items():
        entries[path] = entry
        if path in quantized and not path.endswith("/kernel"):
            entries[f"{path}_scale"] = Stored(f"{entry.name}_scale", *entry.layouts)
    for path in quantized:
        if path.endswith("/kernel"):
            entry = table[path]
            has_heads = any(isinstance(each, SplitHeads | JoinedHeads) for each in entry.layouts)
            is_einsum = has_heads or _within_layer(path) in einsum
            leading = (LeadingAxes(2),) if is_einsum else ()
            entries[f"{path}_scale"] = Stored(f"{entry.name}_scale", *leading, *entry.layouts)
    numbers = {name: i for i, name in enumerate(dict.fromkeys(e.name for e in entries.values()))}
    return {
        path: Stored(f"layers/{layer}/vars/{numbers[entry.name]}", *entry.layouts)
        for path, entry in entries.items()
    }


def int8_matrices(checkpoint: Any, table: WeightTable) -> dict[str, WeightFormat]:
    """Return the matrices of a preset that are int8.

    Args:
        checkpoint: a `KerasCheckpoint`.
        table: where it would store each variable in floats.
    """
    stored = checkpoint.tensor_names()
    found: dict[str, WeightFormat] = {}
    for path, entry in table.items():
        # All matrices of a layer are quantized, or none, and its first weight is one of them.
        first = f"layers/{layer_of(entry.name)}/vars/0"
        is_matrix = path.endswith(("/kernel", "embeddings"))
        if is_matrix and first in stored and checkpoint.encoding(first) == "I8":
            found[path] = FORMATS[checkpoint.int8_mode]
    return found


def serialized_backbone_dtype(
    policy: str, modes: Mapping[str, str], paths: Mapping[str, str]
) -> dict[str, Any]:
    """Return the dtype of a backbone as KerasHub serializes it.

    Args:
        policy: the name of its policy.
        modes: path of each quantized matrix to its mode.
        paths: what KerasHub calls the layers, see `LAYER_PATHS`.
    """
    int8 = [path for path, mode in modes.items() if not in_blocks(mode)]
    if not int8:
        return serialized_dtype(policy)
    layers = {}
    for path in int8:
        layer, number = _within_layer(path), path.removeprefix(_LAYER).partition("/")[0]
        if layer not in paths:
            raise PresetError(f"A preset has no place for {path!r} in {modes[path]}.")
        layers[paths[layer].replace("{i}", number)] = INT8.mode  # as KerasHub calls both
    return serialized_policies(policy, layers)


def _within_layer(path: str) -> str:
    """Return the path of a matrix's layer without that of the transformer layer around it."""
    layer = path.rpartition("/")[0]
    return layer.partition("/")[2] if layer.startswith(_LAYER) else layer
