"""IQuest-Coder (https://github.com/IQuestLab/IQuest-Coder-V1): Llama with settings of its own."""

from typing import Any

from nextword.models.families.llama import LlamaCausalLM, bias_arguments, llama_arguments
from nextword.models.family import Relative
from nextword.models.formats.transformers import transformers_format
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader


def _arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = llama_arguments(config, epsilon=1e-5, head_dim=128)
    config.expect(use_sliding_window=False)
    config.skip("sliding_window", "max_window_layers")
    return arguments | bias_arguments(config)


FAMILY = Relative(
    task=LlamaCausalLM,
    formats={"transformers": transformers_format({"iquestcoder": "LlamaForCausalLM"}, _arguments)},
)
