"""EXAONE 4 (https://arxiv.org/abs/2507.11407): OLMo 2 with windows, and layers without rotation."""

from typing import Any

from nextword.models.families.olmo2 import Olmo2CausalLM
from nextword.models.family import Relative
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    TRANSFORMERS_NORMS_BEHIND,
    rotary_decoder_arguments,
    sliding_layers,
    transformers_format,
)
from nextword.models.shared_arguments import all_but_last
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = rotary_decoder_arguments(config, context_length=2048, epsilon=1e-5)
    window = config.integer_or_null("sliding_window", 4096)
    sliding = sliding_layers(config, arguments["num_layers"])
    if sliding is None:
        every = config.integer("sliding_window_pattern", 4)
        sliding = all_but_last(arguments["num_layers"], every)
    config.skip("sliding_window_pattern")  # which `layer_types` says again
    return arguments | {
        "query_key_norm": "head",
        "sliding_window": window,
        "sliding_layers": sliding,
        # Beside layers with a window, those without one do not rotate.
        "rotary_layers": None if window is None else sliding,
    }


FAMILY = Relative(
    task=Olmo2CausalLM,
    formats={
        "transformers": transformers_format(
            {"exaone4": "Exaone4ForCausalLM"},
            _arguments,
            TRANSFORMERS_NAMES | TRANSFORMERS_NORMS_BEHIND,
        )
    },
)
