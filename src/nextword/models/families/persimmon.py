"""Persimmon (https://www.adept.ai/blog/persimmon-8b): GPT-NeoX with norms of queries and keys."""

from typing import Any

from nextword.layers import DecoderConfig
from nextword.models.families.gpt_neox import GPTNeoXCausalLM, gpt_neox_arguments
from nextword.models.family import Relative
from nextword.models.formats.decoder_tables import LayerNames, grouped_query_key_value
from nextword.models.formats.transformers import transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader

_LAYERS = {
    "token_embedding": "model.embed_tokens",
    "head": "lm_head",
    "output_norm": "model.final_layernorm",
    "self_attention_norm": "model.layers.{i}.input_layernorm",
    "self_attention/query_norm": "model.layers.{i}.self_attn.q_layernorm",
    "self_attention/key_norm": "model.layers.{i}.self_attn.k_layernorm",
    "self_attention/attention_output": "model.layers.{i}.self_attn.dense",
    "feed_forward_norm": "model.layers.{i}.post_attention_layernorm",
    "feed_forward/intermediate": "model.layers.{i}.mlp.dense_h_to_4h",
    "feed_forward/feed_forward_output": "model.layers.{i}.mlp.dense_4h_to_h",
}


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    fraction = config.number("partial_rotary_factor", 0.5)
    arguments = gpt_neox_arguments(config, fraction=fraction, base=10000.0, hidden_act="relu2")
    return arguments | {
        "parallel_residual": False,
        "use_query_key_norm": config.boolean("qk_layernorm", True),
    }


def _names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    fused = grouped_query_key_value(config, "model.layers.{i}.self_attn.query_key_value")
    return {**_LAYERS, **fused}


FAMILY = Relative(
    task=GPTNeoXCausalLM,
    formats={
        "transformers": transformers_format(
            {"persimmon": "PersimmonForCausalLM"}, _arguments, _names
        )
    },
)
