"""OLMo 3 (https://allenai.org/blog/olmo3): OLMo 2 with a window in three layers of four."""

from typing import Any

from nextword.models.families.olmo2 import Olmo2CausalLM
from nextword.models.family import Relative
from nextword.models.formats.rotary import rotary_arguments_by_layer
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    TRANSFORMERS_NORMS_BEHIND,
    decoder_arguments,
    sliding_layers,
    transformers_format,
)
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = decoder_arguments(config, context_length=2048, epsilon=1e-5)
    arguments |= rotary_arguments_by_layer(config, arguments["context_length"], 5e5, 5e5)
    return arguments | {
        "attention_bias": config.boolean("attention_bias", False),
        "sliding_window": config.integer("sliding_window", 4096),
        "sliding_layers": sliding_layers(config, arguments["num_layers"], period=4),
    }


FAMILY = Relative(
    task=Olmo2CausalLM,
    formats={
        "transformers": transformers_format(
            {"olmo3": "Olmo3ForCausalLM"},
            _arguments,
            TRANSFORMERS_NAMES | TRANSFORMERS_NORMS_BEHIND,
        )
    },
)
