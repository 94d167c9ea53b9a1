"""Save models, backbones and preprocessors as presets, which KerasHub opens where it can."""

import datetime
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

import nextword
from nextword.errors import PresetError
from nextword.models.family import family_of
from nextword.models.formats.keras import preset_format
from nextword.models.formats.keras_objects import (
    serialized_backbone,
    serialized_preprocessor,
    serialized_task,
    serialized_tokenizer,
)
from nextword.models.formats.keras_quantization import in_blocks
from nextword.models.matrices import modes
from nextword.models.weights_to_save import WeightsToSave
from nextword.presets.directories import replaced_directory
from nextword.presets.keras import GIGABYTE, SHARD_INDEX, TASK_WEIGHTS, WEIGHTS, write_weights
from nextword.presets.keras_config import (
    CONFIG,
    METADATA,
    NEXTWORD,
    PREPROCESSOR,
    TASK,
    TOKENIZER,
    SerializedObject,
    read_serialized,
    write_json,
)
from nextword.presets.weight_table import stored_tensors
from nextword.quantization import INT8, INT8_WEIGHT_ONLY

if TYPE_CHECKING:
    from nextword.models.backbone import Backbone
    from nextword.models.preprocessor import Preprocessor
    from nextword.models.task import Task

# The version of KerasHub whose format this is.
_KERAS_HUB_VERSION = "0.32.0"
_ASSETS = "assets"
_SHARD = re.compile(r"model_\d{5}\.weights\.h5")
_BACKBONE_FILES = {CONFIG, METADATA, WEIGHTS, SHARD_INDEX}
_PREPROCESSOR_FILES = {PREPROCESSOR, TOKENIZER, _ASSETS}
_TASK_FILES = {TASK, TASK_WEIGHTS}
PRESET_FILES = _BACKBONE_FILES | _PREPROCESSOR_FILES | _TASK_FILES
# Files that people put beside a preset and that say nothing of what the model computes.
BYSTANDERS = {"README.md", "LICENSE", ".gitattributes"}


