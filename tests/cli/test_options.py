"""The sampling options describe one sampler, the library's own."""

import inspect
import re

import pytest

from nextword import samplers
from nextword.cli import options
from nextword.cli.options import SamplerName, SamplerOptions


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "greedy"),
        ({"seed": 3}, "greedy"),
        ({"temperature": 0.7}, "random"),
        ({"top_k": 3}, "top_k"),
        ({"top_p": 0.9}, "top_p"),
        ({"top_p": 0.9, "top_k": 3, "temperature": 0.5}, "top_p"),
        ({"name": SamplerName.GREEDY, "seed": 3}, "greedy"),
        ({"name": SamplerName.TOP_P, "top_k": 3}, "top_p"),
    ],
)
def test_the_options_choose_the_sampler(given, name):
    assert SamplerOptions(**given).choice() == name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, samplers.GreedySampler()),
        ({"temperature": 0.7, "seed": 1}, samplers.RandomSampler(temperature=0.7, seed=1)),
        ({"name": SamplerName.TOP_K}, samplers.TopKSampler()),
        ({"top_k": 7, "seed": 1}, samplers.TopKSampler(k=7, seed=1)),
        ({"name": SamplerName.TOP_P}, samplers.TopPSampler()),
        ({"top_p": 0.9, "top_k": 7}, samplers.TopPSampler(p=0.9, k=7)),
    ],
)
def test_the_sampler_is_the_library_s(given, expected):
    sampler = SamplerOptions(**given).build()
    assert samplers.serialize(sampler) == samplers.serialize(expected)


@pytest.mark.parametrize(
    ("option", "sampler", "argument"),
    [
        (options.TopK, samplers.TopKSampler, "k"),
        (options.TopP, samplers.TopPSampler, "p"),
        (options.Temperature, samplers.RandomSampler, "temperature"),
    ],
)
def test_the_help_states_the_sampler_s_own_default(option, sampler, argument):
    shown = re.match(r"[\d.]+", option.__metadata__[0].show_default)[0]
    assert float(shown) == sampler(**{}).get_config()[argument]
    assert inspect.signature(sampler).parameters
