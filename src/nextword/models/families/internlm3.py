"""InternLM3 (https://github.com/InternLM/InternLM): Llama with biases everywhere or nowhere."""

from typing import Any

from nextword.models.families.llama import LlamaCausalLM, llama_arguments
from nextword.models.family import Relative
from nextword.models.formats.transformers import transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = llama_arguments(config, context_length=32768, epsilon=1e-5, head_dim=128)
    bias = config.boolean("qkv_bias", config.boolean("attention_bias", False))
    # transformers refuses any other.
    config.expect(bias=bias, mlp_bias=bias)
    return arguments | {"attention_bias": bias, "feed_forward_bias": bias}


FAMILY = Relative(
    task=LlamaCausalLM,
    formats={"transformers": transformers_format({"internlm3": "LlamaForCausalLM"}, _arguments)},
)
