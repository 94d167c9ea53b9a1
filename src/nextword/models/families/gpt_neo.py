"""GPT-Neo (https://doi.org/10.5281/zenodo.5297715): GPT-2 with windows, attention unscaled."""

from typing import Any

from nextword.models.families.gpt2 import (
    IGNORED,
    TRANSFORMERS_NAMES,
    GPT2CausalLM,
    common_arguments,
)
from nextword.models.family import Relative
from nextword.models.formats.transformers import transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader

_ATTENTION = "transformer.h.{i}.attn.attention"
_NAMES = TRANSFORMERS_NAMES | {
    "self_attention/query": f"{_ATTENTION}.q_proj",
    "self_attention/key": f"{_ATTENTION}.k_proj",
    "self_attention/value": f"{_ATTENTION}.v_proj",
    "self_attention/attention_output": f"{_ATTENTION}.out_proj",
}


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    hidden_dim, num_layers = config.integer("hidden_size"), config.integer("num_layers")
    alternating = [("global", "local")[layer % 2] for layer in range(num_layers)]
    kinds = config.choices("attention_layers", ["global", "local"], num_layers, alternating)
    periods = [n for n in range(1, num_layers + 1) if kinds[:n] * (num_layers // n) == kinds]
    config.choice("attention_types", [[[kinds[:n], num_layers // n]] for n in periods], None)
    config.skip("embed_dropout", "classifier_dropout")
    return common_arguments(config) | {
        "num_layers": num_layers,
        "num_heads": config.integer("num_heads"),
        "hidden_dim": hidden_dim,
        "intermediate_dim": config.integer("intermediate_size", 4 * hidden_dim),
        "dropout": config.fraction("resid_dropout", 0.0),
        "max_sequence_length": config.integer("max_position_embeddings", 2048),
        "query_key_value_bias": False,
        "attention_scale": 1.0,
        "sliding_window": config.integer("window_size", 256),
        "sliding_layers": [kind == "local" for kind in kinds],
    }


FAMILY = Relative(
    task=GPT2CausalLM,
    formats={
        "transformers": transformers_format(
            {"gpt_neo": "GPTNeoForCausalLM"},
            _arguments,
            _NAMES,
            prefix="transformer.",
            ignored=IGNORED,
        )
    },
)
