"""ERNIE 4.5 (https://github.com/PaddlePaddle/ERNIE): Llama that rotates neighbouring pairs."""

from typing import Any

from nextword.models.families.llama import LlamaCausalLM, llama_arguments
from nextword.models.family import Relative
from nextword.models.formats.transformers import interleaved_transformers_names, transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = llama_arguments(
        config,
        context_length=131072,
        epsilon=1e-5,
        head_dim=128,
        tie_word_embeddings=True,
        theta=5e5,
    )
    bias = config.boolean("use_bias", False)
    return arguments | {"attention_bias": bias, "feed_forward_bias": bias}


FAMILY = Relative(
    task=LlamaCausalLM,
    formats={
        "transformers": transformers_format(
            {"ernie4_5": "Ernie4_5ForCausalLM"}, _arguments, interleaved_transformers_names
        )
    },
)
