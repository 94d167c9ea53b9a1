"""GPT-J (https://github.com/kingoflolz/mesh-transformer-jax)."""

from typing import Any

from nextword.layers import Activation, DecoderConfig, RotaryConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.decoder_tables import LayerNames, interleaved_rotary
from nextword.models.formats.transformers import activation, spelled_integer, transformers_format
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


class GPTJBackbone(Backbone):
    """The GPT-J decoder: attention and feed-forward side by side behind one norm.

    Args:
        rotary_dim: number of dimensions of a head that are rotated.

    Example:
    ```python
    backbone = GPTJBackbone(
        vocabulary_size=100, num_layers=2, num_heads=4, hidden_dim=32, intermediate_dim=128,
        rotary_dim=4,
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
        rotary_dim: int,
        dropout: float = 0.0,
        layer_norm_epsilon: float = 1e-5,
        max_sequence_length: int = 2048,
        *,
        activation: Activation = "gelu_tanh",
        tie_word_embeddings: bool = False,
    ) -> DecoderConfig:
        head_dim = hidden_dim // num_heads
        return DecoderConfig(
            **decoder_fields(locals()),
            rotary=RotaryConfig(fraction=rotary_dim / head_dim),
            norm="layer",
            parallel_residual=True,
            shared_norm=True,
            feed_forward_bias=True,
            feed_forward_gate=False,
            head_bias=True,
        )


class GPTJCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `GPTJCausalLM`; see `CausalLMPreprocessor`."""


class GPTJCausalLM(CausalLM):
    """A GPT-J model that generates text; see `CausalLM`."""

    backbone_cls = GPTJBackbone
    preprocessor_cls = GPTJCausalLMPreprocessor


TRANSFORMERS_NAMES = {
    "token_embedding": "transformer.wte",
    "head": "lm_head",
    "output_norm": "transformer.ln_f",
    "self_attention_norm": "transformer.h.{i}.ln_1",
    "self_attention/query": "transformer.h.{i}.attn.q_proj",
    "self_attention/key": "transformer.h.{i}.attn.k_proj",
    "self_attention/value": "transformer.h.{i}.attn.v_proj",
    "self_attention/attention_output": "transformer.h.{i}.attn.out_proj",
    "feed_forward/intermediate": "transformer.h.{i}.mlp.fc_in",
    "feed_forward/feed_forward_output": "transformer.h.{i}.mlp.fc_out",
}

IGNORED = (r"transformer\.h\.\d+\.attn\.(masked_)?bias", r"lm_head\.weight")
"""Causal masks, and a copy of the tied embedding."""


def gptj_arguments(config: ConfigReader) -> dict[str, Any]:
    """Read what the models of this graph share.

    Args:
        config: the model's configuration.
    """
    hidden_dim = spelled_integer(config, "n_embd", "hidden_size")
    num_heads = spelled_integer(config, "n_head", "num_attention_heads")
    head_dim = hidden_dim // num_heads
    arguments = {
        "vocabulary_size": config.integer("vocab_size"),
        "num_layers": spelled_integer(config, "n_layer", "num_hidden_layers"),
        "num_heads": num_heads,
        "hidden_dim": hidden_dim,
        "intermediate_dim": config.integer("n_inner", 4 * hidden_dim),
        "rotary_dim": config.integer("rotary_dim", min(64, head_dim), maximum=head_dim),
        "dropout": config.fraction("resid_pdrop", 0.0),
        "layer_norm_epsilon": config.number("layer_norm_epsilon", 1e-5),
        "max_sequence_length": spelled_integer(config, "n_positions", "max_position_embeddings"),
        "activation": activation(config, "activation_function", "gelu_new"),
        "tie_word_embeddings": config.boolean("tie_word_embeddings", False),
    }
    config.expect(rotary=True, scale_attn_weights=True)
    # Another name of a size, other places of dropout, and settings of another task.
    config.skip("n_ctx", "embd_pdrop", "attn_pdrop", "summary_activation", "summary_first_dropout")
    config.skip("summary_proj_to_labels", "summary_type", "summary_use_proj", "tokenizer_class")
    return arguments


def _transformers_names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    return interleaved_rotary(config, TRANSFORMERS_NAMES)


FAMILY = Family(
    task=GPTJCausalLM,
    formats={
        "transformers": transformers_format(
            {"gptj": "GPTJForCausalLM"},
            lambda config, _: gptj_arguments(config),
            _transformers_names,
            ignored=IGNORED,
        ),
    },
)
