"""OPT (https://arxiv.org/abs/2205.01068)."""

from typing import Any

from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family, StoredFormat
from nextword.models.formats.decoder_tables import decoder_table
from nextword.models.formats.transformers import activation, decoder_prefix
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import transformers_settings
from nextword.presets.weight_table import WeightTable


class OPTBackbone(Backbone):
    """The OPT decoder: layer normalization, learned positions from row 2, ReLU, tied head.

    Args:
        vocabulary_size: number of token ids.
        num_layers: number of transformer layers.
        num_heads: number of attention heads.
        hidden_dim: width of the residual stream.
        intermediate_dim: width inside the feed-forward network.
        dropout: dropout rate.
        max_sequence_length: number of learned positions.
        activation: name of the feed-forward network's activation.
        use_bias: whether the projections have biases.
        position_offset: the row of the learned positions that the first token takes; there are as
            many rows more.
        **kwargs: `dtype`, `name` and `trainable`, see `Backbone`.

    Example:
    ```python
    backbone = OPTBackbone(
        vocabulary_size=100, num_layers=2, num_heads=4, hidden_dim=32, intermediate_dim=128
    )
    token_ids = np.array([[1, 2, 3]])
    hidden_states = backbone({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    ```
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
        activation: str = "relu",
        use_bias: bool = True,
        position_offset: int = 0,
    ) -> DecoderConfig:
        return DecoderConfig(
            vocabulary_size=vocabulary_size,
            num_layers=num_layers,
            hidden_dim=hidden_dim,
            intermediate_dim=intermediate_dim,
            num_query_heads=num_heads,
            num_key_value_heads=num_heads,
            head_dim=hidden_dim // num_heads,
            context_length=max_sequence_length,
            position_embedding="learned",
            position_offset=position_offset,
            norm="layer",
            norm_epsilon=1e-5,
            query_key_value_bias=use_bias,
            attention_output_bias=use_bias,
            feed_forward_bias=use_bias,
            feed_forward_gate=False,
            activation=activation,
            tie_word_embeddings=True,
            dropout=dropout,
        )


class OPTCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of an `OPTCausalLM`; see `CausalLMPreprocessor`."""


class OPTCausalLM(CausalLM):
    """An OPT model that generates text; see `CausalLM`."""

    backbone_cls = OPTBackbone
    preprocessor_cls = OPTCausalLMPreprocessor


TRANSFORMERS_NAMES = {
    "token_embedding": "decoder.embed_tokens",
    "position_embedding": "decoder.embed_positions",
    "output_norm": "decoder.final_layer_norm",
    "self_attention_norm": "decoder.layers.{i}.self_attn_layer_norm",
    "self_attention/query": "decoder.layers.{i}.self_attn.q_proj",
    "self_attention/key": "decoder.layers.{i}.self_attn.k_proj",
    "self_attention/value": "decoder.layers.{i}.self_attn.v_proj",
    "self_attention/attention_output": "decoder.layers.{i}.self_attn.out_proj",
    "feed_forward_norm": "decoder.layers.{i}.final_layer_norm",
    "feed_forward/intermediate": "decoder.layers.{i}.fc1",
    "feed_forward/feed_forward_output": "decoder.layers.{i}.fc2",
}


def _transformers_arguments(checkpoint: Checkpoint) -> dict[str, Any]:
    config = transformers_settings(checkpoint)
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
        "position_offset": 2,
    }
    config.choice("word_embed_proj_dim", [hidden_dim], hidden_dim)
    for key in ("do_layer_norm_before", "layer_norm_elementwise_affine", "tie_word_embeddings"):
        config.choice(key, [True], True)
    config.choice("_remove_final_layer_norm", [False], False)
    # Only training looks at these.
    config.skip("activation_dropout", "init_std", "layerdrop", "prefix")
    config.check_all_read()
    return arguments


def _transformers_weights(checkpoint: Checkpoint, config: DecoderConfig) -> WeightTable:
    prefix = decoder_prefix(checkpoint, "model.")
    return decoder_table(config, TRANSFORMERS_NAMES, prefix=prefix)


FAMILY = Family(
    task=OPTCausalLM,
    formats={
        "transformers": StoredFormat(
            architectures=("opt",),
            arguments=_transformers_arguments,
            weights=_transformers_weights,
            ignored=(r"lm_head\.weight",),
        ),
    },
)
