"""Checkpoints in GGUF, the format of llama.cpp: one file of metadata, tokenizer and tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nextword.errors import PresetError
from nextword.presets.gguf_reader import TensorExtent, read_header
from nextword.presets.handles import show
from nextword.presets.quantized_tensor import QUANTIZED, QuantizedTensor
from nextword.presets.stored_tensors import StoredTensor, StoredTensors

_FLOATS = frozenset({"F32", "F16", "BF16"})
_TOKENIZER = "tokenizer."
_NOT_IN_FILE = "GGUF."  # how the package's reader names the counts before the first key


class GGUFCheckpoint(StoredTensors):
    """A model in one GGUF file. Opening it reads the header only.

    Tensors keep the names and the layout that they have in the file; their shapes are in numpy's
    order, so that a linear kernel is `[out, in]`.

    Args:
        path: the file.
        name: what to call it in messages. Defaults to the path.

    Attributes:
        format: `"gguf"`.
        architecture: the value of `general.architecture`.
        config: every key of the file but those of the tokenizer, to its plain Python value.
        tokenizer_data: every key that begins with `tokenizer.`, to its plain Python value; tokens,
            their kinds, their scores and merges are lists.

    Raises:
        PresetError: the file cannot be read, is damaged, lies about what it holds, is one part of
            several, names no architecture, or has tensors of a type that is not supported.

    Example:
        ```python
        source = nextword.presets.resolve_preset("smollm2_135m_instruct_en")
        checkpoint = GGUFCheckpoint(source.gguf_path())
        checkpoint.config["llama.block_count"]                  # 30
        checkpoint.tensor("blk.0.attn_k.weight").shape          # (192, 576)
        checkpoint.tokenizer_data["tokenizer.ggml.tokens"][1]   # "<|im_start|>"
        ```
    """

    format = "gguf"

    def __init__(self, path: Path, name: str | None = None) -> None:
        self._path = path
        header = read_header(path)
        tensors = [self._stored(extent) for extent in header.extents]
        super().__init__(str(path) if name is None else name, tensors)
        self.config: Mapping[str, Any] = {
            key: header.value(key)
            for key in header.fields
            if not key.startswith((_TOKENIZER, _NOT_IN_FILE))
        }
        self.tokenizer_data: Mapping[str, Any] = {
            key: header.value(key) for key in header.fields if key.startswith(_TOKENIZER)
        }
        self.architecture = self._architecture()
        self._check_whole()

    def _stored(self, extent: TensorExtent) -> StoredTensor:
        encoding = extent.type.name
        if encoding not in _FLOATS | QUANTIZED:
            supported = ", ".join(sorted(_FLOATS | QUANTIZED))
            raise PresetError(
                f"The tensor {show(extent.name)} of {show(str(self._path))} must be of a type that "
                f"nextword reads, which are {supported}. Received: {encoding}."
            )
        kind = StoredTensor if encoding in _FLOATS else QuantizedTensor
        return kind(extent.name, self._path, extent.offset, extent.shape, encoding)

    def _architecture(self) -> str:
        architecture = self.config.get("general.architecture")
        if not isinstance(architecture, str) or not architecture:
            raise PresetError(
                f"{show(str(self._path))} must name its architecture in 'general.architecture'. "
                f"Received: {show(str(architecture))}."
            )
        return architecture

    def _check_whole(self) -> None:
        parts = self.config.get("split.count", 1)
        if parts not in (0, 1):
            raise PresetError(
                f"{show(str(self._path))} is one of {show(str(parts))[1:-1]} parts of a model: "
                "make one file of them with `llama-gguf-split --merge`."
            )
