"""Gemma 2 (https://arxiv.org/abs/2408.00118): Gemma with caps, windows, and more norms."""

from typing import Any

from nextword.models.families.gemma import GemmaCausalLM, capped_arguments, gemma_gguf_arguments
from nextword.models.family import Relative
from nextword.models.formats.gguf import gguf_format, shifted_names
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    TRANSFORMERS_NORMS_BEHIND,
    transformers_format,
)
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader

_POST_NORMS = {"use_post_ffw_norm": True, "use_post_attention_norm": True}


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gemma_gguf_arguments(config, checkpoint) | _POST_NORMS
    return arguments | {
        "attention_logit_soft_cap": config.number("attn_logit_softcapping", 50.0),
        "final_logit_soft_cap": config.number("final_logit_softcapping", 30.0),
        "use_sliding_window_attention": True,
        "sliding_window_size": config.integer("attention.sliding_window", 4096),
        # Not stored: of the Gemma 2 models the one with 46 layers differs.
        "query_head_dim_normalize": arguments["num_layers"] != 46,
    }


FAMILY = Relative(
    task=GemmaCausalLM,
    formats={
        "transformers": transformers_format(
            {"gemma2": "Gemma2ForCausalLM"},
            lambda config, _: capped_arguments(config) | _POST_NORMS,
            TRANSFORMERS_NAMES | TRANSFORMERS_NORMS_BEHIND,
        ),
        "gguf": gguf_format(("gemma2",), _gguf_arguments, shifted_names),
    },
)
