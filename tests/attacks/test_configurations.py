"""Configurations that name what must not run or be read, and sizes that no model has."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import nextword
from attacks.faces import FACES, TEXTS
from attacks.guard import refused, watched
from nextword.presets import PresetError

LAMBDA = {"class_name": "__lambda__", "config": {"code": "4wAAAA==", "defaults": None}}
# What has been made to run code, fetch files or switch off checks by a Keras configuration.
GADGETS = {
    "eval": ("builtins", "eval", {"source": "raise SystemExit"}),
    "exec": ("builtins", "exec", "raise SystemExit"),
    "system": ("os", "system", {"command": "touch /tmp/run"}),
    "Popen": ("subprocess", "Popen", {"args": ["touch", "/tmp/run"]}),
    "get_file": ("keras.utils", "get_file", {"origin": "http://127.0.0.1:9/x"}),
    "enable_unsafe_deserialization": ("keras.config", "enable_unsafe_deserialization", {}),
    "load_model": ("keras.saving", "load_model", {"filepath": "/etc/passwd"}),
    "Lambda": ("keras.layers", "Lambda", {"function": LAMBDA}),
    "TFSMLayer": ("keras.layers", "TFSMLayer", {"filepath": "/etc"}),
    "TorchModuleWrapper": ("keras.layers", "TorchModuleWrapper", {"module": "gAR9"}),
    "StringLookup": ("keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}),
    "Evil": ("evil", "Evil", {}),  # a module that lies beside the preset
}


def serialized(gadget: str, registered_name: str | None) -> dict[str, Any]:
    """Return a gadget in the form in which Keras stores an object."""
    module, class_name, config = GADGETS[gadget]
    return {
        "module": module,
        "class_name": class_name,
        "config": config,
        "registered_name": registered_name,
    }


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_config(path: Path, **changes: Any) -> None:
    """Change the arguments in a JSON file of Keras."""
    change(path, config=json.loads(path.read_text())["config"] | changes)


@pytest.fixture
def importable_bait(bait: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(bait)
    return bait


@pytest.mark.parametrize("package", ["", "builtins>", "os>", "keras>", "keras_hub>", "nextword>"])
@pytest.mark.parametrize("gadget", GADGETS)
def test_a_preset_of_a_class_that_is_no_model(
    preset: Path, importable_bait: Path, gadget: str, package: str
) -> None:
    path = preset / "config.json"
    path.write_text(json.dumps(serialized(gadget, f"{package}{gadget}")))
    for face in FACES.values():
        refused(
            face.from_preset,
            preset,
            f"'registered_name'|the architecture '{gadget}'|a 'config'",
            bait=importable_bait,
        )


@pytest.mark.parametrize("filename", ["task.json", "preprocessor.json", "tokenizer.json"])
@pytest.mark.parametrize("gadget", GADGETS)
def test_a_part_of_a_class_that_is_no_part(
    preset: Path, importable_bait: Path, gadget: str, filename: str
) -> None:
    (preset / filename).write_text(json.dumps(serialized(gadget, gadget)))
    refused(nextword.models.CausalLM.from_preset, preset, "'registered_name'", bait=importable_bait)


@pytest.mark.parametrize("gadget", GADGETS)
def test_a_gadget_inside_a_part_is_data(preset: Path, importable_bait: Path, gadget: str) -> None:
    evil = serialized(gadget, None)
    change_config(preset / "task.json", backbone=evil, preprocessor=evil, head=evil)
    change_config(preset / "preprocessor.json", tokenizer=evil, image_converter=evil)
    for name in ("config.json", "task.json", "preprocessor.json", "tokenizer.json"):
        change(preset / name, module=evil["module"], class_name=evil["class_name"])
    with watched(preset, bait=importable_bait):
        preprocessor = nextword.models.CausalLMPreprocessor.from_preset(preset)
        assert preprocessor.tokenizer.tokenize(TEXTS[0])


@pytest.mark.parametrize("part", ["backbone", "preprocessor"])
@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("gadget", GADGETS)
def test_a_configuration_without_a_flag_for_safety(
    importable_bait: Path, gadget: str, registered: bool, part: str
) -> None:
    backbone = nextword.models.LlamaBackbone(8, 1, 1, 2, 2, 1)
    config = {"backbone": keras.saving.serialize_keras_object(backbone), "preprocessor": None}
    config[part] = serialized(gadget, gadget if registered else None)
    with watched(bait=importable_bait), pytest.raises(PresetError, match=f"The '{part}' of a"):
        nextword.models.LlamaCausalLM.from_config(config)


def test_a_backbone_must_be_one() -> None:
    for backbone in (None, "/etc/passwd", 3):
        with pytest.raises(PresetError, match="must be a Backbone. Received: a "):
            nextword.models.LlamaCausalLM.from_config({"backbone": backbone, "preprocessor": None})


@pytest.fixture(scope="module")
def archive(sound: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in Keras' own format."""
    path = tmp_path_factory.mktemp("archive") / "model.keras"
    nextword.models.CausalLM.from_preset(sound["transformers"]).save(path)
    keras.saving.load_model(path)
    return path