class PresetWriter:
    """Writes a model, or a part of one, to a directory: as a whole or not at all.

    Args:
        backbone: what to write, if anything.
        preprocessor: what to write, if anything.
        task: the model that these are the parts of, if it is to be written.
        dequantize: whether quantized matrices are written as floats.

    Raises:
        PresetError: the model is of no family that can be written.
    """

    def __init__(
        self,
        *,
        backbone: "Backbone | None" = None,
        preprocessor: "Preprocessor | None" = None,
        task: "Task | None" = None,
        dequantize: bool = False,
    ) -> None:
        self._backbone = backbone
        self._preprocessor = preprocessor
        self._task = task
        self._modes = {} if backbone is None or dequantize else modes(backbone)
        family = family_of(backbone if backbone is not None else preprocessor)
        self._stored = preset_format(family)
        self._task_cls = family.task
        self._kinds = {
            CONFIG: "Backbone",
            PREPROCESSOR: f"{family.task.kind}Preprocessor",
            TOKENIZER: "Tokenizer",
            TASK: family.task.kind,
        }
        self._classes = self._stored.classes_for(preprocessor.tokenizer if preprocessor else None)

    def write(
        self,
        preset_dir: str | os.PathLike[str],
        *,
        max_shard_size: float | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write everything.

        Args:
            preset_dir: the directory.
            max_shard_size: the most gigabytes (2**30 bytes) in one weight file; None for no limit.
            overwrite: whether another preset in the directory may be replaced.

        Raises:
            PresetError: the directory holds something else, and `overwrite` is not set.
            ValueError: `max_shard_size` is not positive, or smaller than the largest tensor.
        """
        max_bytes = max_shard_bytes(max_shard_size)
        if {INT8.mode, INT8_WEIGHT_ONLY.mode} <= set(self._modes.values()):
            raise PresetError("A preset has either int8 or int8_weight_only matrices, not both.")
        directory = Path(preset_dir)
        self._adopt_classes(directory)
        owned = self._owned_files(directory, overwrite=overwrite)
        self._warn_of_what_keras_hub_lacks()

        def keeps(name: str) -> bool:
            return name not in owned and not (WEIGHTS in owned and _SHARD.fullmatch(name))

        with replaced_directory(directory, keeps) as new:
            if self._backbone is not None:
                self._write_backbone(new, self._backbone, max_bytes)
            if self._preprocessor is not None:
                self._write_preprocessor(new, self._preprocessor)
            if self._task is not None:
                write_json(
                    new / TASK,
                    serialized_task(self._task, self._stored, self._classes, self._modes),
                )
                if self._task.has_task_weights():
                    self._task.save_task_weights(new / TASK_WEIGHTS)

    def _write_backbone(self, new: Path, backbone: "Backbone", max_bytes: float | None) -> None:
        weights = WeightsToSave(backbone, self._modes, self._stored.constants(backbone.config))
        table = self._stored.table_of(backbone.config, weights.sizes, self._modes)
        if unknown := weights.sizes.keys() ^ table.keys():
            raise PresetError(f"A preset has no place for the variable {min(unknown)!r}.")
        sizes: dict[str, int] = {}
        for path, place in table.items():
            sizes[place.name] = sizes.get(place.name, 0) + weights.sizes[path]
        tensors = stored_tensors(table, weights.value)
        write_weights(new, tensors, sizes, max_bytes)
        serialized = serialized_backbone(backbone, self._stored, self._classes, self._modes)
        write_json(new / CONFIG, serialized)
        write_json(new / METADATA, _metadata(weights.parameter_count, self._task_cls.kind))

    def _write_preprocessor(self, new: Path, preprocessor: "Preprocessor") -> None:
        serialized = serialized_preprocessor(preprocessor, self._task_cls.kind, self._classes)
        write_json(new / PREPROCESSOR, serialized)
        write_json(new / TOKENIZER, serialized_tokenizer(preprocessor.tokenizer, self._classes))
        assets = new / _ASSETS / Path(TOKENIZER).stem
        assets.mkdir(parents=True)
        preprocessor.tokenizer.save_assets(assets)
        known = self._classes.tokenizer_cls
        if self._classes.package == NEXTWORD:
            return  # KerasHub does not have the model at all
        if known is None or not all((assets / name).is_file() for name in known.asset_files):
            warnings.warn(
                f"KerasHub's {self._classes.name_of('Tokenizer')} is of another kind than the "
                f"{type(preprocessor.tokenizer).__name__} of this model: KerasHub will refuse the "
                "preset. nextword will load it exactly.",
                stacklevel=4,
            )

    def _owned_files(self, directory: Path, *, overwrite: bool) -> set[str]:
        """Return the files of the directory that go, whether or not others take their place."""
        found = names_in(directory, "preset_dir")
        conflict = next(self._conflicts(directory, found), None)
        if conflict is None:
            parts = _BACKBONE_FILES if self._backbone is not None else set()
            if self._preprocessor is not None or self._task is not None:
                parts = parts | _PREPROCESSOR_FILES
            return parts | _TASK_FILES  # a part that changes makes the description of the whole old
        if not overwrite:
            raise PresetError(
                "`preset_dir` must be new or empty, or hold an earlier save of the same model. "
                f"Received: preset_dir={str(directory)!r}, which {conflict}. Pass "
                "`overwrite=True` to replace the preset in it; files that belong to no preset are "
                "kept."
            )
        return PRESET_FILES

    def _conflicts(self, directory: Path, found: set[str]) -> Iterator[str]:
        """Yield why the files in a directory are no earlier save of this model."""
        for name in sorted(found - PRESET_FILES - BYSTANDERS):
            if not _SHARD.fullmatch(name):
                yield f"holds {name!r}"
        for name in sorted(found & self._kinds.keys()):
            try:
                other = read_serialized(directory / name)
            except PresetError:
                yield f"holds a {name} that is not KerasHub's"
                return
            if self._classes.kind_of(other, self._task_cls) != self._kinds[name]:
                yield f"holds a {other.class_name}"
            if name == CONFIG and self._differs(other):
                yield f"holds a {other.class_name} of another configuration"
        if TASK_WEIGHTS in found and self._task is None:
            yield f"holds a {TASK_WEIGHTS}, which belongs to a whole model"

    def _adopt_classes(self, directory: Path) -> None:
        """Name a backbone as the tokenizer beside it, which decides the classes."""
        path = directory / TOKENIZER
        if self._preprocessor is None and self._task is None and path.is_file():
            class_name = read_serialized(path).class_name
            for classes in self._stored.classes:
                if class_name == classes.name_of(self._kinds[TOKENIZER]):
                    self._classes = classes

    def _differs(self, other: SerializedObject) -> bool:
        if self._backbone is None:
            return False
        ours = self._backbone.get_config()
        defaults = self._stored.defaults()
        return any(
            _as_json(ours[name]) != other.config.get(name, default)
            for name, default in defaults.items()
            if name != "tie_word_embeddings"  # which KerasHub does not save
        )

    def _warn_of_what_keras_hub_lacks(self) -> None:
        prefix = self._classes.prefix
        if self._backbone is not None:
            _, wrong = self._stored.arguments_to_save(self._backbone)
            if wrong:
                warnings.warn(
                    f"KerasHub's {prefix}Backbone does not know or heed {', '.join(wrong)}: it "
                    "will refuse the preset or compute something else. nextword will load it "
                    "exactly.",
                    stacklevel=4,
                )
        if unknown := sorted(set(filter(in_blocks, self._modes.values()))):
            warnings.warn(
                f"KerasHub has no weights in {' or '.join(unknown)}: it will refuse the preset. "
                "nextword will load it exactly. Pass `dequantize=True` to save floats.",
                stacklevel=4,
            )
        if INT8_WEIGHT_ONLY.mode in self._modes.values():
            warnings.warn(
                "KerasHub rounds the inputs of int8 weights to 8 bits, too: it will compute "
                "something else. nextword will load the preset exactly. Pass `dequantize=True` to "
                "save floats.",
                stacklevel=4,
            )


def names_in(directory: Path, argument: str) -> set[str]:
    """Return the names of the files in a directory that is to be written to.

    Args:
        directory: the directory, which need not exist.
        argument: what the caller calls it.

    Raises:
        PresetError: it is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise PresetError(
            f"`{argument}` must be a directory. Received: {argument}={str(directory)!r}, "
            "which is a file."
        )
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


def max_shard_bytes(max_shard_size: float | None) -> float | None:
    """Return how many bytes may be in one file of weights.

    Args:
        max_shard_size: the same in gigabytes; None for no limit.

    Raises:
        TypeError: it is no number.
        ValueError: it is not positive.
    """
    if max_shard_size is None:
        return None
    if isinstance(max_shard_size, bool) or not isinstance(max_shard_size, int | float):
        raise TypeError(
            "`max_shard_size` must be a number of gigabytes or None. Received: "
            f"max_shard_size={max_shard_size!r}."
        )
    if not max_shard_size > 0:
        raise ValueError(
            f"`max_shard_size` must be positive. Received: max_shard_size={max_shard_size}."
        )
    return max_shard_size * GIGABYTE


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _metadata(parameter_count: int, task_kind: str) -> dict[str, Any]:
    return {
        "keras_version": keras.version(),
        "keras_hub_version": _KERAS_HUB_VERSION,
        "nextword_version": nextword.__version__,
        "parameter_count": parameter_count,
        "date_saved": datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S"),
        "tasks": [task_kind],
    }
