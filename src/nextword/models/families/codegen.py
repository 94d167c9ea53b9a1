"""CodeGen (https://arxiv.org/abs/2203.13474): GPT-J with fused projections."""

from typing import Any

from nextword.errors import PresetError
from nextword.layers import DecoderConfig
from nextword.models.families.gptj import IGNORED, TRANSFORMERS_NAMES, GPTJCausalLM, gptj_arguments
from nextword.models.family import Relative
from nextword.models.formats.decoder_tables import LayerNames, interleaved_rotary, query_key_value
from nextword.models.formats.transformers import transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.weight_layouts import GroupedHeads

# Of the machine that it was trained on, and part of the format since.
_PARTS = 4


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gptj_arguments(config)
    if arguments["num_heads"] % _PARTS:
        raise PresetError(
            f"'n_head' of {checkpoint.name} must be a multiple of {_PARTS}. Received: "
            f"{arguments['num_heads']}."
        )
    return arguments


def _names(checkpoint: Checkpoint, config: DecoderConfig) -> LayerNames:
    # In parts, each of queries, values and keys.
    layout = GroupedHeads(_PARTS, config.hidden_dim // _PARTS)
    fused = query_key_value(config, "transformer.h.{i}.attn.qkv_proj", layout)
    query, value, key = fused.values()
    names = dict(zip(fused, (query, key, value), strict=True))
    return interleaved_rotary(config, {**TRANSFORMERS_NAMES, **names})


FAMILY = Relative(
    task=GPTJCausalLM,
    formats={
        "transformers": transformers_format(
            {"codegen": "CodeGenForCausalLM"}, _arguments, _names, ignored=IGNORED
        )
    },
)
