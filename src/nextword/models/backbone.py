"""`Backbone`: the one decoder, or encoder, as a Keras model, from token ids to hidden states."""

import abc
import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import keras

from nextword.errors import did_you_mean
from nextword.layers import (
    DecoderConfig,
    LayerCache,
    Linear,
    PositionEmbedding,
    TokenEmbedding,
    TransformerLayer,
    apply_layers,
    held_as,
    norm_layer,
)
from nextword.models import lora, lora_files, quantizing
from nextword.models.backbone_docs import backbone_docstring
from nextword.models.matrices import modes, parameter_count
from nextword.presets.class_presets import ClassPresets
from nextword.quantization import FORMATS


def _argument(name: str) -> property:
    """Return the attribute that a constructor's argument can be read by."""
    return property(lambda backbone: backbone._arguments[name], doc=f"The argument `{name}`.")


class Backbone(keras.Model):
    """A model without its head: token ids and padding mask in, hidden states out.

    A backbone whose tokens have segments takes `segment_ids`, too. One with a pooler returns a dict
    of `sequence_output`, the hidden states, and `pooled_output`, one vector for each text.

    A family's subclass says in `describe` which arguments it takes and which `DecoderConfig` they
    stand for, and in its docstring what is special about them; see `backbone_docs` for the others.
    It has nothing else. Each argument is an attribute, too. As a functional Keras model a backbone
    has `summary()`, `get_layer()`, `count_params()` and the like.

    Args:
        *args: the family's own arguments, see its `describe`.
        dtype: name of a dtype or a Keras dtype policy; Keras' global policy by default.
        name: name of the model.
        trainable: whether training changes the weights.
        **kwargs: the family's own arguments.

    Attributes:
        config: the decoder's description.
        presets: the built-in presets that the class can load, by name.

    Raises:
        TypeError: an argument is missing or not known.
        ValueError: an argument is out of its range, or two contradict each other.
    """

    config: DecoderConfig
    presets = ClassPresets()

    @staticmethod
    @abc.abstractmethod
    def describe(*args: Any, **kwargs: Any) -> DecoderConfig:
        """Return the description of the decoder with a family's own arguments."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable(package="nextword")(cls)
        for name in inspect.signature(cls.describe).parameters:
            if not hasattr(cls, name):
                setattr(cls, name, _argument(name))
        # What `help()` and editors show, and what positional arguments are bound by.
        own = inspect.signature(cls.describe).parameters.values()
        common = inspect.signature(Backbone.__init__).parameters
        cls.__signature__ = inspect.Signature(
            [*own, *(common[name] for name in ("dtype", "name", "trainable"))]
        )
        if "__doc__" in vars(cls) and cls.__doc__:  # not under `python -OO`
            cls.__doc__ = backbone_docstring(
                cls.__name__, cls.__doc__, inspect.signature(cls.describe)
            )

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        model: Self = quantizing.without_wrapper(super().__new__(cls, *args, **kwargs))
        return model

    def __init__(
        self,
        *args: Any,
        dtype: Any = None,
        name: str | None = None,
        trainable: bool = True,
        **kwargs: Any,
    ) -> None:
        signature = inspect.signature(self.describe)
        for argument in kwargs.keys() - signature.parameters.keys():
            hint = did_you_mean(argument, type(self).__signature__.parameters)
            raise TypeError(f"{type(self).__name__} has no argument {argument!r}.{hint}")
        arguments = signature.bind(*args, **kwargs)
        arguments.apply_defaults()
        config = self.describe(**arguments.arguments)
        policy = keras.dtype_policies.get(dtype or keras.config.dtype_policy())
        if policy.quantization_mode is not None:
            raise ValueError(
                "`dtype` must be that of the floats; call `quantize` on the model that is made. "
                f"Received: dtype={policy.name!r}."
            )
        token_embedding = TokenEmbedding(
            config.vocabulary_size,
            config.hidden_dim,
            tie_weights=config.tie_word_embeddings,
            scale=config.embedding_scale,
            use_head_bias=config.head_bias,
            logit_scale=config.logit_scale,
            logit_soft_cap=config.logit_soft_cap,
            name="token_embedding",
            dtype=policy,
        )
        position_embedding = (
            PositionEmbedding(
                config.context_length,
                name="position_embedding",
                dtype=policy,
            )
            if config.position_embedding == "learned" and config.context_length
            else None
        )
        segment_embedding = (
            TokenEmbedding(
                config.num_segments,
                config.hidden_dim,
                tie_weights=True,
                name="segment_embedding",
                dtype=policy,
            )
            if config.num_segments
            else None
        )
        embedding_norm = (
            norm_layer(config, name="embedding_norm", dtype=policy)
            if config.embedding_norm
            else None
        )
        embedding_dropout = keras.layers.Dropout(
            config.dropout, name="embedding_dropout", dtype=policy
        )
        transformer_layers = [
            TransformerLayer(config, i, name=f"transformer_layer_{i}", dtype=policy)
            for i in range(config.num_layers)
        ]
        output_norm = (
            norm_layer(config, name="output_norm", dtype=policy)
            if config.norm_placement != "post"
            else None
        )

        token_ids = keras.Input((None,), dtype="int32", name="token_ids")
        padding_mask = keras.Input((None,), dtype="int32", name="padding_mask")
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        hidden_states = token_embedding(token_ids)
        if position_embedding is not None:
            hidden_states = position_embedding(hidden_states)
        if segment_embedding is not None:
            inputs["segment_ids"] = keras.Input((None,), dtype="int32", name="segment_ids")
            hidden_states = hidden_states + segment_embedding(inputs["segment_ids"])
        if embedding_norm is not None:
            hidden_states = embedding_norm(hidden_states)
        hidden_states = embedding_dropout(hidden_states)
        for layer in transformer_layers:
            hidden_states = layer(hidden_states, padding_mask=padding_mask)
        if output_norm is not None:
            hidden_states = output_norm(hidden_states)
        outputs = hidden_states
        if config.pooler:
            pooled_dense = Linear(
                config.hidden_dim, use_bias=True, name="pooled_dense", dtype=policy
            )
            pooled_output = keras.ops.tanh(pooled_dense(hidden_states[:, 0]))
            outputs = {"sequence_output": hidden_states, "pooled_output": pooled_output}
        super().__init__(inputs=inputs, outputs=outputs, name=name, trainable=trainable)
        self.dtype_policy = policy
        self.config = config
        self._arguments = {
            argument: list(value) if isinstance(value, tuple) else value  # as JSON has it
            for argument, value in arguments.arguments.items()
        }
        self.token_embedding = token_embedding
        self.position_embedding = position_embedding
        self.embedding_norm = embedding_norm
        self.transformer_layers = transformer_layers
        self.output_norm = output_norm

    def hidden_states(self, token_ids: Any, positions: Any, caches: Sequence[LayerCache]) -> Any:
        """Return the final hidden states of new tokens whose predecessors are cached.

        Args:
            token_ids: int32 tensor of shape `[batch, length]`.
            positions: int32 tensor of shape `[batch or 1, length]`.
            caches: one per layer.

        Returns:
            Float tensor of shape `[batch, length, hidden_dim]`.
        """
        hidden_states = self.embeddings(token_ids, positions)
        hidden_states = apply_layers(self.transformer_layers, hidden_states, positions, caches)
        return self.normalized(hidden_states)

    def embeddings(self, token_ids: Any, positions: Any) -> Any:
        """Return what the first layer takes of tokens.

        Args:
            token_ids: int32 tensor of shape `[batch, length]`.
            positions: int32 tensor of shape `[batch or 1, length]`.

        Returns:
            Float tensor of shape `[batch, length, hidden_dim]`.
        """
        hidden_states = self.token_embedding(token_ids)
        if self.position_embedding is not None:
            hidden_states = self.position_embedding(hidden_states, positions=positions)
        return hidden_states if self.embedding_norm is None else self.embedding_norm(hidden_states)

    def normalized(self, hidden_states: Any) -> Any:
        """Return the final hidden states.

        Args:
            hidden_states: what the last layer has returned, `[batch, length, hidden_dim]`.

        Returns:
            Float tensor of the same shape.
        """
        return hidden_states if self.output_norm is None else self.output_norm(hidden_states)

    def logits(self, hidden_states: Any) -> Any:
        """Return the logits of final hidden states.

        Args:
            hidden_states: float tensor of shape `[..., hidden_dim]`.

        Returns:
            Float tensor of shape `[..., vocabulary_size]`.
        """
        return self.token_embedding(hidden_states, reverse=True)

    @classmethod
    def from_preset(cls, preset: Any, load_weights: bool = True, **kwargs: Any) -> Self:
        """Load a backbone from a preset.

        Args:
            preset: see `Task.from_preset`.
            load_weights: whether to load the stored weights, or start from random ones.
            **kwargs: `dtype` (the stored one by default), `quantization`, `name`, `trainable`, and
                on a family's own class arguments to use instead of the stored ones.
                `quantization` rounds the weights that `quantize` would while they are read, so
                that no more than one matrix is there in floats: "int8" to 8 bits with a scale for
                each output, "int4" as "q4_1", and "q8_0", "q4_1" and "q4_0" as `quantize`. What is
                stored so is kept bit for bit.

        Raises:
            PresetError: the preset cannot be found, or is not what it should be.
            TypeError: an argument is not known, or has the wrong type.
        """
        # Needs the families, and they this.
        from nextword.models.opened_preset import backbone_arguments, check_arguments, opened_preset

        check_arguments(kwargs, backbone_arguments(cls), load_weights=load_weights)
        with opened_preset(preset, cls, "backbone_cls", weights=load_weights) as opened:
            backbone: Any = opened.backbone(load_weights=load_weights, **kwargs)
        return backbone

    def save_to_preset(
        self,
        preset_dir: str | os.PathLike[str],
        max_shard_size: float | None = 10,
        *,
        overwrite: bool = False,
        dequantize: bool = False,
    ) -> None:
        """Save the backbone as a preset; see `Task.save_to_preset`."""
        from nextword.models.saving import PresetWriter  # which needs the families, and they this

        writer = PresetWriter(backbone=self, dequantize=dequantize)
        writer.write(preset_dir, max_shard_size=max_shard_size, overwrite=overwrite)

    def export_to_transformers(
        self,
        path: str | os.PathLike[str],
        *,
        max_shard_size: float | None = 10,
        overwrite: bool = False,
    ) -> None:
        """Write a checkpoint of transformers; see `Task.export_to_transformers`."""
        # Needs the families, and they this.
        from nextword.models.transformers_export import export_to_transformers

        export_to_transformers(
            path, backbone=self, max_shard_size=max_shard_size, overwrite=overwrite
        )

    def default_lora_layer_names(self) -> list[str]:
        """Return the names of the layers that `enable_lora` adapts by default."""
        return lora.default_targets(self)

    def enable_lora(
        self,
        rank: int,
        target_layer_names: Sequence[str] | None = None,
        *,
        alpha: float | None = None,
    ) -> None:
        """Freeze the backbone, and train a low-rank update of some of its matrices instead.

        The update of a matrix `[out, in]` is `alpha / rank` times the product of
        `lora_kernel_b [out, rank]`, which is zero at first, and `lora_kernel_a [rank, in]`
        (https://arxiv.org/abs/2106.09685). It is kept in float32, whatever the dtype of the matrix.
        What else the adapted layers have trains in full, as in KerasHub: biases, and with the token
        embedding a head of its own. A model that has been trained before must be compiled anew.

        Args:
            rank: rank of the updates.
            target_layer_names: names of the layers to adapt, as they are here or in KerasHub; by
                default those of `default_lora_layer_names`.
            alpha: strength of the updates, the rank by default.

        Raises:
            TypeError: an argument has the wrong type.
            ValueError: there is no layer of a name, an argument is out of its range, or the
                backbone has been adapted before.

        Example:
        ```python
        backbone = nextword.models.GPT2Backbone(
            vocabulary_size=100, num_layers=2, num_heads=4, hidden_dim=32, intermediate_dim=128
        )
        backbone.enable_lora(rank=4)
        ```
        """
        lora.enable_lora(self, rank, target_layer_names, alpha)

    def save_lora_weights(
        self, filepath: str | os.PathLike[str], *, for_keras_hub: bool = True
    ) -> None:
        """Save every variable that `enable_lora` lets train, and nothing else.

        Args:
            filepath: a path that ends in ".lora.h5".
            for_keras_hub: whether KerasHub is to be able to load the file, too. It takes the
                updates of matrices alone, and in a form that is larger, often by the number of
                heads.

        Raises:
            ValueError: the path ends otherwise, or `enable_lora` has not been called.

        Example:
        ```python
        backbone = nextword.models.Backbone.from_preset(directory)
        backbone.enable_lora(rank=4)
        backbone.save_lora_weights("my-task.lora.h5")
        ```
        """
        lora_files.save_lora_weights(self, Path(filepath), for_keras_hub=for_keras_hub)

    def load_lora_weights(self, filepath: str | os.PathLike[str]) -> None:
        """Load what `save_lora_weights` saved, here or in KerasHub.

        Where `enable_lora` has not been called, the layers of the file are adapted as they were. An
        update from KerasHub has a larger rank here, often by the number of heads.

        Args:
            filepath: the file.

        Raises:
            PresetError: the file cannot be read, or is of another model or of other updates than
                this backbone has; then nothing is loaded.

        Example:
        ```python
        backbone = nextword.models.Backbone.from_preset(directory)
        backbone.enable_lora(rank=4)
        backbone.save_lora_weights("my-task.lora.h5")

        backbone = nextword.models.Backbone.from_preset(directory)
        backbone.load_lora_weights("my-task.lora.h5")
        ```
        """
        lora_files.load_lora_weights(self, Path(filepath))

    def quantize(self, mode: str | None = None, config: Any = None, filters: Any = None) -> None:
        """Round the weights of all linear layers and of the token embedding to fewer bits.

        With "int8" each row of a matrix becomes integers of 8 bits and a float32 scale, and inputs
        are rounded to 8 bits, too, token by token: what Keras and KerasHub compute, on a float32
        model number by number. "int8_weight_only" leaves the inputs as they are. With "q8_0",
        "q4_1" and "q4_0" it is weights alone, too, that are rounded, to 8 or 4 bits in groups of 32
        inputs that share a scale, as in GGUF. The native kernels, where they are built, compute
        with all but "int8". Experts are rounded in the modes of GGUF alone, and what routes tokens
        to them in the others alone, as KerasHub and llama.cpp have it. Matrices that are quantized
        in another mode are converted.

        The rounded weights do not train; LoRA on top of them does. Without it, `fit` of a model
        turns them into floats again, with a warning, but for those in "int8", as in Keras.

        Args:
            mode: "int8", "int8_weight_only", "q8_0", "q4_1" (with a minimum for each group, more
                exact), "int4" (the same) or "q4_0".
            config: None, or a `keras.quantizers.Int8QuantizationConfig` with its defaults for
                "int8", or with `activation_quantizer=None` for "int8_weight_only".
            filters: which layers to quantize: a regular expression that is looked for in their
                names, here or in KerasHub, a list of such, or a function of a layer; all by
                default.

        Raises:
            TypeError: `filters` has the wrong type.
            ValueError: there is no such mode or layer, the mode cannot hold a matrix, or all
                matrices are held in it already.

        Example:
        ```python
        backbone = nextword.models.Backbone.from_preset(directory)
        backbone.quantize("int8")
        ```
        """
        quantizing.quantize(self, mode, config, filters)
        self._post_quantize(mode)

    def count_params(self) -> int:
        """Return the number of weights, whatever they are held in."""
        return parameter_count(self)

    def get_config(self) -> dict[str, Any]:
        packed = modes(self)
        ranks = {path: [u.rank, u.alpha] for path, u in lora.adapters(self).items()}
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
            **self._arguments,
            **({"quantization": packed} if packed else {}),
            **({"lora": ranks} if ranks else {}),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        config = dict(config)
        packed, ranks = config.pop("quantization", {}), config.pop("lora", {})
        if isinstance(config.get("dtype"), dict):
            config["dtype"] = keras.dtype_policies.deserialize(config["dtype"])
        with held_as({path: FORMATS[mode] for path, mode in packed.items()}):
            backbone = cls(**config)
        if ranks:
            lora.adapt(backbone, ranks)
        return backbone
