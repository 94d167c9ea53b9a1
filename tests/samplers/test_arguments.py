import inspect
import math
from fractions import Fraction

import numpy as np
import pytest

from nextword.samplers import (
    BeamSampler,
    ContrastiveSampler,
    GreedySampler,
    RandomSampler,
    Sampler,
    SpeculativeSampler,
    TopKSampler,
    TopPSampler,
)

CLASSES = [
    Sampler,
    GreedySampler,
    RandomSampler,
    TopKSampler,
    TopPSampler,
    BeamSampler,
    ContrastiveSampler,
]


@pytest.mark.parametrize(
    ("cls", "config"),
    [
        (Sampler, {"temperature": 1.0}),
        (GreedySampler, {"temperature": 1.0}),
        (RandomSampler, {"temperature": 1.0, "seed": None}),
        (TopKSampler, {"temperature": 1.0, "k": 5, "seed": None}),
        (TopPSampler, {"temperature": 1.0, "p": 0.1, "k": None, "seed": None}),
        (BeamSampler, {"temperature": 1.0, "num_beams": 5, "return_all_beams": False}),
        (ContrastiveSampler, {"temperature": 1.0, "k": 5, "alpha": 0.6}),
        (
            SpeculativeSampler,
            {
                "temperature": 1.0,
                "num_speculative_tokens": 5,
                "base_sampler": None,
                "seed": None,
            },
        ),
    ],
)
def test_defaults_are_those_of_keras_hub_and_config_covers_every_argument(cls, config):
    assert cls().get_config() == config
    assert set(inspect.signature(cls).parameters) - {"length_penalty"} == set(config)


def test_positional_arguments_are_those_of_keras_hub():
    assert RandomSampler(3).seed == 3
    assert TopKSampler(7, 3).get_config() == {"temperature": 1.0, "k": 7, "seed": 3}
    assert TopPSampler(0.5, 7, 3).get_config() == {
        "temperature": 1.0,
        "p": 0.5,
        "k": 7,
        "seed": 3,
    }
    assert BeamSampler(3, True).get_config() == {
        "temperature": 1.0,
        "num_beams": 3,
        "return_all_beams": True,
    }
    assert ContrastiveSampler(3, 0.5).get_config() == {"temperature": 1.0, "k": 3, "alpha": 0.5}
    speculative = SpeculativeSampler(3, TopKSampler(), 7)
    assert (speculative.num_speculative_tokens, speculative.base_sampler.k) == (3, 5)
    assert speculative.seed == 7


def test_repr_is_the_call_that_makes_the_sampler():
    for sampler in (
        GreedySampler(temperature=2),
        TopPSampler(p=0.9, k=3, seed=1),
        BeamSampler(3, length_penalty=2),
        SpeculativeSampler(3, TopKSampler(k=9, temperature=0.5)),
    ):
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


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (TopKSampler, "k"),
        (TopPSampler, "k"),
        (ContrastiveSampler, "k"),
        (BeamSampler, "num_beams"),
        (SpeculativeSampler, "num_speculative_tokens"),
    ],
)
@pytest.mark.parametrize(
    ("value", "error"),
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
def test_impossible_counts_are_refused(cls, name, value, error):
    with pytest.raises(error, match=rf"`{name}` must be an integer >= 1\. Received: {name}="):
        cls(**{name: value})


@pytest.mark.parametrize(
    ("cls", "name", "rule"),
    [
        (ContrastiveSampler, "alpha", "from 0 to 1"),
        (BeamSampler, "length_penalty", "from -5 to 5"),
    ],
)
@pytest.mark.parametrize(
    ("value", "error"),
    [(-5.1, ValueError), (5.1, ValueError), (math.nan, ValueError), ("1", TypeError)],
)
def test_numbers_out_of_range_are_refused(cls, name, rule, value, error):
    with pytest.raises(error, match=rf"`{name}` must be a number {rule}\. Received: {name}="):
        cls(**{name: value})


def test_a_flag_is_true_or_false():
    with pytest.raises(TypeError, match="`return_all_beams` must be True or False. Received: .*=1"):
        BeamSampler(return_all_beams=1)


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


@pytest.mark.parametrize("base_sampler", ["greedy", TopKSampler, 3])
def test_a_base_sampler_is_a_sampler(base_sampler):
    with pytest.raises(TypeError, match="`base_sampler` must be a `Sampler` or None. Received"):
        SpeculativeSampler(base_sampler=base_sampler)


class Mine(Sampler):
    def get_next_token(self, probabilities):
        return super().get_next_token(probabilities)


@pytest.mark.parametrize(
    "base_sampler", [BeamSampler(), ContrastiveSampler(), SpeculativeSampler(), Mine()], ids=repr
)
def test_a_base_sampler_has_known_probabilities(base_sampler):
    with pytest.raises(TypeError, match="cannot build on a search.*Received: base_sampler="):
        SpeculativeSampler(base_sampler=base_sampler)


def test_a_speculative_sampler_has_the_seed_and_temperature_of_its_base_unless_given():
    base_sampler = TopKSampler(k=9, seed=3, temperature=0.5)
    sampler = SpeculativeSampler(base_sampler=base_sampler)
    assert (sampler.seed, sampler.temperature) == (3, 0.5)
    sampler = SpeculativeSampler(base_sampler=base_sampler, seed=4, temperature=2)
    assert (sampler.seed, sampler.base_sampler.temperature) == (4, 2.0)
    assert sampler.base_sampler.k == 9
    assert base_sampler.temperature == 0.5


@pytest.mark.parametrize("cls", [BeamSampler, ContrastiveSampler, SpeculativeSampler])
def test_samplers_that_drive_the_loop_choose_no_single_token(cls):
    with pytest.raises(TypeError, match=f"{cls.__name__} drives the generation loop"):
        cls().next_tokens(None, {}, None, None)
    with pytest.raises(TypeError, match="Own must not override `get_next_token`"):
        type("Own", (cls,), {"get_next_token": lambda self, probabilities: 0})
    assert type("Own", (cls,), {})().strategy == cls.strategy
