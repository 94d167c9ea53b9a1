"""Presets of KerasHub: config.json with a registered class name, and weights in HDF5 files.

Families that KerasHub does not have are kept in the same files, in the format "nextword".
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nextword.errors import PresetError
from nextword.presets.h5_files import read_h5_header, write_h5_files
from nextword.presets.handles import show
from nextword.presets.json_files import read_json
from nextword.presets.keras_config import CONFIG, KERAS_HUB, read_serialized, write_json
from nextword.presets.stored_tensors import FLOATS, StoredTensor, StoredTensors
from nextword.quantization import BLOCK_FORMATS, GROUP, INT8, INT8_WEIGHT_ONLY

if TYPE_CHECKING:
    from nextword.presets.sources import PresetSource

WEIGHTS = "model.weights.h5"
SHARD_INDEX = "model.weights.json"
TASK_WEIGHTS = "task.weights.h5"

GIGABYTE = 2**30

# What Keras 2 called the group of the layers.
_OLD_LAYERS, _LAYERS = "_layer_checkpoint_dependencies/", "layers/"
INT8_MODE = "nextword_int8_mode"
"""The key of config.json that says how int8 matrices are computed with, which KerasHub ignores."""

# Where matrices are that stay in blocks of GGUF.
_BLOCKS = "quantized/"
_MIXED = ("mixed_float16", "mixed_bfloat16")


class KerasCheckpoint(StoredTensors):
    """A backbone as KerasHub's `save_to_preset` writes it. Opening it reads headers only.

    Args:
        source: where the files are.
        weights: whether to open the weights, for which all weight files are fetched. Without them
            the checkpoint has no tensors.

    Attributes:
        format: `"keras"`, or `"nextword"` for a class of nextword.
        source: as given.
        architecture: the backbone's class name, such as `"GPT2Backbone"`.
        config: the arguments of the backbone's constructor, unchecked. Nothing that the file names
            is ever imported.
        int8_mode: what `quantize` calls the format of the matrices that are int8, if any are.

    Raises:
        PresetError: a file is missing, damaged, or not what KerasHub writes, or the weights are
            quantised otherwise than to int8.
    """

    def __init__(self, source: "PresetSource", *, weights: bool = True) -> None:
        self.source = source
        backbone = read_serialized(source.path(CONFIG))
        self.format = "keras" if backbone.package == KERAS_HUB else "nextword"
        self.architecture = backbone.class_name
        self.config: Mapping[str, Any] = backbone.config
        self.int8_mode = self._read_int8_mode()
        self._is_quantized = False
        self._policy = self._read_policy()
        super().__init__(source.name, map(_in_blocks, self._stored()) if weights else [])

    @property
    def dtype(self) -> str:
        """The dtype of most elements of the matrices, or the mixed policy that they were saved in.

        A mixed policy computes in another dtype than it stores, which the tensors cannot tell.
        Without tensors, or with few in floats, the policy is all there is to go by.
        """
        is_quantized = self._is_quantized or any(map(self.block_format, self._tensors))
        has_floats = self._tensors and not is_quantized
        known = _MIXED if has_floats else (*_MIXED, *FLOATS)
        return self._policy if self._policy and self._policy in known else super().dtype

    def _read_int8_mode(self) -> str:
        mode = read_json(self.source.path(CONFIG)).get(INT8_MODE, INT8.mode)
        if mode not in (INT8.mode, INT8_WEIGHT_ONLY.mode):
            raise self._refused(f"weights quantised as {show(str(mode))}")
        return str(mode)

    def _read_policy(self) -> str | None:
        policy = self.config.get("dtype")
        if isinstance(policy, Mapping) and policy.get("class_name") == "DTypePolicyMap":
            settings = policy.get("config")
            settings = settings if isinstance(settings, Mapping) else {}
            self._check_modes(settings.get("policy_map"))
            self._is_quantized = True
            policy = settings.get("default_policy")
        if policy is None or isinstance(policy, str):
            return policy
        kind = policy.get("class_name") if isinstance(policy, Mapping) else None
        name = _setting(policy, "name")
        if kind != "DTypePolicy" or not isinstance(name, str):
            raise self._refused(f"a dtype of the kind {show(str(kind))}")
        return name

    def _check_modes(self, policies: Any) -> None:
        """Check that the layers which the preset says are quantised are so in a known way."""
        for policy in policies.values() if isinstance(policies, Mapping) else [policies]:
            if (mode := _setting(policy, "mode")) != "int8":
                raise self._refused(f"weights quantised as {show(str(mode))}")

    def _refused(self, received: str) -> PresetError:
        return PresetError(
            f"The weights of {show(self.source.name)} must be float32, float16, bfloat16 or int8. "
            f"Received: {received}, by {CONFIG}."
        )

    def _stored(self) -> list[StoredTensor]:
        weights = self.source.find(WEIGHTS)
        if weights is not None:
            return _renamed(read_h5_header(weights))
        index = self.source.find(SHARD_INDEX)
        if index is not None:
            return _renamed(self._sharded(read_json(index)))
        raise PresetError(
            f"{show(self.source.name)} has no weights: it has neither {WEIGHTS} nor {SHARD_INDEX}."
        )

    def _sharded(self, index: Mapping[str, Any]) -> list[StoredTensor]:
        groups = _shards_by_group(index, self.source.name)
        shards = dict.fromkeys(shard for shards in groups.values() for shard in shards)
        tensors = [t for shard in shards for t in read_h5_header(self.source.path(shard))]
        stored = {tensor.name.rpartition("/")[0] for tensor in tensors}
        if missing := groups.keys() - stored:
            raise PresetError(
                f"{SHARD_INDEX} of {show(self.source.name)} names {show(min(missing))}, which no "
                "weight file holds."
            )
        return tensors


class KerasTaskWeights(StoredTensors):
    """The weights that a model has beside its backbone's, as KerasHub stores them.

    Args:
        path: the file.
        architecture: the name of the model's class.

    Raises:
        PresetError: the file is damaged, or not what Keras writes.
    """

    format = "keras"
    config: Mapping[str, Any] = {}

    def __init__(self, path: Path, architecture: str) -> None:
        super().__init__(str(path), read_h5_header(path))
        self.architecture = architecture


def _setting(serialized: Any, name: str) -> Any:
    """Return an argument of a serialized object, or None where there is none."""
    config = serialized.get("config") if isinstance(serialized, Mapping) else None
    return config.get(name) if isinstance(config, Mapping) else None


def _shards_by_group(index: Mapping[str, Any], name: str) -> dict[str, list[str]]:
    """Return the names of the files that each group of tensors is in."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise PresetError(
            f"{SHARD_INDEX} of {show(name)} must have a 'weight_map' of groups to files."
        )
    groups: dict[str, list[str]] = {}
    for group, value in weight_map.items():
        shards = [value] if isinstance(value, str) else value
        # Plain names beside the index: the source refuses all else that leaves the preset.
        if not isinstance(shards, list) or not all(map(_is_shard, shards)) or not shards:
            raise PresetError(
                f"{SHARD_INDEX} of {show(name)} must name .h5 files beside it. Received: "
                f"{show(str(value))} for {show(group)}."
            )
        groups[group.strip("/")] = shards
    return groups