def spoiled(archive: Path, directory: Path, spoil: Callable[[dict[str, Any]], Any]) -> Path:
    """Return a copy of an archive whose configuration is changed."""
    directory.mkdir()
    path = directory / "model.keras"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                spoil(config)
                content = json.dumps(config).encode()
            target.writestr(name, content)
    return path


@pytest.mark.parametrize("gadget", GADGETS)
@pytest.mark.parametrize("part", ["whole", "backbone", "preprocessor", "loss", "sampler"])
def test_an_archive_of_keras(
    archive: Path, tmp_path: Path, importable_bait: Path, gadget: str, part: str
) -> None:
    evil = serialized(gadget, None)

    def spoil(config: dict[str, Any]) -> None:
        if part == "whole":
            config.clear()
            config.update(evil)
        elif part in ("backbone", "preprocessor"):
            config["config"][part] = evil
        else:
            config["compile_config"][part] = evil

    path = spoiled(archive, tmp_path / "archive", spoil)
    with (
        watched(path.parent, bait=importable_bait, temporary=True),
        pytest.raises((ValueError, TypeError)),
    ):
        keras.saving.load_model(path)


def test_an_archive_whose_tokenizer_names_files(archive: Path, tmp_path: Path, bait: Path) -> None:
    secret = str(bait / "secret.json")

    def spoil(config: dict[str, Any]) -> None:
        tokenizer = config["config"]["preprocessor"]["config"]["tokenizer"]
        tokenizer["config"] |= {"vocabulary": secret, "merges": secret}

    path = spoiled(archive, tmp_path / "archive", spoil)
    with watched(path.parent, bait=bait, temporary=True):
        lm = keras.saving.load_model(path)
    expected = keras.saving.load_model(archive).preprocessor.tokenizer.tokenize(TEXTS[1])
    assert lm.preprocessor.tokenizer.tokenize(TEXTS[1]) == expected


@pytest.mark.parametrize("gadget", ["Lambda", "TFSMLayer", "TorchModuleWrapper", "system"])
def test_an_h5_file_of_old(tmp_path: Path, importable_bait: Path, gadget: str) -> None:
    module, class_name, config = GADGETS[gadget]
    layer = {"module": module, "class_name": class_name, "config": config}
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        model = {"class_name": "Sequential", "config": {"name": "x", "layers": [layer]}}
        file.attrs["model_config"] = json.dumps(model)
        file.create_group("model_weights").attrs["layer_names"] = np.array([], "S1")
    with watched(tmp_path, bait=importable_bait), pytest.raises((ValueError, TypeError)):
        keras.saving.load_model(path)


REMOTE_CODE = {
    "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil--evil.Evil"},
    "_attn_implementation_internal": "evil/kernel",
    "_experts_implementation": "evil/kernel",
    "_name_or_path": "../bait",
}


