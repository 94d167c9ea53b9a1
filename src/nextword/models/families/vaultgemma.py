"""VaultGemma (https://arxiv.org/abs/2510.15001): Gemma 2 without norms behind its branches."""

from nextword.models.families.gemma import GemmaCausalLM, capped_arguments
from nextword.models.family import Relative
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    TRANSFORMERS_NORMS_BEHIND,
    transformers_format,
)

FAMILY = Relative(
    task=GemmaCausalLM,
    formats={
        "transformers": transformers_format(
            {"vaultgemma": "VaultGemmaForCausalLM"},
            lambda config, _: capped_arguments(config),
            TRANSFORMERS_NAMES | TRANSFORMERS_NORMS_BEHIND,
        )
    },
)
