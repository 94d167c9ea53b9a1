"""How a family is stored in presets of KerasHub: what a family declares, and what follows from it.

A family gives the paths of its layers in KerasHub's weight file. Which variables a layer has, how
they are laid out, and what the constructor's arguments may be, follows from the decoder.
"""

import abc
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.family import Family, StoredFormat, all_families
from nextword.models.formats.decoder_tables import LayerNames, decoder_table
from nextword.models.formats.keras_arguments import keras_arguments
from nextword.models.formats.keras_head import NO_WEIGHTS, head_table, stored_head
from nextword.models.formats.keras_layers import LAYER_PATHS
from nextword.models.formats.keras_quantization import (
    int8_matrices,
    quantized_table,
    serialized_backbone_dtype,
    stored_modes,
)
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader, keras_settings
from nextword.presets.keras_config import KERAS_HUB, NEXTWORD, SerializedObject
from nextword.presets.weight_layouts import JoinedHeads, Layout, SplitHeads, Transposed
from nextword.presets.weight_table import Stored, WeightTable
from nextword.tokenizers import Tokenizer

_HEAD = "token_embedding/reverse_embeddings"
# Arguments that KerasHub does not have and that change nothing it computes.
_HARMLESS = ("context_length",)
# Keras numbers the layers of one class from their second: dense, dense_1, dense_2.
_FIRST_LAYER = re.compile(r"(layers/\w+)_0/")
_VARIABLES = {"weight": "vars/0", "bias": "vars/1"}
_WORD_BEGINS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclasses.dataclass(frozen=True, kw_only=True)
class KerasClasses:
    """What KerasHub calls the classes of a model.

    Attributes:
        prefix: what their names begin with: "GPT2" of `GPT2Backbone`, `GPT2CausalLM`,
            `GPT2CausalLMPreprocessor` and `GPT2Tokenizer`.
        module: the name of their modules: "gpt2" of `keras_hub.src.models.gpt2.gpt2_backbone`.
        tokenizer_cls: what their tokenizer is here; None where it is of no known kind.
        tokenizer_name: the name of their tokenizer where it is not `<prefix>Tokenizer`.
        tokenizer_roles: arguments of their tokenizer that name its tokens with a role.
        package: whose classes they are, see `SerializedObject`.
    """

    prefix: str
    module: str
    tokenizer_cls: type[Tokenizer] | None = None
    tokenizer_name: str | None = None
    tokenizer_roles: tuple[str, ...] = ()
    package: str = KERAS_HUB

    def name_of(self, kind: str) -> str:
        """Return the name of a class, such as that of the kind "CausalLM"."""
        if kind == "Tokenizer" and self.tokenizer_name is not None:
            return self.tokenizer_name
        return f"{self.prefix}{kind}"

    def kind_of(self, serialized: SerializedObject, task: type[Any]) -> str | None:
        """Return the kind of an object, in the words of today; None where it is another model's.

        Args:
            serialized: the object, perhaps from an old preset.
            task: the family's task class, which knows what its kind was called.
        """
        if serialized.package != self.package:
            return None
        if serialized.class_name == self.name_of("Tokenizer"):
            return "Tokenizer"
        if not serialized.class_name.startswith(self.prefix):
            return None
        kind = serialized.class_name.removeprefix(self.prefix)
        return task.former_kinds.get(kind, kind)

    def module_of(self, kind: str) -> str:
        """Return the module of a class, such as that of the kind "CausalLM"."""
        if self.package == NEXTWORD:
            is_tokenizer = kind == "Tokenizer"
            return f"nextword.{'tokenizers' if is_tokenizer else 'models'}"
        return f"keras_hub.src.models.{self.module}.{self.module}_{snake_case(kind)}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PresetFormat(StoredFormat):
    """How a family is stored in presets, which are written, too.

    Attributes:
        classes: the classes that the files name. Those that differ in the kind of tokenizer only
            are one family here.
        backbone_cls: the family's backbone.
        head_table: where each variable of a model beside its backbone's is stored, in a file of
            their own.
        constants: values that are stored as if they were weights, by their paths in `table_of`.
    """

    classes: tuple[KerasClasses, ...]
    backbone_cls: type[Backbone]
    head_table: WeightTable = dataclasses.field(default_factory=dict)
    constants: Callable[[DecoderConfig], Mapping[str, np.ndarray]] = lambda _: {}

    @abc.abstractmethod
    def classes_for(self, tokenizer: Tokenizer | None) -> KerasClasses:
        """Return the classes whose tokenizer is of the given one's kind."""

    @abc.abstractmethod
    def table_of(
        self, config: DecoderConfig, paths: Iterable[str], modes: Mapping[str, str]
    ) -> WeightTable:
        """Return where each value of a backbone is stored.

        Args:
            config: the decoder.
            paths: the values, see `WeightsToSave`.
            modes: path of each matrix that is stored quantized to its mode.
        """

    @abc.abstractmethod
    def dtype_of(self, policy: str, modes: Mapping[str, str]) -> dict[str, Any]:
        """Return the dtype of a backbone as it is serialized.

        Args:
            policy: the name of its policy.
            modes: see `table_of`.
        """

    def arguments_to_save(self, backbone: Backbone) -> tuple[dict[str, Any], list[str]]:
        """Return a backbone's arguments as they are stored.

        Returns:
            The arguments, and the names of those among them by which KerasHub would go wrong.
        """
        arguments = backbone.get_config()
        # What LoRA has trained is merged into the weights, and these tell that they are int8.
        arguments.pop("lora", None)
        arguments.pop("quantization", None)
        return arguments, []

    def defaults(self) -> dict[str, Any]:
        """Return the default of each of the backbone's arguments; `inspect.Parameter.empty` too."""
        parameters = inspect.signature(self.backbone_cls.describe).parameters
        return {name: parameter.default for name, parameter in parameters.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class KerasFormat(PresetFormat):
    """How a family is stored in presets of KerasHub.

    Attributes:
        table: where each variable of a decoder is stored.
        paths: what KerasHub calls the layers, see `LAYER_PATHS`.
        einsum: see `with_scales`.
        unheeded: arguments that KerasHub has and does not heed, and what it computes with where
            they are not None.
    """

    table: Callable[[DecoderConfig], WeightTable]
    paths: Mapping[str, str]
    einsum: tuple[str, ...] = ()
    unheeded: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def names(self, task: type[Any]) -> dict[str, type]:
        """Return KerasHub's class names, and the classes here that stand for them.

        Args:
            task: the family's task class.
        """
        own = {
            "Backbone": self.backbone_cls,
            task.kind: task,
            f"{task.kind}Preprocessor": task.preprocessor_cls,
        }
        own |= {former: own[kind] for former, kind in task.former_kinds.items()}
        names: dict[str, type] = {}
        for classes in self.classes:
            names |= {classes.name_of(kind): cls for kind, cls in own.items()}
            if classes.tokenizer_cls is not None:
                names[classes.name_of("Tokenizer")] = classes.tokenizer_cls
        return names

    def classes_for(self, tokenizer: Tokenizer | None) -> KerasClasses:
        """Return the classes whose tokenizer is of the given one's kind, else the most usual."""
        for classes in self.classes:
            tokenizer_cls = classes.tokenizer_cls
            if tokenizer and tokenizer_cls and tokenizer_cls.asset_files == tokenizer.asset_files:
                return classes
        return self.classes[0]

    def table_of(
        self, config: DecoderConfig, paths: Iterable[str], modes: Mapping[str, str]
    ) -> WeightTable:
        return quantized_table(self.table(config), modes, self.einsum)

    def dtype_of(self, policy: str, modes: Mapping[str, str]) -> dict[str, Any]:
        return serialized_backbone_dtype(policy, modes, self.paths)

    def arguments_to_save(self, backbone: Backbone) -> tuple[dict[str, Any], list[str]]:
        """Return a backbone's arguments as KerasHub stores them.

        Returns:
            The arguments, without those that only nextword has where they change nothing; and the
            names of those among them by which KerasHub would go wrong.
        """
        arguments, wrong = super().arguments_to_save(backbone)
        parameters = inspect.signature(self.backbone_cls.describe).parameters
        described = {name: arguments[name] for name in parameters}
        for name, parameter in parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                without = {key: value for key, value in described.items() if key != name}
                if self._describes(without, backbone.config):
                    del arguments[name], described[name]
        ours = {n for n, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
        wrong += [name for name in described if name in ours and name not in _HARMLESS]
        wrong += [
            name for name, used in self.unheeded.items() if described[name] not in (None, used)
        ]
        return arguments, wrong

    def _describes(self, arguments: Mapping[str, Any], config: DecoderConfig) -> bool:
        try:
            return self.backbone_cls.describe(**arguments) == config
        except ValueError:  # what was left out, others need
            return False


def families_of(cls: type) -> set[str]:
    """Return what KerasHub calls the families that have a class, or a subclass of it."""
    names: set[str] = set()
    for family in all_families().values():
        stored = keras_hub_format(family)
        for classes in stored.classes if stored else ():
            own = (family.task, family.task.backbone_cls, family.task.preprocessor_cls)
            if any(issubclass(each, cls) for each in (*own, classes.tokenizer_cls) if each):
                names.add(classes.module)
    return names


def keras_format(
    backbone_cls: type[Backbone],
    names: LayerNames,
    *classes: KerasClasses,
    laid_out: Callable[[DecoderConfig], LayerNames] = lambda _: {},
    paths: Mapping[str, str] = LAYER_PATHS,
    head: Mapping[str, str] | None = None,
    einsum: Iterable[str] = (),
    unheeded: Iterable[str] | Mapping[str, Any] = (),
    constants: Callable[[DecoderConfig], Mapping[str, np.ndarray]] = lambda _: {},
    ignored: Iterable[str] = (),
) -> KerasFormat:
    """Return how a family is stored in presets of KerasHub.

    Args:
        backbone_cls: the family's backbone. Arguments that KerasHub's backbone has must have the
            same names here, and those it does not have must be keyword-only.
        names: paths of the layers in the weight file, without `vars/0` and the like unless one
            layer there is several here; `_{i}` stands for the number of a layer. The head, if it
            is not tied, goes with "token_embedding". Layers of the stack come in the order in
            which KerasHub makes them.
        *classes: KerasHub's classes, the most usual first.
        laid_out: given the decoder, the names of those layers again that are laid out otherwise
            than layers of Keras are, with their layouts.
        paths: see `KerasFormat`.
        head: paths of the linear layers of a model beside its backbone's, in their own file.
        einsum: see `KerasFormat`.
        unheeded: see `KerasFormat`; names alone where KerasHub computes with their defaults.
        constants: see `KerasFormat`.
        ignored: regular expressions of stored tensors that are no weights.
    """

    def arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
        found = keras_arguments(config, backbone_cls)
        stored = checkpoint.tensor_names()
        known = inspect.signature(backbone_cls.describe).parameters
        # KerasHub itself forgets to save this one.
        if stored and "tie_word_embeddings" in known.keys() - checkpoint.config.keys():
            prefix = f"{names['token_embedding']}/vars/"
            own = [name for name in stored if name.startswith(prefix)]
            # The scales of int8 matrices have one axis.
            matrices = [name for name in own if len(checkpoint.shape(name)) == 2]
            found["tie_word_embeddings"] = len(matrices) == 1
        return found

    def table(config: DecoderConfig) -> WeightTable:
        return keras_table(config, {**names, **laid_out(config)})

    def weights(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
        in_floats = table(config)
        return quantized_table(in_floats, stored_modes(checkpoint, in_floats), tuple(einsum))

    if not isinstance(unheeded, Mapping):
        parameters = inspect.signature(backbone_cls.describe).parameters
        defaults = {name: parameters[name].default for name in unheeded}
        unheeded = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}
    stored = head_table(head or {})
    return KerasFormat(
        architectures=tuple(dict.fromkeys(each.name_of("Backbone") for each in classes)),
        settings=keras_settings,
        reader=arguments,
        weights=weights,
        packed=int8_matrices,
        ignored=(*NO_WEIGHTS, *ignored),
        head=lambda checkpoint, task: stored_head(checkpoint, task, classes, stored),
        classes=classes,
        table=table,
        head_table=stored,
        backbone_cls=backbone_cls,
        paths=paths,
        einsum=tuple(einsum),
        unheeded=dict(unheeded),
        constants=constants,
    )


def snake_case(name: str) -> str:
    """Return a class's name as KerasHub spells it in modules and layers.

    Example:
    >>> snake_case("CausalLMPreprocessor")
    'causal_lm_preprocessor'
    """
    return _WORD_BEGINS.sub("_", name).lower()


def keras_hub_format(family: Family) -> KerasFormat | None:
    """Return how KerasHub stores a family, or None where it does not have it."""
    stored = family.formats.get("keras")
    return stored if isinstance(stored, KerasFormat) else None


def preset_format(family: Family) -> PresetFormat:
    """Return how a family is stored in presets: as KerasHub does, if it has it."""
    stored = family.formats.get("keras") or family.formats["nextword"]
    assert isinstance(stored, PresetFormat)  # noqa: S101  # as both formats are
    return stored


def keras_table(config: DecoderConfig, names: LayerNames) -> WeightTable:
    """Return the table of where KerasHub stores each variable of a decoder.

    Args:
        config: the decoder's description.
        names: see `keras_format`.

    Example:
    >>> from nextword.layers import RotaryConfig
    >>> config = DecoderConfig(
    ...     vocabulary_size=8, num_layers=2, hidden_dim=8, intermediate_dim=8, num_query_heads=1,
    ...     num_key_value_heads=1, head_dim=8, rotary=RotaryConfig(), query_key_value_bias=True,
    ... )
    >>> table = keras_table(config, {"self_attention/query": "layers/decoder_{i}/query_dense"})
    >>> [stored.name for stored in table.values()]  # doctest: +NORMALIZE_WHITESPACE
    ['layers/decoder/query_dense/vars/0', 'layers/decoder/query_dense/vars/1',
     'layers/decoder_1/query_dense/vars/0', 'layers/decoder_1/query_dense/vars/1']
    """
    laid_out = {
        path: (name, *_layouts(config, path)) if isinstance(name, str) else name
        for path, name in names.items()
    }
    table = {
        path: stored.renamed(_variable(stored.name, path))
        for path, stored in decoder_table(config, laid_out).items()
    }
    if not config.tie_word_embeddings and "token_embedding" in names:
        table[_HEAD] = Stored(f"{names['token_embedding']}/vars/1", Transposed())
    return table


def _layouts(config: DecoderConfig, path: str) -> tuple[Layout, ...]:
    if path == "self_attention/query":
        return (SplitHeads(config.num_query_heads),)
    if path in ("self_attention/key", "self_attention/value"):
        return (SplitHeads(config.num_key_value_heads),)
    if path == "self_attention/attention_output":
        return (JoinedHeads(config.num_query_heads),)
    return (Transposed(),) if path.startswith(("feed_forward/", "pooled_dense")) else ()


def _variable(name: str, path: str) -> str:
    layer, _, kind = name.rpartition(".") if "." in name else (name, "", "")
    if path.startswith("transformer_layer_0/"):
        layer = _FIRST_LAYER.sub(r"\1/", layer, count=1)
    return layer if "/vars/" in layer else f"{layer}/{_VARIABLES[kind]}"
