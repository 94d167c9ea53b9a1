"""Seed-OSS (https://github.com/ByteDance-Seed/seed-oss): Llama with biases in attention."""

from typing import Any

from nextword.models.families.llama import LlamaCausalLM, bias_arguments, llama_arguments
from nextword.models.family import Relative
from nextword.models.formats.transformers import transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = llama_arguments(config, context_length=524288, head_dim=128)
    arguments |= bias_arguments(config, attention_bias=True)
    return arguments | {
        "attention_output_bias": config.boolean("attention_out_bias", False),
        "dropout": config.fraction("residual_dropout", 0.1),
    }


FAMILY = Relative(
    task=LlamaCausalLM,
    formats={"transformers": transformers_format({"seed_oss": "SeedOssForCausalLM"}, _arguments)},
)
