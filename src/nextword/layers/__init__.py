"""The one decoder: its description and its Keras layers."""

from nextword.layers.attention import Attention, LayerCache
from nextword.layers.config import Activation, DecoderConfig
from nextword.layers.embedding import PositionEmbedding, TokenEmbedding
from nextword.layers.experts import Experts
from nextword.layers.experts_config import ExpertsConfig, expert_layers
from nextword.layers.feed_forward import FeedForward
from nextword.layers.latent_config import LatentConfig
from nextword.layers.layer import Layer, WeightSource, initialize_from
from nextword.layers.layer_stack import apply_layers
from nextword.layers.linear import Linear
from nextword.layers.matrix import (
    Accepts,
    Held,
    LowRankUpdate,
    Matrix,
    MatrixSource,
    held_as,
    part_path,
    rows_shape,
)
from nextword.layers.normalization import Normalization, norm_layer
from nextword.layers.rotary_config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    PairScaling,
    RotaryConfig,
    RotaryScaling,
    YarnScaling,
    rotary_config,
    rotary_scaling,
    yarn_magnitude,
)
from nextword.layers.rotary_embedding import RotaryEmbedding
from nextword.layers.transformer_layer import TransformerLayer

__all__ = [
    "Accepts",
    "Activation",
    "Attention",
    "DecoderConfig",
    "DynamicScaling",
    "Experts",
    "ExpertsConfig",
    "FeedForward",
    "Held",
    "LatentConfig",
    "Layer",
    "LayerCache",
    "Linear",
    "LinearScaling",
    "Llama3Scaling",
    "LongRopeScaling",
    "LowRankUpdate",
    "Matrix",
    "MatrixSource",
    "Normalization",
    "PairScaling",
    "PositionEmbedding",
    "RotaryConfig",
    "RotaryEmbedding",
    "RotaryScaling",
    "TokenEmbedding",
    "TransformerLayer",
    "WeightSource",
    "YarnScaling",
    "apply_layers",
    "expert_layers",
    "held_as",
    "initialize_from",
    "norm_layer",
    "part_path",
    "rotary_config",
    "rotary_scaling",
    "rows_shape",
    "yarn_magnitude",
]
