"""Ministral (https://mistral.ai/news/ministraux): Mistral with a window in some layers."""

from typing import Any

from nextword.models.families.mistral import MistralCausalLM, mistral_arguments
from nextword.models.family import Relative
from nextword.models.formats.transformers import sliding_layers, transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = mistral_arguments(config)
    return arguments | {"sliding_layers": sliding_layers(config, arguments["num_layers"])}


FAMILY = Relative(
    task=MistralCausalLM,
    formats={
        "transformers": transformers_format({"ministral": "MinistralForCausalLM"}, _arguments)
    },
)
