import inspect
import math
from fractions import Fraction

import numpy as np
import pytest

from nextword.samplers import GreedySampler, RandomSampler, Sampler, TopKSampler, TopPSampler

CLASSES = [Sampler, GreedySampler, RandomSampler, TopKSampler, TopPSampler]


@pytest.mark.parametrize(
    ("cls", "config"),
    [
        (Sampler, {"temperature": 1.0}),
        (GreedySampler, {"temperature": 1.0}),
        (RandomSampler, {"temperature": 1.0, "seed": None}),
        (TopKSampler, {"temperature": 1.0, "k": 5, "seed": None}),
        (TopPSampler, {"temperature": 1.0, "p": 0.1, "k": None, "seed": None}),
    ],
)
def test_defaults_are_those_of_keras_hub_and_config_covers_every_argument(cls, config):
    assert cls().get_config() == config
    assert set(inspect.signature(cls).parameters) == set(config)


def test_positional_arguments_are_those_of_keras_hub():
    assert RandomSampler(3).seed == 3
    assert TopKSampler(7, 3).get_config() == {"temperature": 1.0, "k": 7, "seed": 3}
    assert TopPSampler(0.5, 7, 3).get_config() == {
        "temperature": 1.0,
        "p": 0.5,
        "k": 7,
        "seed": 3,
    }


def test_repr_is_the_call_that_makes_the_sampler():
    for sampler in (GreedySampler(temperature=2), TopPSampler(p=0.9, k=3, seed=1)):
        assert eval(repr(sampler)).get_config() == sampler.get_config()


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    ("temperature", "error"),
    [
        (-1, ValueError),
        (-1e-320, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (1e39, ValueError),
        (10**400, ValueError),
        ("1", TypeError),
        (True, TypeError),
        (None, TypeError),
        ([1.0], TypeError),
        (1j, TypeError),
    ],
)
def test_impossible_temperatures_are_refused(cls, temperature, error):
    with pytest.raises(error, match=r"`temperature` must be .* >= 0.* Received: temperature="):
        cls(temperature=temperature)


@pytest.mark.parametrize("cls", [TopKSampler, TopPSampler])
@pytest.mark.parametrize(
    ("k", "error"),
    [
        (0, ValueError),
        (-3, ValueError),
        (2.5, TypeError),
        (5.0, TypeError),
        ("5", TypeError),
        (True, TypeError),
        (math.nan, TypeError),
    ],
)
def test_impossible_k_are_refused(cls, k, error):
    with pytest.raises(error, match=r"`k` must be an integer >= 1\. Received: k="):
        cls(k=k)


@pytest.mark.parametrize(
    ("p", "error"),
    [
        (0, ValueError),
        (-0.1, ValueError),
        (1.0000001, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        ("0.5", TypeError),
        (True, TypeError),
        (None, TypeError),
    ],
)
def test_impossible_p_are_refused(p, error):
    with pytest.raises(error, match=r"`p` must be .* at most 1\. Received: p="):
        TopPSampler(p=p)


@pytest.mark.parametrize("cls", [RandomSampler, TopKSampler, TopPSampler])
@pytest.mark.parametrize(
    ("seed", "error"),
    [(-1, ValueError), (2**63, ValueError), (1.0, TypeError), ("x", TypeError), (True, TypeError)],
)
def test_impossible_seeds_are_refused(cls, seed, error):
    with pytest.raises(error, match=r"`seed` must be None or an integer .* Received: seed="):
        cls(seed=seed)


def test_the_sentence_names_what_was_received_and_stays_short():
    with pytest.raises(ValueError, match=r"Received: k=-3\.$"):
        TopKSampler(k=-3)
    with pytest.raises(TypeError) as info:
        TopKSampler(k="3" * 10**6)
    assert len(str(info.value)) < 200


def test_numbers_of_other_kinds_become_python_numbers():
    sampler = TopPSampler(
        p=np.float32(0.5), k=np.int64(3), seed=np.uint32(7), temperature=Fraction(1, 2)
    )
    config = sampler.get_config()
    assert config == {"temperature": 0.5, "p": 0.5, "k": 3, "seed": 7}
    assert [type(value) for value in config.values()] == [float, float, int, int]


def test_largest_values_are_accepted():
    assert RandomSampler(seed=2**63 - 1, temperature=3.4e38).seed == 2**63 - 1
    assert TopKSampler(k=10**12).k == 10**12
    assert TopPSampler(p=1).p == 1.0
