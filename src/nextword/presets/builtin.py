"""The presets that have a name of their own, held as data in `builtin.json`.

They are nextword's default and the text models of KerasHub, under KerasHub's names.
"""

import functools
import json
from dataclasses import dataclass
from importlib import resources

DEFAULT_PRESET = "smollm2_135m_instruct_en"


@dataclass(frozen=True)
class BuiltinPreset:
    """One entry of `builtin.json`.

    Attributes:
        handle: where the files are, as `resolve_preset` reads it.
        description: one sentence for people.
        params: the number of the model's parameters.
        family: what KerasHub calls its family, which is the folder of its classes there.
        sha256: the hash of the file that a `pypi://` handle names, in hexadecimal.
    """

    handle: str
    description: str
    params: int
    family: str
    sha256: str | None = None

    @property
    def is_on_kaggle(self) -> bool:
        """Whether the files are on Kaggle."""
        return self.handle.startswith("kaggle://")


def builtin_presets() -> dict[str, BuiltinPreset]:
    """Return the built-in presets by name, in the order they are listed to users.

    >>> builtin_presets()["gpt2_base_en"].handle
    'kaggle://keras/gpt2/keras/gpt2_base_en/3'
    """
    return dict(_load())


@functools.cache
def _load() -> dict[str, BuiltinPreset]:
    text = (resources.files(__package__) / "builtin.json").read_text(encoding="utf-8")
    return {name: BuiltinPreset(**fields) for name, fields in json.loads(text).items()}
