"""Gemma 3 (https://arxiv.org/abs/2503.19786), the language model without its eyes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nextword.layers import DecoderConfig, rotary_config
from nextword.models.backbone import Backbone
from nextword.models.causal_lm import CausalLM
from nextword.models.causal_lm_preprocessor import CausalLMPreprocessor
from nextword.models.family import Family
from nextword.models.formats.gguf import (
    gguf_format,
    gguf_rotary_arguments,
    gguf_sliding_layers,
    shifted_names,
)
from nextword.models.formats.keras import KerasClasses
from nextword.models.formats.keras_blocks import block_format
from nextword.models.formats.rotary import rotary_arguments_by_layer
from nextword.models.formats.transformers import (
    TRANSFORMERS_NAMES,
    TRANSFORMERS_NORMS_BEHIND,
    decoder_sizes,
    sliding_layers,
    transformers_format,
)
from nextword.models.greedy import compile_greedily
from nextword.models.shared_arguments import (
    all_but_last,
    check_fixed,
    decoder_fields,
)
from nextword.presets.checkpoint import Checkpoint
from nextword.presets.config_reader import ConfigReader
from nextword.tokenizers import SentencePieceTokenizer, Tokenizer

_TEXT_ONLY = "only models that read and write text are supported"


class Gemma3Backbone(Backbone):
    """The Gemma 3 decoder: Gemma 2's, with local layers that rotate faster, and head norms.

    Args:
        image_size: of no effect without a vision encoder.
        use_sliding_window_attention: whether five of six layers have a sliding window.
        local_rope_scaling_factor: divides positions in layers with a sliding window.
        global_rope_scaling_factor: divides positions in the others.
        vision_encoder: must be None.
        use_bidirectional_attention: must be False.
        is_embedding_model: must be False.
        pooling_intermediate_dim: of no effect without `is_embedding_model`.
        embedding_dim: of no effect without `is_embedding_model`.
        sliding_layers: for each layer whether it has the window; the sixth of six has not.
        rope_max_wavelength: base of the rotary wavelengths in layers without a window.
        sliding_rope_max_wavelength: base of the rotary wavelengths in layers with one.

    Example:
    ```python
    backbone = Gemma3Backbone(
        vocabulary_size=100, image_size=None, num_layers=6, num_query_heads=4,
        num_key_value_heads=1, hidden_dim=32, intermediate_dim=64, head_dim=8,
        use_sliding_window_attention=True,
    )
    token_ids = np.array([[1, 2, 3]])
    hidden_states = backbone({"token_ids": token_ids, "padding_mask": np.ones_like(token_ids)})
    ```
    """

    @staticmethod
    def describe(
        vocabulary_size: int,
        image_size: int | None,
        num_layers: int,
        num_query_heads: int,
        num_key_value_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        head_dim: int,
        query_head_dim_normalize: bool = True,
        use_query_key_norm: bool = True,
        use_post_ffw_norm: bool = False,
        use_post_attention_norm: bool = False,
        attention_logit_soft_cap: float | None = None,
        final_logit_soft_cap: float | None = None,
        use_sliding_window_attention: bool = False,
        sliding_window_size: int = 1024,
        local_rope_scaling_factor: float = 1.0,
        global_rope_scaling_factor: float = 1.0,
        vision_encoder: Mapping[str, Any] | None = None,
        layer_norm_epsilon: float = 1e-6,
        use_bidirectional_attention: bool = False,
        dropout: float = 0,
        is_embedding_model: bool = False,
        pooling_intermediate_dim: int | None = None,
        embedding_dim: int | None = None,
        *,
        query_pre_attention_scalar: float | None = None,
        sliding_layers: Sequence[bool] | None = None,
        rope_max_wavelength: float = 1000000,
        sliding_rope_max_wavelength: float = 10000,
        rope_scaling: Mapping[str, Any] | None = None,
        attention_bias: bool = False,
        context_length: int | None = None,
    ) -> DecoderConfig:
        check_fixed(None, _TEXT_ONLY, vision_encoder=vision_encoder)
        check_fixed(False, _TEXT_ONLY, use_bidirectional_attention=use_bidirectional_attention)
        check_fixed(False, _TEXT_ONLY, is_embedding_model=is_embedding_model)
        if sliding_layers is None:
            sliding_layers = all_but_last(num_layers, period=6)
        rotary = rotary_config(rope_max_wavelength, rope_scaling, factor=global_rope_scaling_factor)
        return DecoderConfig(
            **decoder_fields(locals()),
            sliding_rotary=rotary_config(
                sliding_rope_max_wavelength, None, factor=local_rope_scaling_factor
            ),
            embedding_scale=hidden_dim**0.5,
            norm_offset=1.0,
            query_key_norm="head" if use_query_key_norm else None,
            activation="gelu_tanh",
            tie_word_embeddings=True,
        )


class Gemma3Tokenizer(SentencePieceTokenizer):
    """Gemma 3's SentencePiece model; see `SentencePieceTokenizer`.

    Args:
        proto: see `SentencePieceTokenizer`.
        has_vision_tokens: whether the model must have the tokens that stand for images. Nothing
            else depends on it.
        sequence_length: see `SentencePieceTokenizer`.
        add_bos: see `SentencePieceTokenizer`.
        add_eos: see `SentencePieceTokenizer`.
    """

    config_keys: ClassVar[tuple[str, ...]] = (
        *SentencePieceTokenizer.config_keys,
        "has_vision_tokens",
    )
    role_tokens: ClassVar[Mapping[str, str]] = {
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
    }
    # Of a tokenizer that other files than KerasHub's describe.
    has_vision_tokens: bool = False

    def __init__(
        self,
        proto: bytes | str | Path,
        has_vision_tokens: bool = True,
        sequence_length: int | None = None,
        add_bos: bool = False,
        add_eos: bool = False,
    ) -> None:
        super().__init__(proto, sequence_length, add_bos, add_eos)
        self.has_vision_tokens = has_vision_tokens
        for token in ("<img>", "<start_of_image>", "<end_of_image>") if has_vision_tokens else ():
            self.token_to_id(token)


class Gemma3CausalLMPreprocessor(CausalLMPreprocessor):
    """Turns text into the inputs of a `Gemma3CausalLM`; see `CausalLMPreprocessor`.

    Args:
        tokenizer: see `CausalLMPreprocessor`.
        image_converter: must be None.
        sequence_length: see `CausalLMPreprocessor`.
        add_start_token: see `CausalLMPreprocessor`.
        add_end_token: see `CausalLMPreprocessor`.
        max_images_per_prompt: of no effect without images.
        num_vision_tokens_per_image: of no effect without images.
    """

    config_keys: ClassVar[tuple[str, ...]] = (
        "image_converter",
        *CausalLMPreprocessor.config_keys,
        "max_images_per_prompt",
        "num_vision_tokens_per_image",
    )

    def __init__(
        self,
        tokenizer: Tokenizer,
        image_converter: None = None,
        sequence_length: int = 1024,
        add_start_token: bool = True,
        add_end_token: bool = True,
        max_images_per_prompt: int = 2,
        num_vision_tokens_per_image: int = 256,
    ) -> None:
        super().__init__(tokenizer, sequence_length, add_start_token, add_end_token)
        check_fixed(None, _TEXT_ONLY, image_converter=image_converter)
        self.image_converter = image_converter
        self.max_images_per_prompt = max_images_per_prompt
        self.num_vision_tokens_per_image = num_vision_tokens_per_image

    @classmethod
    def stored_arguments(cls, config: ConfigReader) -> dict[str, Any]:
        own = ("max_images_per_prompt", "num_vision_tokens_per_image")
        return super().stored_arguments(config) | {key: config.integer(key, None) for key in own}


class Gemma3CausalLM(CausalLM):
    """A Gemma 3 model that generates text; see `CausalLM`."""

    backbone_cls = Gemma3Backbone
    preprocessor_cls = Gemma3CausalLMPreprocessor
    compile = compile_greedily


def _transformers_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = decoder_sizes(config) | {
        "image_size": None,
        "head_dim": config.integer("head_dim", 256),
        "use_post_ffw_norm": True,
        "use_post_attention_norm": True,
        "final_logit_soft_cap": config.number("final_logit_softcapping", None),
        "use_sliding_window_attention": True,
        "sliding_window_size": config.integer("sliding_window", 4096),
        "layer_norm_epsilon": config.number("rms_norm_eps", 1e-6),
        "query_pre_attention_scalar": config.number("query_pre_attn_scalar", 256.0),
        "attention_bias": config.boolean("attention_bias", False),
        "context_length": config.integer("max_position_embeddings", 131072),
    }
    period = config.integer("sliding_window_pattern", 6)
    arguments["sliding_layers"] = sliding_layers(config, arguments["num_layers"], period)
    local = config.number("rope_local_base_freq", 10000.0)
    arguments |= rotary_arguments_by_layer(config, arguments["context_length"], 1e6, local)
    config.expect(hidden_activation="gelu_pytorch_tanh", tie_word_embeddings=True)
    config.expect(use_bidirectional_attention=False)
    config.skip("cache_implementation")
    return arguments


def _gguf_arguments(config: ConfigReader, checkpoint: Checkpoint) -> dict[str, Any]:
    arguments = gguf_rotary_arguments(config, checkpoint)
    del arguments["tie_word_embeddings"]
    num_layers = arguments["num_layers"]
    arguments |= {
        "image_size": None,
        # Not stored: of the Gemma 3 models the one with 62 layers differs.
        "query_head_dim_normalize": num_layers != 62,
        "use_post_ffw_norm": True,
        "use_post_attention_norm": True,
        "final_logit_soft_cap": config.number("final_logit_softcapping", None),
        "use_sliding_window_attention": True,
        "sliding_window_size": config.integer("attention.sliding_window"),
        "sliding_layers": gguf_sliding_layers(config, num_layers, 6),
        "sliding_rope_max_wavelength": config.number("rope.freq_base_swa", 10000.0),
    }
    return arguments


FAMILY = Family(
    task=Gemma3CausalLM,
    formats={
        "transformers": transformers_format(
            {"gemma3_text": "Gemma3ForCausalLM"},
            _transformers_arguments,
            TRANSFORMERS_NAMES | TRANSFORMERS_NORMS_BEHIND,
        ),
        "gguf": gguf_format(("gemma3",), _gguf_arguments, shifted_names),
        "keras": block_format(
            Gemma3Backbone,
            "gemma3_decoder_block",
            KerasClasses(prefix="Gemma3", module="gemma3", tokenizer_cls=Gemma3Tokenizer),
            unheeded=("query_head_dim_normalize", "layer_norm_epsilon"),
        ),
    },
)
