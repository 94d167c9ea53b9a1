"""BioGPT (https://arxiv.org/abs/2210.10341): OPT with GELU and scaled embeddings."""

from typing import Any

from nextword.models.families.opt import TRANSFORMERS_NAMES, OPTCausalLM
from nextword.models.family import Relative
from nextword.models.formats.decoder_tables import LayerNames
from nextword.models.formats.transformers import (
    activation,
    decoder_sizes,
    transformers_format,
    ungrouped,
)
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.presets.weight_layouts import UnusedRows

_NAMES: LayerNames = {
    "output_norm": "biogpt.layer_norm",
    "token_embedding": "biogpt.embed_tokens",
    "position_embedding": ("biogpt.embed_positions", UnusedRows(2)),
    **{
        path: place.replace("model.decoder.", "biogpt.")
        for path, place in TRANSFORMERS_NAMES.items()
        if isinstance(place, str) and "{i}" in place
    },
}


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = ungrouped(config, decoder_sizes(config)) | {
        "dropout": config.fraction("hidden_dropout_prob", 0.1),
        "max_sequence_length": config.integer("max_position_embeddings", 1024),
        "activation": activation(config, "hidden_act", "gelu"),
        "scale_embedding": config.boolean("scale_embedding", True),
    }
    config.expect(tie_word_embeddings=True)
    # Only training looks at these; and the norms have an epsilon that is not this one.
    config.skip("activation_dropout", "attention_probs_dropout_prob", "layerdrop", "layer_norm_eps")
    return arguments


FAMILY = Relative(
    task=OPTCausalLM,
    formats={
        "transformers": transformers_format(
            {"biogpt": "BioGptForCausalLM"},
            _arguments,
            _NAMES,
            prefix="biogpt.",
            ignored=(r"(lm_head|output_projection)\.weight",),
        )
    },
)
