"""Arcee's models (https://huggingface.co/arcee-ai/AFM-4.5B): Llama without a gate."""

from typing import Any

from nextword.models.families.llama import LlamaCausalLM, bias_arguments, llama_arguments
from nextword.models.family import Relative
from nextword.models.formats.transformers import transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = llama_arguments(config, epsilon=1e-5, hidden_act="relu2", context_length=4096)
    arguments |= bias_arguments(config)
    return arguments | {"feed_forward_gate": False, "activation": "relu_squared"}


FAMILY = Relative(
    task=LlamaCausalLM,
    formats={"transformers": transformers_format({"arcee": "ArceeForCausalLM"}, _arguments)},
)