def _is_shard(value: Any) -> bool:
    return isinstance(value, str) and "/" not in value and value.endswith(".h5")


def block_name(path: str, mode: str) -> str:
    """Return the name by which the blocks of a matrix are stored, which KerasHub does not know.

    Args:
        path: path of the matrix.
        mode: what `quantize` calls its format.
    """
    return f"{_BLOCKS}{mode}/{path}"


def _in_blocks(tensor: StoredTensor) -> StoredTensor:
    """Return a tensor of `block_name` as what its bytes stand for, any other as it is."""
    if not tensor.name.startswith(_BLOCKS):
        return tensor
    from nextword.presets.quantized_tensor import QuantizedTensor  # which needs a library more

    encoding = tensor.name.split("/")[1].upper()
    form = BLOCK_FORMATS.get(encoding)
    rows, size = tensor.shape if len(tensor.shape) == 2 else (0, 0)
    if form is None or tensor.encoding != "U8" or not size or size % form.block_bytes:
        raise PresetError(
            f"The tensor {show(tensor.name)} of {show(str(tensor.path))} must be a matrix of whole "
            f"blocks in one of {', '.join(BLOCK_FORMATS)}. Received: {tensor.encoding} of the "
            f"shape {tensor.shape}."
        )
    shape = (rows, size // form.block_bytes * GROUP)
    return QuantizedTensor(tensor.name, tensor.path, tensor.offset, shape, encoding)


def _renamed(tensors: list[StoredTensor]) -> list[StoredTensor]:
    """Give tensors of the oldest presets the names that they have today."""
    return [
        StoredTensor(t.name.replace(_OLD_LAYERS, _LAYERS), t.path, t.offset, t.shape, t.encoding)
        for t in tensors
    ]


def write_weights(
    directory: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    sizes: Mapping[str, int],
    max_shard_bytes: float | None,
) -> None:
    """Write the weights of a backbone as KerasHub does, in several files if they are large.

    Args:
        directory: where the files are made.
        tensors: names and tensors, taken one by one.
        sizes: size of each tensor in bytes, by name.
        max_shard_bytes: the most bytes of tensors in one file; None for no limit.

    Raises:
        ValueError: one tensor is larger than a file may be.
    """
    total = sum(sizes.values())
    if max_shard_bytes is None or total <= max_shard_bytes:
        write_h5_files(directory, tensors, dict.fromkeys(sizes, WEIGHTS))
        return
    places = _places(sizes, max_shard_bytes)
    write_h5_files(directory, tensors, places)
    weight_map: dict[str, Any] = {}
    for name, shard in places.items():
        shards = weight_map.setdefault(f"/{_group(name)}", [])
        if shard not in shards:
            shards.append(shard)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {g: s if len(s) > 1 else s[0] for g, s in weight_map.items()},
    }
    write_json(directory / SHARD_INDEX, index)


def _places(sizes: Mapping[str, int], max_bytes: float) -> dict[str, str]:
    """Return the file that each tensor goes to. A group is kept together where it fits."""
    groups: dict[str, dict[str, int]] = {}
    for name, size in sizes.items():
        groups.setdefault(_group(name), {})[name] = size
    places: dict[str, str] = {}
    shard, used = 0, 0
    for group in groups.values():
        if used and used + sum(group.values()) > max_bytes:
            shard, used = shard + 1, 0
        for name, size in group.items():
            if used and used + size > max_bytes:
                shard, used = shard + 1, 0
            if size > max_bytes:
                raise ValueError(
                    f"`max_shard_size` must be at least the size of the largest tensor, "
                    f"{size / GIGABYTE:.3g}. Received: max_shard_size={max_bytes / GIGABYTE:.3g}."
                )
            places[name] = f"model_{shard:05}.weights.h5"
            used += size
    return places


def _group(name: str) -> str:
    return name.rpartition("/")[0]
