"""Mistral (https://arxiv.org/abs/2310.06825)."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nextword.errors import PresetError
from nextword.layers import DecoderConfig
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.keras import KerasClasses, keras_format
from nextword.models.formats.keras_names import decoder_names
from nextword.models.formats.transformers import rotary_decoder_arguments, transformers_format
from nextword.models.shared_arguments import decoder_fields
from nextword.presets.config_reader import ConfigReader
from nextword.tokenizers import BytePairTokenizer, SentencePieceTokenizer
from nextword.tokenizers.pre_tokenizers import split_rules


class MistralBackbone(Backbone):
    """The Mistral decoder: RMS normalization, rotary embedding, SwiGLU, sliding window."""

    @staticmethod
    def describe(
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        num_key_value_heads: int,
        rope_max_wavelength: float = 10000,
        rope_scaling_factor: float = 1.0,
        layer_norm_epsilon: float = 1e-6,
        sliding_window: int | None = 512,
        head_dim: int | None = None,
        dropout: float = 0,
        *,
        sliding_layers: Sequence[bool] | None = None,
        tie_word_embeddings: bool = False,
        context_length: int | None = None,
        rope_scaling: Mapping[str, Any] | None = None,
    ) -> DecoderConfig:
        return DecoderConfig(
            **decoder_fields(locals()),
        )


class MistralTokenizer(SentencePieceTokenizer):
    """Mistral's SentencePiece model; see `SentencePieceTokenizer`."""

    role_tokens: ClassVar[Mapping[str, str]] = {"bos_token": "<s>", "eos_token": "</s>"}


class MistralTekkenTokenizer(BytePairTokenizer):
    """The byte-level byte-pair encoding of Mistral's later models, named Tekken.

    Args:
        vocabulary: see `BytePairTokenizer`.
        merges: see `BytePairTokenizer`.
        split_pattern: the regular expression that text is split by; there is but this one.
        sequence_length: see `Tokenizer`.
        add_prefix_space: must be False.
    """

    default_split = "tekken"
    role_tokens: ClassVar[Mapping[str, str]] = {"bos_token": "<s>", "eos_token": "</s>"}
    config_keys: ClassVar[tuple[str, ...]] = (
        "sequence_length",
        "add_prefix_space",
        "split_pattern",
    )
    (split_pattern,) = split_rules(default_split).steps

    def __init__(
        self,
        vocabulary: Mapping[str, int] | str | Path,
        merges: Iterable[str] | str | Path,
        split_pattern: str | None = None,
        sequence_length: int | None = None,
        add_prefix_space: bool = False,
    ) -> None:
        if split_pattern not in (None, self.split_pattern):
            raise PresetError(
                f"`split_pattern` must be {self.split_pattern!r}. Received: "
                f"split_pattern={split_pattern!r:.200}."
            )
        super().__init__(vocabulary, merges, sequence_length, add_prefix_space)


class MistralCausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `MistralCausalLM`; see `CausalLMPreprocessor`."""


class MistralCausalLM(CausalLM):
    """A Mistral model that generates text; see `CausalLM`."""

    backbone_cls = MistralBackbone
    preprocessor_cls = MistralCausalLMPreprocessor


def mistral_arguments(config: ConfigReader) -> dict[str, Any]:
    """Read what the models of this graph share.

    Args:
        config: the model's configuration.
    """
    arguments = rotary_decoder_arguments(config, context_length=131072, has_scaling_factor=True)
    arguments["sliding_window"] = config.integer_or_null("sliding_window", 4096)
    return arguments


FAMILY = Family(
    task=MistralCausalLM,
    written_as={"gguf": "llama"},
    formats={
        "transformers": transformers_format(
            {"mistral": "MistralForCausalLM"}, lambda config, _: mistral_arguments(config)
        ),
        "keras": keras_format(
            MistralBackbone,
            decoder_names("mistral_transformer_decoder", "mistral_layer_normalization"),
            KerasClasses(prefix="Mistral", module="mistral", tokenizer_cls=MistralTokenizer),
            KerasClasses(
                prefix="Mistral",
                module="mistral",
                tokenizer_cls=MistralTekkenTokenizer,
                tokenizer_name="MistralTekkenTokenizer",
            ),
        ),
    },
)
