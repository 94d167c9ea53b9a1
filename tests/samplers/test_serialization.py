import json

import keras
import pytest

from nextword import samplers
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

NAMES = {
    "beam": BeamSampler,
    "contrastive": ContrastiveSampler,
    "greedy": GreedySampler,
    "random": RandomSampler,
    "speculative": SpeculativeSampler,
    "top_k": TopKSampler,
    "top_p": TopPSampler,
}


class Mine(TopKSampler):
    def __init__(self, bonus=0, **kwargs):
        super().__init__(**kwargs)
        self.bonus = bonus

    def get_config(self):
        return {**super().get_config(), "bonus": self.bonus}


@pytest.mark.parametrize(("name", "cls"), NAMES.items())
def test_get_takes_names_classes_and_samplers(name, cls):
    for identifier in (name, cls, cls.__name__, f"keras_hub>{cls.__name__}"):
        sampler = samplers.get(identifier)
        assert type(sampler) is cls
        assert sampler.get_config() == cls().get_config()
    assert samplers.get(sampler) is sampler


def test_get_of_none_is_none():
    assert samplers.get(None) is None


@pytest.mark.parametrize(
    "class_name",
    ["TopPSampler", "top_p", "keras_hub>TopPSampler", "keras_nlp>TopPSampler"],
)
def test_get_takes_configurations_of_keras_hub(class_name):
    sampler = samplers.get({"class_name": class_name, "config": {"p": 0.5, "temperature": 2}})
    assert type(sampler) is TopPSampler
    assert (sampler.p, sampler.temperature) == (0.5, 2.0)
    assert type(samplers.get({"class_name": class_name})) is TopPSampler


def test_serialize_writes_what_keras_hub_reads():
    assert samplers.serialize(TopKSampler(k=3, seed=1)) == {
        "module": "keras_hub.samplers",
        "class_name": "TopKSampler",
        "config": {"temperature": 1.0, "k": 3, "seed": 1},
        "registered_name": "keras_hub>TopKSampler",
    }


def test_deserialize_reads_what_keras_hub_writes():
    sampler = samplers.deserialize(
        {
            "module": "keras_hub.src.samplers.top_k_sampler",
            "class_name": "TopKSampler",
            "config": {"temperature": 1.0, "k": 3, "seed": 1},
            "registered_name": "keras_hub>TopKSampler",
        }
    )
    assert type(sampler) is TopKSampler
    assert sampler.get_config() == {"temperature": 1.0, "k": 3, "seed": 1}


@pytest.mark.parametrize(
    "sampler",
    [
        GreedySampler(temperature=0.5),
        RandomSampler(seed=2**63 - 1),
        TopKSampler(k=7, seed=0, temperature=0),
        TopPSampler(p=0.25, k=9, seed=4, temperature=3),
        BeamSampler(3, True, temperature=2, length_penalty=0.5),
        ContrastiveSampler(k=7, alpha=0.25, temperature=2),
        SpeculativeSampler(3, seed=4, temperature=2),
        SpeculativeSampler(3, TopPSampler(p=0.5, temperature=2), seed=4),
    ],
    ids=repr,
)
def test_every_argument_survives_a_round_trip_through_json(sampler):
    restored = samplers.deserialize(json.loads(json.dumps(samplers.serialize(sampler))))
    assert type(restored) is type(sampler)
    assert restored.get_config() == sampler.get_config()


def keras_hub_samplers():
    return pytest.importorskip("keras_hub").samplers


@pytest.mark.parametrize(
    "sampler",
    [
        GreedySampler(temperature=0.5),
        TopPSampler(p=0.25, k=9, seed=4, temperature=3),
        BeamSampler(3, True, temperature=2),
        ContrastiveSampler(k=7, alpha=0.25),
        SpeculativeSampler(3, seed=4, temperature=2),
        SpeculativeSampler(3, TopKSampler(k=9, temperature=2, seed=4)),
    ],
    ids=repr,
)
def test_keras_hub_and_we_read_what_the_other_writes(sampler):
    theirs = keras_hub_samplers()
    read = theirs.deserialize(json.loads(json.dumps(samplers.serialize(sampler))))
    assert type(read) is getattr(theirs, type(sampler).__name__)
    assert read.temperature == sampler.temperature
    assert vars(read).items() >= sampler.get_config().items()
    again = samplers.deserialize(json.loads(json.dumps(theirs.serialize(made_by(theirs, sampler)))))
    assert type(again) is type(sampler)
    assert again.get_config() == sampler.get_config()


def made_by(theirs, sampler):
    """Return KerasHub's sampler with the arguments of one of ours."""
    config = sampler.get_config()
    if config.get("base_sampler"):
        config["base_sampler"] = made_by(theirs, sampler.base_sampler)
    return getattr(theirs, type(sampler).__name__)(**config)


