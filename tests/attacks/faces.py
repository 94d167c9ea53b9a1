"""The public ways to load a preset, or a part of one."""

import nextword

TEXTS = ["hello world", "the quick brown fox jumps over the lazy dog"]
FACES = {
    "CausalLM": nextword.models.CausalLM,
    "Backbone": nextword.models.Backbone,
    "CausalLMPreprocessor": nextword.models.CausalLMPreprocessor,
    "Tokenizer": nextword.tokenizers.Tokenizer,
}
