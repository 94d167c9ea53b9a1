"""A checkpoint is a stored model: its configuration and its tensors, whatever the file format."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from nextword.errors import PresetError
from nextword.presets.handles import show
from nextword.presets.json_files import read_json

if TYPE_CHECKING:
    import numpy as np

    from nextword.presets.sources import PresetSource

_CONFIG = "config.json"


class Checkpoint(Protocol):
    """A stored model, whatever its file format: its configuration and its tensors, read one by one.

    Opening a checkpoint reads configuration and headers; a tensor is read when it is asked for.

    Attributes:
        format: the file format, "transformers", "keras", "nextword" or "gguf".
        architecture: what the format calls the architecture: `model_type` of config.json,
            the backbone's class name in a preset of KerasHub or ours, and of GGUF
            `general.architecture`.
        name: what to call the checkpoint in messages.
        config: config.json (of KerasHub its "config"), or the keys and values of a GGUF file but
            for its tokenizer. Not checked: whoever reads a value decides what it may be.
    """

    format: str
    architecture: str
    name: str
    config: Mapping[str, Any]

    @property
    def dtype(self) -> str:
        """The name of the dtype in which `tensor` returns most elements of the matrices.

        One of "float32", "float16" and "bfloat16", or a mixed policy of Keras that the model was
        saved in. Quantised weights count as "float32".
        """
        ...

    def tensor_names(self) -> frozenset[str]:
        """Return the names of all tensors."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, outermost dimension first, without reading it.

        Raises:
            PresetError: there is no such tensor.
        """
        ...

    def tensor(self, name: str) -> "np.ndarray":
        """Return a tensor, in its stored dtype if that is a float, else dequantised to float32.

        Raises:
            PresetError: there is no such tensor, or it cannot be read.
        """
        ...

    def close(self) -> None:
        """Close what is open. Arrays that were read stay valid."""
        ...


def open_checkpoint(source: "PresetSource", *, weights: bool = True) -> Checkpoint:
    """Open the model that a preset holds, in whichever file format it is.

    Args:
        source: where the files of the preset are.
        weights: whether the tensors are wanted. Without them, files that hold nothing else are
            neither fetched nor opened, and the checkpoint may have no tensors.

    Returns:
        A `GGUFCheckpoint` where the preset is one GGUF file, else a `TransformersCheckpoint` or a
        `KerasCheckpoint`, as config.json tells.

    Raises:
        PresetError: the preset holds no model in a known format, or its files are damaged.

    Example:
        ```python
        checkpoint = open_checkpoint(nextword.presets.resolve_preset("smollm2_135m_instruct_en"))
        checkpoint.format, checkpoint.architecture      # ("gguf", "llama")
        ```
    """
    # Each format has a library of its own, which only those pay for who open such a file.
    gguf_file = source.gguf_path()
    if gguf_file is not None:
        from nextword.presets.gguf import GGUFCheckpoint

        return GGUFCheckpoint(gguf_file, source.name)
    path = source.find(_CONFIG)
    keys = set() if path is None else set(read_json(path))
    if "model_type" in keys:
        from nextword.presets.transformers import TransformersCheckpoint

        return TransformersCheckpoint(source, weights=weights)
    if "registered_name" in keys:
        from nextword.presets.keras import KerasCheckpoint

        return KerasCheckpoint(source, weights=weights)
    found = (
        f"it has no {_CONFIG}"
        if path is None
        else f"its {_CONFIG} has neither the 'model_type' of a transformers checkpoint nor the "
        "'registered_name' of a KerasHub preset"
    )
    raise PresetError(
        f"{show(source.name)} holds no model that nextword can read: it is not a GGUF file, and "
        f"{found}.{_gguf_hint(source)}"
    )


def _gguf_hint(source: "PresetSource") -> str:
    files = [name for name in source.filenames() or () if name.lower().endswith(".gguf")]
    return f" Name the GGUF file itself: it has {', '.join(map(show, files[:3]))}." if files else ""
