"""SmolLM3 (https://huggingface.co/blog/smollm3)."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from nextword.layers import DecoderConfig, rotary_config
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import LayerNames
from nextword.models.formats.gguf import gguf_format, gguf_rotary_arguments, interleaved_names
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.transformers import rotary_decoder_arguments, transformers_format
from nextword.models.shared_arguments import all_but_last, check_fixed, decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.weight_layouts import Transposed
from nextword.presets.weight_table import Stored
from nextword.tokenizers import BytePairTokenizer

_KINDS = ("full_attention", "sliding_attention")


class SmolLM3Backbone(Backbone):
    """The SmolLM3 decoder: like Llama's, but every fourth layer rotates nothing.

    Args:
        attention_dropout: must be 0; see `dropout`.
        rope_layer_enabled_list: for each layer whether it rotates queries and keys.
        layer_types: for each layer "full_attention" or "sliding_attention".
        mlp_bias: whether the feed-forward's projections have biases.
        max_position_embeddings: the most positions the model was made for.
        rope_theta: base of the rotary wavelengths.

    Example:
    ```python
    backbone = SmolLM3Backbone(
        vocabulary_size=100, hidden_dim=32, intermediate_dim=64, num_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attention_bias=False, attention_dropout=0.0,
        rope_layer_enabled_list=[True, False], layer_types=["full_attention"] * 2, mlp_bias=False,
        layer_norm_epsilon=1e-6, max_position_embeddings=128, rope_theta=1e4,
        partial_rotary_factor=1.0,
    )
    token_ids = np.array([[1, 2, 3]])
    hidden_states = backbone({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    ```
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        hidden_dim: int,
        intermediate_dim: int,
        num_layers: int,
        num_attention_heads: int,
        num_key_value_heads: int,
        attention_bias: bool,
        attention_dropout: float,
        rope_layer_enabled_list: Sequence[bool],
        layer_types: Sequence[str],
        mlp_bias: bool,
        layer_norm_epsilon: float,
        max_position_embeddings: int,
        rope_theta: float,
        partial_rotary_factor: float,
        *,
        sliding_window: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
        tie_word_embeddings: bool = True,
        dropout: float = 0.0,
        head_dim: int | None = None,
    ) -> DecoderConfig:
        check_fixed(0, "`dropout` is the rate of the branches", attention_dropout=attention_dropout)
        if unknown := set(layer_types) - set(_KINDS):
            raise ValueError(
                f"`layer_types` must hold 'full_attention' and 'sliding_attention'. Received: "
                f"{sorted(unknown)}."
            )
        return DecoderConfig(
            **decoder_fields(locals()),
            rotary=rotary_config(rope_theta, rope_scaling, fraction=partial_rotary_factor),
            rotary_layers=tuple(map(bool, rope_layer_enabled_list)),
            sliding_layers=tuple(kind == "sliding_attention" for kind in layer_types),
            feed_forward_bias=mlp_bias,
        )


class SmolLM3Tokenizer(BytePairTokenizer):
    """SmolLM3's byte-level byte-pair encoding; see `BytePairTokenizer`."""

    default_split = "llama-bpe"
    role_tokens: ClassVar[Mapping[str, str]] = {"eos_token": "<|end_of_text|>"}


class SmolLM3CausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `SmolLM3CausalLM`; see `CausalLMPreprocessor`."""


class SmolLM3CausalLM(CausalLM):
    """A SmolLM3 model that generates text; see `CausalLM`."""

    backbone_cls = SmolLM3Backbone
    preprocessor_cls = SmolLM3CausalLMPreprocessor


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = rotary_decoder_arguments(
        config, context_length=32768, tie_word_embeddings=True, theta=2e6, fraction=1.0
    )
    arguments["attention_bias"] = config.boolean("attention_bias", False)
    arguments["mlp_bias"] = config.boolean("mlp_bias", False)
    arguments |= _layers(config, arguments["num_layers"])
    config.skip("pretraining_tp", "max_window_layers")  # of no effect on the result
    return _renamed(arguments)


def _renamed(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments by the names that this family has for them."""
    return arguments | {
        "num_attention_heads": arguments.pop("num_query_heads"),
        "max_position_embeddings": arguments.pop("context_length"),
        "rope_theta": arguments.pop("rope_max_wavelength"),
        "attention_dropout": 0.0,
    }