def test_code_that_a_checkpoint_brings_along(
    sound: dict[str, Path], checkpoint: Path, importable_bait: Path
) -> None:
    change(checkpoint / "config.json", **REMOTE_CODE, architectures=["evil.Evil"])
    change(checkpoint / "tokenizer_config.json", **REMOTE_CODE)
    change(checkpoint / "generation_config.json", custom_generate="evil.generate")
    (checkpoint / "modeling_evil.py").write_text("raise SystemExit('imported')")
    with watched(checkpoint, bait=importable_bait):
        lm = nextword.models.CausalLM.from_preset(checkpoint)
    expected = nextword.models.CausalLM.from_preset(sound["transformers"])
    assert lm.backbone.config == expected.backbone.config
    for found, weights in zip(lm.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(found, weights)


@pytest.mark.parametrize("key", ["attn_implementation", "custom_pipelines", "trust_remote_code"])
def test_keys_that_are_not_known(checkpoint: Path, importable_bait: Path, key: str) -> None:
    change(checkpoint / "config.json", **{key: "evil.Evil"})
    refused(nextword.models.CausalLM.from_preset, checkpoint, key, bait=importable_bait)


SIZES = {
    "transformers": [
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
        *("num_attention_heads", "num_key_value_heads", "head_dim", "max_position_embeddings"),
    ],
    "keras": [
        *("vocabulary_size", "num_layers", "num_query_heads", "hidden_dim", "intermediate_dim"),
        "num_key_value_heads",
    ],
}
NO_SIZES = ["9223372036854775808", "-1", "0", "64.5", '"64"', "true", "[64]", "{}", "1" + "0" * 99]


@pytest.mark.parametrize("number", [*NO_SIZES, "NaN", "Infinity", "1e999"])
@pytest.mark.parametrize("format", SIZES)
def test_no_sizes(sound: dict[str, Path], tmp_path: Path, format: str, number: str) -> None:
    config = json.loads((sound[format] / "config.json").read_text())
    arguments = config["config"] if format == "keras" else config
    for key in SIZES[format]:
        spoiled = json.dumps(config).replace(f'"{key}": {arguments[key]}', f'"{key}": {number}')
        assert spoiled != json.dumps(config)
        (tmp_path / "config.json").write_text(spoiled)
        for name in ("model.safetensors", "model.weights.h5"):
            if (sound[format] / name).exists() and not (tmp_path / name).exists():
                shutil.copy(sound[format] / name, tmp_path)
        for load_weights in (True, False):
            refused(
                lambda path, load=load_weights: nextword.models.Backbone.from_preset(path, load),
                tmp_path,
                f"{key!r}|not a JSON number|is too large",
            )


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**9},
        {"num_attention_heads": 3, "num_key_value_heads": 2},
        {"num_attention_heads": 2, "num_key_value_heads": 4},
        {"hidden_size": 2**24, "vocab_size": 2**24},
        {"hidden_size": 2**24, "intermediate_size": 2**24},
        {"num_attention_heads": 2**20, "num_key_value_heads": 2**20, "head_dim": 2**20},
    ],
)
def test_sizes_that_do_not_fit_together(checkpoint: Path, changes: dict[str, Any]) -> None:
    change(checkpoint / "config.json", **changes)
    for load_weights in (True, False):
        refused(
            lambda path, load=load_weights: nextword.models.Backbone.from_preset(path, load),
            checkpoint,
            "configuration of .* is not valid",
        )


def test_a_tokenizer_that_knows_more_tokens_than_the_model(checkpoint: Path) -> None:
    change(checkpoint / "config.json", vocab_size=40)
    lm = nextword.models.CausalLM.from_preset(checkpoint, load_weights=False)
    lm.preprocessor.sequence_length = 32
    before = lm.get_weights()
    for call in (lm.generate, lm.fit, lm.evaluate, lm.predict):
        with pytest.raises(ValueError, match=r"has the token id \d+\. .*from 0 to 39"):
            call([TEXTS[1]])
    for found, expected in zip(lm.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


PLACES = ["{bait}/secret.json", "file://{bait}/secret.json", "http://127.0.0.1:9/secret.json"]


@pytest.mark.parametrize("place", PLACES)
def test_places_where_data_is_expected(preset: Path, bait: Path, place: str) -> None:
    place = place.format(bait=bait)
    change_config(preset / "tokenizer.json", vocabulary=place, merges=place, proto=place)
    change_config(preset / "preprocessor.json", tokenizer=place)
    expected = nextword.tokenizers.Tokenizer.from_preset(preset).tokenize(TEXTS[1])
    with watched(preset, bait=bait):
        for face in ("Tokenizer", "CausalLMPreprocessor", "CausalLM"):
            part: Any = FACES[face].from_preset(preset)
            tokenizer = getattr(getattr(part, "preprocessor", part), "tokenizer", part)
            assert tokenizer.tokenize(TEXTS[1]) == expected


@pytest.mark.parametrize("place", PLACES)
def test_places_in_a_checkpoint(checkpoint: Path, bait: Path, place: str) -> None:
    place = place.format(bait=bait)
    (checkpoint / "chat_template.jinja").unlink()
    change(
        checkpoint / "tokenizer_config.json",
        chat_template=place,
        **dict.fromkeys(("vocab_file", "merges_file", "tokenizer_file", "name_or_path"), place),
    )
    with watched(checkpoint, bait=bait):
        tokenizer = nextword.tokenizers.Tokenizer.from_preset(checkpoint)
    assert tokenizer.chat_template is not None
    assert tokenizer.chat_template.source == place


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", ["weights", "url", "checkpoint_path"])
def test_places_of_weights(preset: Path, bait: Path, key: str, place: str) -> None:
    change_config(preset / "config.json", **{key: place.format(bait=bait)})
    refused(nextword.models.Backbone.from_preset, preset, f"does not know.*{key}", bait=bait)
