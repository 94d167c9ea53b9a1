"""`presets` of the classes that have a `from_preset`: the built-in presets that each can load."""

import importlib
from typing import Any

from nextword.presets.builtin import builtin_presets


class ClassPresets:
    """A class property: the built-in presets that a class can load, by name.

    A base class has those of all its subclasses, the class of a family its own. Presets of families
    that nextword does not compute yet are in none of them, but in `builtin_presets()`.
    """

    def __get__(self, instance: Any, owner: type) -> dict[str, dict[str, Any]]:
        """Return the presets in the form that KerasHub has, with "handle" besides.

        "kaggle_handle" is there for those that are on Kaggle.
        """
        # Which families a class belongs to, they know. They are in a room above, so they are asked
        # at run time, which the rest of this room does without.
        above = importlib.import_module("nextword.models.formats.keras")
        families = above.families_of(owner)
        return {
            name: {
                "metadata": {
                    "description": preset.description,
                    "params": preset.params,
                    "path": preset.family,
                },
                "handle": preset.handle,
                **({"kaggle_handle": preset.handle} if preset.is_on_kaggle else {}),
            }
            for name, preset in builtin_presets().items()
            if preset.family in families
        }
