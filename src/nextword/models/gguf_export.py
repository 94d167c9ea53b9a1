"""Write a model as one GGUF file, which llama.cpp and nextword read."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from nextword.errors import PresetError
from nextword.models.family import family_of
from nextword.models.formats.gguf_layout import GGUFLayout, gguf_layout
from nextword.models.lora import weights_in_floats
from nextword.models.matrices import matrices
from nextword.models.task_weights import as_array
from nextword.presets.gguf_writer import TensorPlan, write_gguf
from nextword.presets.progress import progress_bar
from nextword.presets.stored_tensors import check_finite
from nextword.presets.weight_table import stored_tensors
from nextword.quantization import BLOCK_FORMATS
from nextword.tokenizers.gguf_keys import gguf_tokenizer_keys

if TYPE_CHECKING:
    from nextword.models.backbone import Backbone
    from nextword.models.preprocessor import Preprocessor

_FLOATS: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
GGUF_DTYPES = tuple(name.lower() for name in (*_FLOATS, *BLOCK_FORMATS))
"""How `CausalLM.export_to_gguf` can store matrices."""

_OF_VARIABLES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
# llama.cpp's numbers for what most matrices of a file are stored as, and for how blocks look.
_FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "BF16": 32}
_BLOCKS_VERSION = 2
# What llama.cpp keeps in float32: what routes tokens to experts, and learned positions.
_EXACT = ("ffn_gate_inp", "position_embd")
# What takes the place of blocks where a row has no whole number of them.
_WITHOUT_BLOCKS = "F16"
# Writing fewer takes less time than a bar takes to read.
_ELEMENTS_WORTH_A_BAR = 500_000_000


def export_to_gguf(
    backbone: "Backbone", preprocessor: "Preprocessor | None", path: Path, dtype: str | None
) -> None:
    """Write a model; see `CausalLM.export_to_gguf`."""
    if dtype is not None and dtype not in GGUF_DTYPES:
        known = ", ".join(map(repr, GGUF_DTYPES))
        raise ValueError(f"`dtype` must be one of {known}, or None. Received: dtype={dtype!r}.")
    if path.is_dir():
        raise PresetError(f"`path` must be that of a file. Received: the directory {str(path)!r}.")
    export = _Export(backbone, None if dtype is None else dtype.upper())
    keys: dict[str, Any] = {"tokenizer.ggml.model": "none"}
    if preprocessor is not None:
        keys = gguf_tokenizer_keys(
            preprocessor.tokenizer,
            num_tokens=backbone.config.vocabulary_size,
            add_start_token=bool(getattr(preprocessor, "add_start_token", False)),
        )
    export.write(path, keys)


class _Export:
    """The tensors of a backbone as GGUF has them.

    Args:
        backbone: what is written.
        encoding: how matrices are stored; None for each as it is held.

    Raises:
        PresetError: GGUF cannot store such a backbone.
    """

    def __init__(self, backbone: "Backbone", encoding: str | None) -> None:
        self._matrices = matrices(backbone)
        self._weights = weights_in_floats(backbone)
        shapes = {path: tuple(weight.shape) for path, weight in self._weights.items()}
        self._layout: GGUFLayout = gguf_layout(family_of(backbone), backbone.config, shapes)
        self._encoding = encoding
        self._held_floats = _OF_VARIABLES[backbone.dtype_policy.variable_dtype]
        paths: dict[str, list[str]] = {}
        for path, stored in self._layout.table.items():
            paths.setdefault(stored.name, []).append(path)
        self._paths = paths
        self._plans = {
            name: TensorPlan(name, shape, self._encoding_of(name, shape))
            for name, shape in self._layout.shapes.items()
        }

    def write(self, path: Path, keys: dict[str, Any]) -> None:
        """Write the file.

        Args:
            path: the file.
            keys: those of the tokenizer.
        """
        layout = self._layout
        encodings = [plan.encoding for plan in self._plans.values() if len(plan.shape) > 1]
        general = {
            "general.type": "model",
            "general.file_type": _FILE_TYPES[max(set(encodings), key=encodings.count)],
        }
        if set(encodings) & BLOCK_FORMATS.keys():
            general["general.quantization_version"] = _BLOCKS_VERSION
        plans = list(self._plans.values())
        elements = sum(plan.size for plan in plans)
        is_long = elements >= _ELEMENTS_WORTH_A_BAR
        with progress_bar("Writing weights", elements, worth_showing=is_long) as advance:

            def encoded() -> Iterator[np.ndarray]:
                for name, tensor in self._tensors():
                    yield self._encoded(name, tensor)
                    advance(self._plans[name].size)

            metadata = general | dict(layout.config) | keys
            write_gguf(path, layout.architecture, metadata, plans, encoded())

    def _tensors(self) -> Iterator[tuple[str, np.ndarray]]:
        yield from stored_tensors(self._layout.table, self._value)
        yield from self._layout.further.items()

    def _value(self, path: str) -> np.ndarray:
        """Return a variable as float32, or as the blocks that its tensor is made of."""
        if path not in self._matrices:
            return as_array(self._weights[path]).astype(np.float32)
        matrix = self._matrices[path]
        name = self._layout.table[path].name
        form = BLOCK_FORMATS.get(self._plans[name].encoding)
        if form is not None and self._is_held(name, form.mode):
            return matrix.merged_blocks()
        return matrix.dense()

    def _is_held(self, name: str, mode: str) -> bool:
        """Return whether all that a tensor is made of is held packed in a mode."""
        parts = [self._matrices.get(path) for path in self._paths.get(name, ())]
        return all(part is not None and part.form.mode == mode for part in parts)

    def _encoding_of(self, name: str, shape: tuple[int, ...]) -> str:
        is_matrix = len(shape) > 1 and name.endswith(".weight")
        if not is_matrix or name.endswith("_norm.weight") or any(part in name for part in _EXACT):
            return "F32"
        held = next(
            (mode for mode, form in BLOCK_FORMATS.items() if self._is_held(name, form.mode)), ""
        )
        encoding = self._encoding or held or self._held_floats
        fits = encoding not in BLOCK_FORMATS or BLOCK_FORMATS[encoding].fits((1, shape[-1]))
        return encoding if fits else _WITHOUT_BLOCKS

    def _encoded(self, name: str, tensor: np.ndarray) -> np.ndarray:
        encoding = self._plans[name].encoding
        if tensor.dtype == np.uint8:  # blocks that were kept as they are
            return tensor
        if encoding in BLOCK_FORMATS:
            rows = tensor.reshape(-1, tensor.shape[-1])
            check_finite(rows, f"The tensor {name!r}")
            return BLOCK_FORMATS[encoding].quantized_blocks(rows)
        with np.errstate(over="ignore"):  # what is too large is found below
            values = np.ascontiguousarray(tensor, dtype=_FLOATS[encoding])
        check_finite(values, f"In {encoding}, the tensor {name!r}")
        return values
