"""OLMoE (https://arxiv.org/abs/2409.02060): OLMo 2 with experts, and norms before them."""

from typing import Any

from nextword.models.families.olmo2 import Olmo2CausalLM
from nextword.models.family import Relative
from nextword.models.formats.transformers import (
    TRANSFORMERS_EXPERTS,
    TRANSFORMERS_NAMES,
    experts_arguments,
    rotary_decoder_arguments,
    transformers_format,
)
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = rotary_decoder_arguments(config, context_length=4096, epsilon=1e-5)
    arguments |= experts_arguments(config, "num_experts", "num_local_experts", top_k=8)
    return arguments | {
        "use_norms_before": True,
        "attention_bias": config.boolean("attention_bias", False),
        "norm_top_k_prob": config.boolean("norm_topk_prob", False),
    }


FAMILY = Relative(
    task=Olmo2CausalLM,
    formats={
        "transformers": transformers_format(
            {"olmoe": "OlmoeForCausalLM"}, _arguments, TRANSFORMERS_NAMES | TRANSFORMERS_EXPERTS
        )
    },
)
