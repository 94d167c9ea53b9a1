"""Helium (https://huggingface.co/kyutai/helium-1-preview-2b): Llama that rotates other pairs."""

from typing import Any

from nextword.models.families.llama import LlamaCausalLM, bias_arguments, llama_arguments
from nextword.models.family import Relative
from nextword.models.formats.transformers import interleaved_transformers_names, transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = llama_arguments(config, context_length=4096, epsilon=1e-8, theta=1e5)
    config.expect(head_dim=arguments["hidden_dim"] // arguments["num_query_heads"])
    return arguments | bias_arguments(config) | {"attention_output_bias": False}


FAMILY = Relative(
    task=LlamaCausalLM,
    formats={
        "transformers": transformers_format(
            {"helium": "HeliumForCausalLM"}, _arguments, interleaved_transformers_names
        )
    },
)
