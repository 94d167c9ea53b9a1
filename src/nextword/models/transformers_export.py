"""Write a model, or a part of one, as a checkpoint of transformers."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nextword.errors import PresetError
from nextword.layers import Matrix
from nextword.models.family import family_of
from nextword.models.formats.transformers_layout import TransformersLayout, transformers_layout
from nextword.models.lora import weights_in_floats
from nextword.models.saving import BYSTANDERS, PRESET_FILES, max_shard_bytes, names_in
from nextword.models.task_weights import as_array
from nextword.presets.directories import replaced_directory
from nextword.presets.json_files import read_json
from nextword.presets.safetensors_writer import write_safetensors
from nextword.presets.weight_table import stored_tensors
from nextword.tokenizers.assets import TRANSFORMERS_FILES, write_json

if TYPE_CHECKING:
    from nextword.models.backbone import Backbone
    from nextword.models.preprocessor import Preprocessor
    from nextword.models.task import Task
    from nextword.tokenizers import Tokenizer

_CONFIG, _GENERATION_CONFIG = "config.json", "generation_config.json"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_MODEL_FILES = {_CONFIG, _GENERATION_CONFIG, _INDEX}
_TOKENIZER_FILES = set(TRANSFORMERS_FILES)
_ROLES = ("bos_token_id", "eos_token_id", "pad_token_id")


def export_to_transformers(
    path: str | os.PathLike[str],
    *,
    backbone: "Backbone | None" = None,
    preprocessor: "Preprocessor | None" = None,
    task: "Task | None" = None,
    max_shard_size: float | None = None,
    overwrite: bool = False,
) -> None:
    """Write a backbone, a preprocessor, or both; see `Task.export_to_transformers`.

    With `task`, the head that it has on the backbone is written, too.
    """
    max_bytes = max_shard_bytes(max_shard_size)
    directory = Path(path)
    export = None if backbone is None else _Export(backbone, task)
    owned = _owned(directory, export, overwrite=overwrite)
    if preprocessor is not None:
        owned = owned | _TOKENIZER_FILES

    def keeps(name: str) -> bool:
        return name not in owned and not (_CONFIG in owned and _SHARD.fullmatch(name))

    with replaced_directory(directory, keeps) as new:
        if export is not None:
            export.write(new, preprocessor, max_bytes)
        if preprocessor is not None:
            preprocessor.write_tokenizer_for_transformers(new)


class _Export:
    """A backbone as transformers has it, or a whole model.

    Args:
        backbone: what is written.
        task: the model whose head is written, too, where it has one.

    Raises:
        PresetError: transformers has no such model.
    """

    def __init__(self, backbone: "Backbone", task: "Task | None") -> None:
        head = task.own_config() if task is not None and task.head_size is not None else None
        self._weights = weights_in_floats(backbone) | (task.task_variables() if task else {})
        self._generates = backbone.config.causal
        shapes = {path: tuple(weight.shape) for path, weight in self._weights.items()}
        self._dtype: str = backbone.dtype_policy.variable_dtype
        self.layout: TransformersLayout = transformers_layout(
            family_of(backbone), backbone.config, shapes, head
        )

    def write(
        self, directory: Path, preprocessor: "Preprocessor | None", max_bytes: float | None
    ) -> None:
        """Write config.json and the weights, and generation_config.json of what generates."""
        roles = _roles(preprocessor.tokenizer if preprocessor is not None else None)
        config = {
            "architectures": [self.layout.class_name],
            **self.layout.settings,
            "dtype": self._dtype,
            # What transformers called it before its fifth version.
            "torch_dtype": self._dtype,
            # Each is null where there is none, so that no family's default takes its place.
            **roles,
        }
        write_json(directory / _CONFIG, config)
        if self._generates:
            generation = {k: v for k, v in roles.items() if v is not None}
            write_json(directory / _GENERATION_CONFIG, generation)
        tensors = stored_tensors(self.layout.table, self._value)
        write_safetensors(directory, tensors, self.layout.shapes, self._dtype, max_bytes)

    def _value(self, path: str) -> np.ndarray:
        """Return a variable's value; that of a matrix with its update, and unpacked."""
        weight = self._weights[path]
        return weight.dense() if isinstance(weight, Matrix) else as_array(weight)


def _roles(tokenizer: "Tokenizer | None") -> dict[str, Any]:
    if tokenizer is None:
        return dict.fromkeys(_ROLES)
    ends = list(tokenizer.end_token_ids)
    roles = tokenizer.start_token_id, ends if len(ends) > 1 else next(iter(ends), None)
    return dict(zip(_ROLES, (*roles, tokenizer.pad_token_id), strict=True))


def _owned(directory: Path, export: "_Export | None", *, overwrite: bool) -> set[str]:
    """Return the files of the directory that go, whether or not others take their place."""
    found = names_in(directory, "path")
    conflict = _conflict(directory, found, export)
    if conflict is None:
        return set(_MODEL_FILES) if export is not None else set()
    if not overwrite:
        raise PresetError(
            "`path` must be new or empty, or hold an earlier export of the same architecture. "
            f"Received: path={str(directory)!r}, which {conflict}. Pass `overwrite=True` to "
            "replace the model in it; files that belong to no model are kept."
        )
    return _MODEL_FILES | _TOKENIZER_FILES | PRESET_FILES


def _conflict(directory: Path, found: set[str], export: "_Export | None") -> str | None:
    """Return why the files in a directory are no earlier export, or None."""
    for name in sorted(found - _MODEL_FILES - _TOKENIZER_FILES - BYSTANDERS):
        if not _SHARD.fullmatch(name):
            return f"holds {name!r}"
    if _CONFIG in found and export is not None:
        architecture = read_json(directory / _CONFIG).get("model_type")
        if architecture != export.layout.settings["model_type"]:
            return f"holds a {_CONFIG} of the architecture {str(architecture)[:80]!r}"
    return None