def _layers(config: ConfigReader, num_layers: int) -> dict[str, Any]:
    """Read which layers rotate, and which have a sliding window: by default those that do not."""
    interval = config.integer("no_rope_layer_interval", 4)
    default = list(map(int, all_but_last(num_layers, interval)))
    rotates = config.choices("no_rope_layers", [0, 1], num_layers, default)
    is_windowed = config.boolean("use_sliding_window", False)
    window = config.integer("sliding_window", None)
    default_kinds = [_KINDS[is_windowed and window is not None and not r] for r in rotates]
    kinds = config.choices("layer_types", _KINDS, num_layers, default_kinds)
    return {
        "rope_layer_enabled_list": list(map(bool, rotates)),
        "layer_types": kinds,
        "sliding_window": config.integer("sliding_window") if _KINDS[1] in kinds else None,
    }


def _projections(layer: str) -> dict[str, str]:
    """Return what KerasHub calls the projections of a layer, in files and in its paths."""
    return {
        "self_attention/query": f"{layer}/self_attn/q_proj",
        "self_attention/key": f"{layer}/self_attn/k_proj",
        "self_attention/value": f"{layer}/self_attn/v_proj",
        "self_attention/attention_output": f"{layer}/self_attn/o_proj",
        "feed_forward/gate": f"{layer}/mlp/gate_proj",
        "feed_forward/intermediate": f"{layer}/mlp/up_proj",
        "feed_forward/feed_forward_output": f"{layer}/mlp/down_proj",
    }


_KERAS_LAYER = "layers/smol_lm3_decoder_layer_{i}"
_KERAS_NAMES: LayerNames = {
    "token_embedding": "layers/reversible_embedding",
    "output_norm": "layers/rms_normalization",
    **_projections(_KERAS_LAYER),
    "self_attention/query": (f"{_KERAS_LAYER}/self_attn/q_proj", Transposed()),
    "self_attention/key": (f"{_KERAS_LAYER}/self_attn/k_proj", Transposed()),
    "self_attention/value": (f"{_KERAS_LAYER}/self_attn/v_proj", Transposed()),
    "self_attention/frequencies": Stored(f"{_KERAS_LAYER}/self_attn/rotary_embedding/vars/0"),
    "self_attention_norm": f"{_KERAS_LAYER}/input_layernorm",
    "feed_forward_norm": f"{_KERAS_LAYER}/post_attention_layernorm",
}
_KERAS_PATHS = {"token_embedding": "token_embedding", **_projections("transformer_layer_{i}")}


def _keras_frequencies(config: DecoderConfig) -> dict[str, np.ndarray]:
    """Return the frequencies of the rotary embedding, which KerasHub stores in every layer."""
    assert config.rotary is not None  # noqa: S101  # what the family's description has
    exponents = np.arange(0, config.head_dim, 2) / config.head_dim
    frequencies = (config.rotary.theta**-exponents).astype("float32")
    layers = range(config.num_layers)
    return {f"transformer_layer_{i}/self_attention/frequencies": frequencies for i in layers}


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(config, checkpoint)
    num_layers = arguments["num_layers"]
    arguments |= {
        "partial_rotary_factor": 1.0,
        "attention_bias": False,
        "mlp_bias": False,
        # Not stored; what the published model has.
        "rope_layer_enabled_list": all_but_last(num_layers, period=4),
        "layer_types": [_KINDS[0]] * num_layers,
    }
    return _renamed(arguments)


FAMILY = Family(
    task=SmolLM3CausalLM,
    formats={
        "transformers": transformers_format(
            {"smollm3": "SmolLM3ForCausalLM"}, _transformers_arguments
        ),
        "gguf": gguf_format(("smollm3",), _gguf_arguments, interleaved_names),
        "keras": keras_format(
            SmolLM3Backbone,
            _KERAS_NAMES,
            KerasClasses(prefix="SmolLM3", module="smollm3", tokenizer_cls=SmolLM3Tokenizer),
            KerasClasses(prefix="SmolLM", module="smollm3", tokenizer_cls=SmolLM3Tokenizer),
            paths=_KERAS_PATHS,
            unheeded={"attention_bias": False, "partial_rotary_factor": 1.0},
            constants=_keras_frequencies,
        ),
    },
)
