"""Checkpoints of the transformers library: config.json and weights in safetensors files.

Pickled weights are never read: loading one runs whatever code its author put there.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextword.errors import PresetError
from nextword.presets.handles import show
from nextword.presets.json_files import read_json
from nextword.presets.safetensors_files import read_safetensors_header
from nextword.presets.stored_tensors import FLOATS, StoredTensor, StoredTensors

if TYPE_CHECKING:
    from nextword.presets.sources import PresetSource

CONFIG = "config.json"
_GENERATION_CONFIG = "generation_config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class TransformersCheckpoint(StoredTensors):
    """A model as transformers' `save_pretrained` writes it. Opening it reads headers only.

    Args:
        source: where the files are.
        weights: whether to open the weights, for which all weight files are fetched. Without them
            the checkpoint has no tensors.

    Attributes:
        format: `"transformers"`.
        source: as given.
        architecture: `model_type` of config.json.
        config: config.json, whole and unchecked: the family that reads it decides what it knows.
            Nothing that it names is ever imported.

    Raises:
        PresetError: a file is missing, damaged or not what its name says, the weights exist as
            pickles only, or are quantised.

    Example:
        ```python
        checkpoint = TransformersCheckpoint(nextword.presets.resolve_preset(directory))
        checkpoint.config["hidden_size"]
        checkpoint.tensor("model.layers.0.self_attn.k_proj.weight").shape
        ```
    """

    format = "transformers"

    def __init__(self, source: "PresetSource", *, weights: bool = True) -> None:
        self.source = source
        self.config: Mapping[str, Any] = read_json(source.path(CONFIG))
        self.architecture = self._architecture()
        self._check_not_quantized()
        super().__init__(source.name, self._stored() if weights else [])

    @property
    def dtype(self) -> str:
        """The dtype of most elements of the matrices, or what config.json says without tensors."""
        declared: Any = self.config.get("dtype") or self.config.get("torch_dtype")
        return declared if declared in FLOATS and not self._tensors else super().dtype

    @cached_property
    def generation_config(self) -> Mapping[str, Any]:
        """generation_config.json, `{}` where there is none.

        Raises:
            PresetError: it is no JSON object.
        """
        path = self.source.find(_GENERATION_CONFIG)
        return {} if path is None else read_json(path)

    def _architecture(self) -> str:
        architecture = self.config.get("model_type")
        if not isinstance(architecture, str) or not architecture:
            raise PresetError(
                f"{CONFIG} of {show(self.source.name)} must have a 'model_type', the name of the "
                f"architecture. Received: model_type={show(str(architecture))}."
            )
        return architecture

    def _check_not_quantized(self) -> None:
        quantization = self.config.get("quantization_config")
        if quantization is not None:
            method = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
            raise PresetError(
                f"The weights of {show(self.source.name)} must be float32, float16 or bfloat16. "
                f"Received: weights quantised with {show(str(method))}, by {CONFIG}."
            )

    def _stored(self) -> list[StoredTensor]:
        weights = self.source.find(_WEIGHTS)
        if weights is not None:
            return read_safetensors_header(weights)
        index = self.source.find(_INDEX)
        if index is not None:
            return self._sharded(index)
        raise self._no_weights()

    def _sharded(self, index: Path) -> list[StoredTensor]:
        tensors: list[StoredTensor] = []
        for shard, promised in _read_index(index).items():
            stored = read_safetensors_header(self.source.path(shard))
            if missing := promised - {tensor.name for tensor in stored}:
                raise PresetError(
                    f"{_INDEX} of {show(self.source.name)} puts the tensor {show(min(missing))} "
                    f"in {show(shard)}, which does not hold it."
                )
            tensors += stored
        return tensors

    def _no_weights(self) -> PresetError:
        pickles = [
            name
            for name in self.source.filenames() or ()
            if name.endswith(_PICKLES) and "/" not in name
        ]
        if pickles:
            return PresetError(
                f"{show(self.source.name)} has its weights only as {show(pickles[0])}, a pickle, "
                "which nextword never loads because that can run any code: where you trust it, "
                "load it with transformers and write it again with "
                "`save_pretrained(directory, safe_serialization=True)`."
            )
        return PresetError(
            f"{show(self.source.name)} has no weights: neither {_WEIGHTS} nor {_INDEX} is there "
            "(weights in .bin or .pt files are pickles, which nextword never loads)."
        )


def _read_index(path: Path) -> dict[str, set[str]]:
    """Return the names of the tensors that each shard, a file name, is said to hold."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise PresetError(f"{show(str(path))} must have a 'weight_map' of tensors to files.")
    shards: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        # A plain name beside the index: the source refuses all else that leaves the preset.
        if not isinstance(shard, str) or "/" in shard or not shard.endswith(".safetensors"):
            raise PresetError(
                f"{show(str(path))} must name .safetensors files beside it. Received: "
                f"{show(str(shard))} for the tensor {show(name)}."
            )
        shards.setdefault(shard, set()).add(name)
    return shards
