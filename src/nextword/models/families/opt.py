"""OPT (https://arxiv.org/abs/2205.01068)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from nextword.layers import Activation, DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import LayerNames
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_layers import LAYER_PATHS
from nextword.models.formats.keras_names import TRANSFORMER_DECODER_NAMES
from nextword.models.formats.transformers import activation, transformers_format
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.weight_layouts import UnusedRows
from nextword.tokenizers import BytePairTokenizer


class OPTBackbone(Backbone):
    """The OPT decoder: layer normalization, learned positions, ReLU, tied head.

    Args:
        max_sequence_length: number of learned positions.
        scale_embedding: whether embedded tokens are multiplied by the square root of their width.
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        dropout: float = 0.1,
        max_sequence_length: int = 2048,
        *,
        activation: Activation = "relu",
        use_bias: bool = True,
        scale_embedding: bool = False,
    ) -> DecoderConfig:
        return DecoderConfig(
            **decoder_fields(locals()),
            position_embedding="learned",
            embedding_scale=hidden_dim**0.5 if scale_embedding else 1.0,
            norm="layer",
            norm_epsilon=1e-5,
            feed_forward_gate=False,
            tie_word_embeddings=True,
        )


class OPTTokenizer(BytePairTokenizer):
    """OPT's byte-level byte-pair encoding; see `BytePairTokenizer`."""

    default_split = "gpt-2"
    role_tokens: ClassVar[Mapping[str, str]] = {
        "bos_token": "</s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    }


class OPTCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of an `OPTCausalLM`; see `CausalLMPreprocessor`."""


class OPTCausalLM(CausalLM):
    """An OPT model that generates text; see `CausalLM`."""

    backbone_cls = OPTBackbone
    preprocessor_cls = OPTCausalLMPreprocessor


TRANSFORMERS_NAMES: LayerNames = {
    "token_embedding": "model.decoder.embed_tokens",
    # The first token has the third row.
    "position_embedding": ("model.decoder.embed_positions", UnusedRows(2)),
    "output_norm": "model.decoder.final_layer_norm",
    "self_attention_norm": "model.decoder.layers.{i}.self_attn_layer_norm",
    "self_attention/query": "model.decoder.layers.{i}.self_attn.q_proj",
    "self_attention/key": "model.decoder.layers.{i}.self_attn.k_proj",
    "self_attention/value": "model.decoder.layers.{i}.self_attn.v_proj",
    "self_attention/attention_output": "model.decoder.layers.{i}.self_attn.out_proj",
    "feed_forward_norm": "model.decoder.layers.{i}.final_layer_norm",
    "feed_forward/intermediate": "model.decoder.layers.{i}.fc1",
    "feed_forward/feed_forward_output": "model.decoder.layers.{i}.fc2",
}

_KERAS_EMBEDDING = "layers/token_and_position_embedding"
KERAS_NAMES = TRANSFORMER_DECODER_NAMES | {
    "token_embedding": f"{_KERAS_EMBEDDING}/token_embedding",
    "position_embedding": f"{_KERAS_EMBEDDING}/position_embedding",
}
_KERAS_PATHS = {**LAYER_PATHS, "token_embedding": "embeddings/token_embedding"}


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    hidden_dim = config.integer("hidden_size")
    arguments = {
        "vocabulary_size": config.integer("vocab_size"),
        "num_layers": config.integer("num_hidden_layers"),
        "num_heads": config.integer("num_attention_heads"),
        "hidden_dim": hidden_dim,
        "intermediate_dim": config.integer("ffn_dim"),
        "dropout": config.fraction("dropout", 0.1),
        "max_sequence_length": config.integer("max_position_embeddings", 2048),
        "activation": activation(config, "activation_function", "relu"),
        "use_bias": config.boolean("enable_bias", True),
    }
    config.expect(word_embed_proj_dim=hidden_dim, tie_word_embeddings=True)
    config.expect(do_layer_norm_before=True, layer_norm_elementwise_affine=True)
    config.expect(_remove_final_layer_norm=False)
    # Only training looks at these.
    config.skip("activation_dropout", "init_std", "layerdrop", "prefix")
    return arguments


FAMILY = Family(
    task=OPTCausalLM,
    formats={
        "transformers": transformers_format(
            {"opt": "OPTForCausalLM"},
            _transformers_arguments,
            TRANSFORMERS_NAMES,
            prefix="model.",
            ignored=(r"lm_head\.weight",),
        ),
        "keras": keras_format(
            OPTBackbone,
            KERAS_NAMES,
            KerasClasses(prefix="OPT", module="opt", tokenizer_cls=OPTTokenizer),
            paths=_KERAS_PATHS,
        ),
    },
)
