"""StarCoder (https://arxiv.org/abs/2305.06161): GPT-2 with one key and value for all heads."""

from typing import Any

from nextword.layers import DecoderConfig
from nextword.models.families.gpt2 import IGNORED, TRANSFORMERS_NAMES, GPT2CausalLM, gpt2_arguments
from nextword.models.family import Relative
from nextword.models.formats.decoder_tables import (
    LayerNames,
    grouped_query_key_value,
    query_key_value,
)
from nextword.models.formats.transformers import transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gpt2_arguments(config)
    is_shared = config.boolean("multi_query", True)
    arguments["num_key_value_heads"] = 1 if is_shared else arguments["num_heads"]
    config.choice("num_key_value_heads", [arguments["num_key_value_heads"]], None)
    # How the original code computed the same.
    config.skip("attention_softmax_in_fp32", "scale_attention_softmax_in_fp32")
    config.skip("inference_runner", "max_batch_size", "max_sequence_length", "pad_key_length")
    config.skip("pre_allocate_kv_cache", "validate_runner_input")
    return arguments


def _names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    # Heads of their own are stored by heads.
    fused = query_key_value if config.num_key_value_heads == 1 else grouped_query_key_value
    return {**TRANSFORMERS_NAMES, **fused(config, "transformer.h.{i}.attn.c_attn")}


FAMILY = Relative(
    task=GPT2CausalLM,
    formats={
        "transformers": transformers_format(
            {"gpt_bigcode": "GPTBigCodeForCausalLM"},
            _arguments,
            _names,
            prefix="transformer.",
            ignored=IGNORED,
        )
    },
)
