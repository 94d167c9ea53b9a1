"""Classifiers move between KerasHub and nextword, with their heads or without."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import nextword
from keras_presets import assert_same_weights
from nextword.presets import PresetError
from tiny_bert import SIZES, TEXTS, classifier, keras_hub_classifier, redraw

PAIRS = (TEXTS, TEXTS[::-1])
TextClassifier = nextword.models.TextClassifier


def logits(model: Any, x: Any = PAIRS) -> np.ndarray:
    """Return what a model of either library says of raw text."""
    return np.asarray(model(model.preprocessor(x=x))).astype("float32")


def assert_close(one: Any, other: Any) -> None:
    assert np.abs(logits(other)).max() > 0.5  # the comparison says something
    np.testing.assert_allclose(logits(one), logits(other), rtol=0, atol=1e-5)


def same_head(one: Any, other: Any) -> bool:
    layers = (model.get_layer("logits") for model in (one, other))
    (kernel, bias), (other_kernel, other_bias) = (layer.get_weights() for layer in layers)
    return np.array_equal(kernel, other_kernel) and np.array_equal(bias, other_bias)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved")
    classifier(activation="softmax", dropout=0.25).save_to_preset(directory)
    return directory


@pytest.fixture
def preset(saved: Path, tmp_path: Path) -> Path:
    """A preset of a classifier, to be changed at will."""
    return shutil.copytree(saved, tmp_path / "preset")


def edit(path: Path, **changes: Any) -> None:
    stored = json.loads(path.read_text())
    stored["config"] |= changes
    path.write_text(json.dumps(stored))


# KerasHub looks for the state of the optimizer beside the head, where nextword keeps none.
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
@pytest.mark.parametrize(
    ("dtype", "size"), [("float32", None), ("bfloat16", None), ("bfloat16", 1000 / 2**30)]
)
def test_there_and_back(tmp_path: Path, dtype: str, size: float | None) -> None:
    keras_hub = pytest.importorskip("keras_hub")
    theirs = keras_hub_classifier(dtype=dtype)
    theirs.save_to_preset(str(tmp_path / "theirs"), max_shard_size=size or 10)
    ours = TextClassifier.from_preset(tmp_path / "theirs")
    assert type(ours) is nextword.models.BertTextClassifier
    assert {weight.dtype for weight in ours.weights} == {dtype}
    ours.save_to_preset(tmp_path / "ours", max_shard_size=size)
    assert (tmp_path / "ours" / "model.weights.json").exists() == (size is not None)

    back = keras_hub.models.TextClassifier.from_preset(str(tmp_path / "ours"), dtype=dtype)
    assert_same_weights(back, theirs)
    again = TextClassifier.from_preset(tmp_path / "ours")
    assert_same_weights(again, ours)
    if dtype == "float32":
        assert_close(ours, theirs)
    else:  # the order of additions differs, so compare what the same weights give in float32
        precise = TextClassifier.from_preset(tmp_path / "theirs", dtype="float32")
        assert_close(precise, keras_hub.models.TextClassifier.from_preset(str(tmp_path / "ours")))


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_predictions_on_raw_strings_are_theirs(tmp_path: Path, saved: Path) -> None:
    keras_hub = pytest.importorskip("keras_hub")
    theirs = keras_hub.models.TextClassifier.from_preset(str(saved))
    ours = TextClassifier.from_preset(saved)
    assert (ours.num_classes, ours.dropout) == (theirs.num_classes, theirs.dropout) == (3, 0.25)
    assert ours.activation is theirs.activation is keras.activations.softmax
    expected = theirs.predict(TEXTS, verbose=0)
    np.testing.assert_allclose(ours.predict(TEXTS, verbose=0), expected, atol=1e-6)


def test_our_files_hold_what_theirs_do(tmp_path: Path, saved: Path) -> None:
    pytest.importorskip("keras_hub")
    theirs = keras_hub_classifier(activation="softmax", dropout=0.25)
    theirs.save_to_preset(str(tmp_path))
    for filename in ("config.json", "task.json", "preprocessor.json", "tokenizer.json"):
        expected = json.loads((tmp_path / filename).read_text())
        found = json.loads((saved / filename).read_text())
        _assert_holds(found, expected, filename)
    assert json.loads((saved / "metadata.json").read_text())["tasks"] == ["TextClassifier"]
    for filename in ("model.weights.h5", "task.weights.h5"):
        expected, found = _shapes(tmp_path / filename), _shapes(saved / filename)
        assert found == {k: v for k, v in expected.items() if not k.startswith("optimizer/")}


def _assert_holds(found: Any, expected: Any, where: str) -> None:
    if isinstance(expected, dict):
        assert expected.keys() <= found.keys(), where
        for key in expected.keys() - {"name", "special_tokens"}:
            _assert_holds(found[key], expected[key], f"{where}/{key}")
    else:
        assert found == expected, where


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    found = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item.shape

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def test_a_preset_under_its_old_names(preset: Path) -> None:
    expected = logits(TextClassifier.from_preset(preset))
    for path in preset.glob("*.json"):
        text = path.read_text().replace("BertTextClassifierPreprocessor", "BertPreprocessor")
        text = text.replace("BertTextClassifier", "BertClassifier")
        path.write_text(text.replace("keras_hub", "keras_nlp"))
    edit(preset / "preprocessor.json", sequence_length=14, truncate="waterfall")
    old = nextword.models.BertClassifier.from_preset(preset)
    assert (old.preprocessor.sequence_length, old.preprocessor.truncate) == (14, "waterfall")
    old.preprocessor.sequence_length = 12
    old.preprocessor.truncate = "round_robin"
    np.testing.assert_array_equal(logits(old), expected)
    old.save_to_preset(preset)  # an earlier save of the same model
    assert "BertTextClassifier" in (preset / "task.json").read_text()


def test_num_classes_asks_for_a_new_head(preset: Path) -> None:
    stored = TextClassifier.from_preset(preset)
    new = TextClassifier.from_preset(preset, num_classes=3)
    assert_same_weights(new.backbone, stored.backbone)
    assert not same_head(new, stored)
    assert (new.activation, new.dropout) == (stored.activation, stored.dropout)
    other = TextClassifier.from_preset(preset, num_classes=7, activation=None, dropout=0.0)
    assert other.predict(TEXTS, verbose=0).shape == (4, 7)
    assert other.activation is keras.activations.linear
    assert (other.dropout, other.loss.get_config()["from_logits"]) == (0.0, True)


def test_other_arguments_keep_the_head(preset: Path) -> None:
    stored = TextClassifier.from_preset(preset)
    other = TextClassifier.from_preset(
        preset, activation="linear", sequence_length=9, name="mine", dtype="bfloat16"
    )
    assert same_head(
        TextClassifier.from_preset(preset, activation="linear", preprocessor=None), stored
    )
    assert other.get_layer("logits").weights[0].dtype == "bfloat16"
    assert (other.name, other.preprocessor.sequence_length) == ("mine", 9)
    random = TextClassifier.from_preset(preset, load_weights=False)
    assert random.num_classes == 3
    assert not same_head(random, stored)


def test_a_backbone_alone_has_no_head(tmp_path: Path) -> None:
    model = classifier()
    model.preprocessor.save_to_preset(tmp_path)
    model.backbone.save_to_preset(tmp_path)
    with pytest.raises(PresetError, match="holds no head of a BertTextClassifier. Pass `num_cl"):
        TextClassifier.from_preset(tmp_path)
    whole = TextClassifier.from_preset(tmp_path, num_classes=2)
    assert whole.predict(TEXTS, verbose=0).shape == (4, 2)
    assert whole.preprocessor.sequence_length == model.preprocessor.sequence_length


@pytest.mark.parametrize("kind", ["MaskedLM", "TextEmbedder"])
def test_presets_of_other_tasks_have_no_head(tmp_path: Path, kind: str) -> None:
    keras_hub = pytest.importorskip("keras_hub")
    theirs = keras_hub_classifier()
    other = getattr(keras_hub.models, f"Bert{kind}")
    preprocessor = other.preprocessor_cls(theirs.preprocessor.tokenizer, sequence_length=7)
    other(theirs.backbone, preprocessor).save_to_preset(str(tmp_path))
    with pytest.raises(PresetError, match="holds no head of a BertTextClassifier"):
        TextClassifier.from_preset(tmp_path)
    ours = TextClassifier.from_preset(tmp_path, num_classes=2)
    assert ours.preprocessor.sequence_length == 512  # the other's is its own
    assert_same_weights_of_backbones(ours, theirs)


def assert_same_weights_of_backbones(ours: Any, theirs: Any) -> None:
    x = theirs.preprocessor(TEXTS)
    one, other = ours.backbone(x), theirs.backbone(x)
    np.testing.assert_allclose(one["pooled_output"], other["pooled_output"], atol=1e-5)


def test_each_part_loads_alone(preset: Path) -> None:
    model = TextClassifier.from_preset(preset)
    models = nextword.models
    assert type(models.TextClassifierPreprocessor.from_preset(preset)) is (
        models.BertTextClassifierPreprocessor
    )
    assert type(models.BertTokenizer.from_preset(preset)) is models.BertTokenizer
    assert_same_weights(models.Backbone.from_preset(preset), model.backbone)
    assert type(models.Task.from_preset(preset)) is models.BertTextClassifier


def test_task_weights(tmp_path: Path) -> None:
    model, other = classifier(), classifier()
    path = tmp_path / "task.weights.h5"
    assert model.has_task_weights()
    model.save_task_weights(path)
    for weight in other.weights:
        weight.assign(np.zeros(weight.shape))
    other.load_task_weights(path)
    assert same_head(other, model)
    assert not np.any(other.backbone.get_weights()[0])
    before = other.get_weights()
    for wrong in (classifier(num_classes=4), _without_bias(path)):
        if wrong is not None:
            wrong.save_task_weights(path)
        with pytest.raises(PresetError, match=r"layers/dense/vars/[01]"):
            other.load_task_weights(path)
        for one, another in zip(before, other.get_weights(), strict=True):
            np.testing.assert_array_equal(one, another)


def _without_bias(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["layers/dense/vars/1"]


@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_task_weights_of_keras_hub(tmp_path: Path) -> None:
    pytest.importorskip("keras_hub")
    theirs, ours = keras_hub_classifier(), classifier()
    theirs.train_on_batch(TEXTS, np.zeros(4))  # the optimizer has a state
    theirs.save_task_weights(str(tmp_path / "theirs.weights.h5"))
    ours.load_task_weights(tmp_path / "theirs.weights.h5")
    kernel, bias = theirs.get_layer("logits").get_weights()
    np.testing.assert_array_equal(ours.get_layer("logits").get_weights()[0], kernel.T)
    np.testing.assert_array_equal(ours.get_layer("logits").get_weights()[1], bias)
    ours.save_task_weights(tmp_path / "ours.weights.h5")
    other = keras_hub_classifier()
    other.load_task_weights(str(tmp_path / "ours.weights.h5"))
    np.testing.assert_array_equal(other.get_layer("logits").get_weights()[0], kernel)


def test_adapters_of_keras_hub(tmp_path: Path) -> None:
    pytest.importorskip("keras_hub")
    theirs = keras_hub_classifier()
    theirs.save_to_preset(str(tmp_path / "preset"))
    theirs.backbone.enable_lora(2, ["query", "attention_output", "pooled_dense"])
    adapters = [weight for weight in theirs.backbone.trainable_variables if "lora" in weight.path]
    assert len(adapters) == 6
    redraw(adapters, seed=5)
    theirs.backbone.save_lora_weights(str(tmp_path / "theirs.lora.h5"))
    ours = TextClassifier.from_preset(tmp_path / "preset")
    before = logits(ours)
    ours.backbone.load_lora_weights(tmp_path / "theirs.lora.h5")
    assert np.abs(logits(ours) - before).max() > 0.1
    assert_close(ours, theirs)
    assert all(weight.trainable for weight in ours.get_layer("logits").weights)


# Keras warns of every layer that it cannot round.
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize:UserWarning")
@pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")
def test_int8(tmp_path: Path) -> None:
    keras_hub = pytest.importorskip("keras_hub")
    theirs = keras_hub_classifier()
    theirs.save_to_preset(str(tmp_path / "floats"))
    ours = TextClassifier.from_preset(tmp_path / "floats")
    before = logits(ours)
    theirs.backbone.quantize("int8", filters=lambda layer: bool(layer.weights))
    ours.quantize("int8")
    assert np.abs(logits(ours) - before).max() > 1e-3
    assert_close(ours, theirs)
    theirs.save_to_preset(str(tmp_path / "theirs"))
    read = TextClassifier.from_preset(tmp_path / "theirs")
    np.testing.assert_array_equal(logits(read), logits(ours))
    ours.save_to_preset(tmp_path / "ours")
    assert_close(ours, keras_hub.models.TextClassifier.from_preset(str(tmp_path / "ours")))


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (TextClassifier, {"num_clases": 2}, "'num_clases'. Did you mean 'num_classes'"),
        (TextClassifier, {"dropuot": 0.1}, "Did you mean 'dropout'"),
        (nextword.models.CausalLM, {"num_classes": 2}, "has no argument 'num_classes'"),
        (nextword.models.TextClassifierPreprocessor, {"truncat": "x"}, "Did you mean 'truncate'"),
    ],
)
def test_unknown_arguments(tmp_path: Path, cls: Any, arguments: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        cls.from_preset(tmp_path / "not there", **arguments)


def test_models_for_another_task(preset: Path, tmp_path: Path) -> None:
    with pytest.raises(
        PresetError,
        match=r"holds a BertTextClassifier, which is no CausalLM. Load it with "
        r"BertTextClassifier.from_preset or TextClassifier.from_preset",
    ):
        nextword.models.CausalLM.from_preset(preset)
    nextword.models.GPT2Backbone(**SIZES).save_to_preset(tmp_path / "gpt2")
    with pytest.raises(
        PresetError,
        match=r"holds a GPT2CausalLM, which is no TextClassifier. Load it with "
        r"GPT2CausalLM.from_preset or CausalLM.from_preset",
    ):
        TextClassifier.from_preset(tmp_path / "gpt2", num_classes=2)


@pytest.mark.parametrize(
    ("filename", "changes", "message"),
    [
        ("task.json", {"num_classes": 4}, r"'layers/dense/vars/0'.*\(4, 8\).*\(3, 8\)"),
        ("task.json", {"num_classes": 2**40}, "'num_classes'.*an integer from 1 to"),
        ("task.json", {"num_classes": "3"}, "'num_classes'.*Received: '3'"),
        ("task.json", {"num_classes": None}, "lacks the key 'num_classes'"),
        ("task.json", {"activation": "os.system"}, "'activation'.*Received: 'os.system'"),
        ("task.json", {"activation": {"module": "os"}}, "'activation'.*Received: {'module'"),
        ("task.json", {"dropout": 7}, "'dropout'.*a number in"),
        ("preprocessor.json", {"truncate": "cut"}, "'truncate'.*'round_robin' or 'waterfall'"),
        ("preprocessor.json", {"sequence_length": 0}, "'sequence_length'.*Received: 0"),
        ("config.json", {"num_segments": -2}, "'num_segments'.*Received: -2"),
        ("config.json", {"activation": "os.system"}, "'activation'.*Received: 'os.system'"),
        ("tokenizer.json", {"lowercase": "yes"}, "'lowercase'.*'yes'"),
    ],
)
def test_stored_values_are_checked(
    preset: Path, filename: str, changes: dict[str, Any], message: str
) -> None:
    edit(preset / filename, **changes)
    with pytest.raises(PresetError, match=message):
        TextClassifier.from_preset(preset)


def test_a_head_that_is_missing(preset: Path) -> None:
    (preset / "task.weights.h5").unlink()
    with pytest.raises(PresetError, match=r"no file 'task.weights.h5'"):
        TextClassifier.from_preset(preset)
    assert TextClassifier.from_preset(preset, num_classes=3).num_classes == 3
    assert TextClassifier.from_preset(preset, load_weights=False).num_classes == 3


def test_an_activation_without_a_name_is_not_saved(tmp_path: Path) -> None:
    def doubled(logits: Any) -> Any:
        return 2 * logits

    model = classifier(activation=doubled)
    with pytest.raises(PresetError, match="`activation` must have a name in Keras"):
        model.save_to_preset(tmp_path / "preset")
    assert not list(tmp_path.iterdir())


def test_another_activation_inside_is_kept_and_warned_about(tmp_path: Path) -> None:
    backbone = nextword.models.BertBackbone(**SIZES, activation="gelu", layer_norm_epsilon=1e-5)
    with pytest.warns(UserWarning, match="does not know or heed activation, layer_norm_epsilon"):
        backbone.save_to_preset(tmp_path)
    assert nextword.models.Backbone.from_preset(tmp_path).config == backbone.config