def test_a_length_penalty_is_written_only_where_keras_hub_would_not_do_without():
    assert "length_penalty" not in BeamSampler().get_config()
    config = samplers.serialize(BeamSampler(length_penalty=2))
    assert samplers.deserialize(config).length_penalty == 2
    with pytest.raises(TypeError, match="length_penalty"):
        keras_hub_samplers().deserialize(config)


def test_a_base_sampler_of_a_users_class_comes_back_too():
    config = samplers.serialize(SpeculativeSampler(base_sampler=Mine(bonus=2)))
    restored = samplers.deserialize(config, custom_objects={"Mine": Mine})
    assert restored.base_sampler.get_config() == Mine(bonus=2).get_config()
    with pytest.raises(ValueError, match="Unknown sampler 'Custom>Mine'"):
        samplers.deserialize(config)


def test_base_samplers_do_not_nest():
    config = {"class_name": "TopKSampler"}
    for _ in range(3000):
        config = {"class_name": "SpeculativeSampler", "config": {"base_sampler": config}}
    with pytest.raises(ValueError, match="must not have one itself"):
        samplers.deserialize(config)


def test_a_users_class_needs_custom_objects_to_come_back():
    config = json.loads(json.dumps(samplers.serialize(Mine(bonus=2, k=9))))
    restored = samplers.deserialize(config, custom_objects={"Mine": Mine})
    assert type(restored) is Mine
    assert restored.get_config() == Mine(bonus=2, k=9).get_config()
    with pytest.raises(ValueError, match="Unknown sampler 'Custom>Mine'"):
        samplers.deserialize(config)


def test_a_users_class_that_keras_knows_comes_back():
    config = samplers.serialize(Mine(bonus=2))
    with keras.saving.CustomObjectScope({"Mine": Mine}):
        assert samplers.get(config).get_config() == Mine(bonus=2).get_config()
    with keras.saving.CustomObjectScope({"Mine": dict}), pytest.raises(ValueError, match="Unknown"):
        samplers.get(config)
    with keras.saving.CustomObjectScope({}):
        registered = keras.saving.register_keras_serializable("tests", "Registered")(
            type("Registered", (Mine,), {})
        )
        config = samplers.serialize(registered(bonus=3))
        assert config["registered_name"] == "tests>Registered"
        assert type(samplers.get(config)) is registered


def test_a_users_class_with_one_of_our_names_is_not_ours():
    impostor = type("TopKSampler", (Sampler,), {})
    config = samplers.serialize(impostor())
    assert config["registered_name"] == "Custom>TopKSampler"
    with pytest.raises(ValueError, match="Unknown sampler"):
        samplers.deserialize(config)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("foo", r"Unknown sampler 'foo'\. Known samplers: 'beam', .*, 'top_k', 'top_p'\."),
        ("gredy", r"Did you mean 'greedy'\?"),
        ("top-k", r"Did you mean 'top_k'"),
        ("TopSampler", r"Did you mean .*'TopKSampler'"),
        ("", "Unknown sampler ''"),
        ("other>TopKSampler", "Unknown sampler 'other>TopKSampler'"),
        ("x" * 10**6, "Unknown sampler 'xxx"),
    ],
)
def test_unknown_names_are_refused_with_near_matches(name, hint):
    for identifier in (name, {"class_name": name, "config": {}}):
        with pytest.raises(ValueError, match=hint) as info:
            samplers.get(identifier)
        assert len(str(info.value)) < 300


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"config": {}},
        {"class_name": None},
        {"class_name": ["TopKSampler"]},
        {"class_name": "TopKSampler", "config": [1]},
        {"class_name": "TopKSampler", "config": "k=1"},
        {"class_name": "TopKSampler", "registered_name": 3},
        {"class_name": "TopKSampler", "build_from": "x"},
        {"class_name": "TopKSampler", 3: 4},
        {"module": "builtins", "class_name": "eval", "config": {"source": "1"}},
        {"module": "os", "class_name": "system", "config": {"command": "true"}},
        {"module": "keras", "class_name": "TopKSampler", "registered_name": "keras>Lambda"},
    ],
)
def test_configurations_that_are_not_a_samplers_are_refused(config):
    with pytest.raises(ValueError, match=r"Received:|Unknown sampler"):
        samplers.get(config)


@pytest.mark.parametrize("config", [{"k": 3, "top": 4}, {"temprature": 1}])
def test_unknown_arguments_in_a_configuration_are_refused(config):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        samplers.get({"class_name": "TopKSampler", "config": config})


def test_arguments_in_a_configuration_are_checked():
    with pytest.raises(ValueError, match=r"Received: k=-3\."):
        samplers.get({"class_name": "TopKSampler", "config": {"k": -3}})


@pytest.mark.parametrize("identifier", [3, 1.5, [], object, print, lambda logits: 0, b"greedy"])
def test_other_things_are_not_samplers(identifier):
    with pytest.raises(TypeError, match="A sampler must be a name"):
        samplers.get(identifier)


def test_serialize_refuses_other_things():
    with pytest.raises(TypeError, match="Received: sampler='greedy'"):
        samplers.serialize("greedy")
