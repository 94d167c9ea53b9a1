"""The models that users name: tasks, backbones and preprocessors, of every family."""

import functools
from typing import Any

from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import all_families
from nextword.models.formats.keras import keras_hub_format
from nextword.models.preprocessor import Preprocessor
from nextword.models.task import Task
from nextword.models.text_classifier import TextClassifier
from nextword.models.text_classifier_preprocessor import TextClassifierPreprocessor
from nextword.models.text_stream import TextStream

Classifier = TextClassifier  # as KerasHub called it before

__all__ = [
    "Backbone",
    "CausalLM",
    "CausalLMPreprocessor",
    "Classifier",
    "Preprocessor",
    "Task",
    "TextClassifier",
    "TextClassifierPreprocessor",
    "TextStream",
]


@functools.cache
def _family_classes() -> dict[str, type]:
    classes: dict[str, type] = {}
    for family in all_families().values():
        task = family.task
        own = (task, task.backbone_cls, task.preprocessor_cls)
        classes |= {cls.__name__: cls for cls in own}
        if stored := keras_hub_format(family):  # KerasHub has several names for some of them
            classes |= stored.names(task)
    return classes


def __getattr__(name: str) -> Any:
    # Families are looked up, not listed here: a new one is a new file and nothing else.
    if not name.startswith("_") and name in _family_classes():
        return _family_classes()[name]
    raise AttributeError(f"module 'nextword.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_family_classes()])
