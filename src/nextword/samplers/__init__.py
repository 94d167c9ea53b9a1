"""Samplers: how the next token is chosen from the model's logits.

A sampler knows nothing about models, text or the generation loop. The names, arguments and
defaults are KerasHub's.
"""

from nextword.samplers.beam_sampler import BeamSampler
from nextword.samplers.contrastive_sampler import ContrastiveSampler
from nextword.samplers.greedy_sampler import GreedySampler
from nextword.samplers.random_sampler import RandomSampler
from nextword.samplers.sampler import Sampler
from nextword.samplers.serialization import deserialize, get, serialize
from nextword.samplers.speculative_sampler import SpeculativeSampler
from nextword.samplers.top_k_sampler import TopKSampler
from nextword.samplers.top_p_sampler import TopPSampler

__all__ = [
    "BeamSampler",
    "ContrastiveSampler",
    "GreedySampler",
    "RandomSampler",
    "Sampler",
    "SpeculativeSampler",
    "TopKSampler",
    "TopPSampler",
    "deserialize",
    "get",
    "serialize",
]
