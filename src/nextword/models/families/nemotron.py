"""Nemotron-4 and Minitron (https://arxiv.org/abs/2402.16819): StableLM with squared ReLU."""

from typing import Any

from nextword.models.families.stablelm import StableLMCausalLM
from nextword.models.family import Relative
from nextword.models.formats.rotary import rotary_arguments
from nextword.models.formats.transformers import activation, decoder_sizes, transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    bias = config.boolean("attention_bias", False)
    arguments = decoder_sizes(config) | {
        "head_dim": config.integer("head_dim", None),
        "layer_norm_epsilon": config.number("norm_eps", 1e-5),
        "use_norm_offset": True,
        "query_key_value_bias": bias,
        "attention_output_bias": bias,
        "feed_forward_bias": config.boolean("mlp_bias", False),
        "feed_forward_gate": False,
        "activation": activation(config, "hidden_act", "relu2"),
        "tie_word_embeddings": config.boolean("tie_word_embeddings", False),
        "context_length": config.integer("max_position_embeddings", 4096),
    }
    return arguments | rotary_arguments(config, arguments["context_length"], default_fraction=0.5)


FAMILY = Relative(
    task=StableLMCausalLM,
    formats={"transformers": transformers_format({"nemotron": "NemotronForCausalLM"}, _arguments)},
)
