"""`import nextword` costs next to nothing, and chooses a Keras backend that is there."""

import json
import os
import subprocess
import sys

import pytest

HEAVY = {"jax", "keras", "numpy", "tensorflow", "tokenizers", "torch", "transformers"}

# A module that is None in `sys.modules` cannot be imported, and Python does not find it either.
HIDE = "import sys; sys.modules.update(dict.fromkeys(sys.argv[1].split(',')));"
SHOW_BACKEND = "import os, nextword; print(os.environ.get('KERAS_BACKEND'))"
SHOW_KERAS_BACKEND = "import nextword, keras; print(keras.backend.backend())"


@pytest.fixture
def python(tmp_path):
    """A function that runs Python code in a home of its own and returns what it prints."""

    def run(code, *, hide=(), keras_json=None, **environment):
        if keras_json is not None:
            (tmp_path / "keras.json").write_text(keras_json)
        inherited = {
            k: v for k, v in os.environ.items() if k not in {"KERAS_BACKEND", "KERAS_HOME"}
        }
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", HIDE + code, ",".join(hide) or "none"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=inherited | {"HOME": str(tmp_path), "KERAS_HOME": str(tmp_path)} | environment,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    return run


def backend_json(name):
    return json.dumps({"floatx": "float32", "epsilon": 1e-07, "backend": name})


def test_import_is_lazy(python):
    imported = python("import nextword; print(*sys.modules)").split()
    assert HEAVY.isdisjoint(imported)


def test_upload_preset_needs_no_keras(python):
    code = (
        "import nextword; print('upload_preset' in dir(nextword), nextword.upload_preset.__name__)"
    )
    assert python(code, hide=["keras", "numpy"]) == "True upload_preset"


@pytest.mark.parametrize("module", ["presets", "cli", "cli.app", "errors"])
def test_rooms_that_need_no_backend_import_none(python, module):
    imported = python(f"import nextword.{module}; print(*sys.modules)", hide=["keras"]).split()
    assert {"jax", "tensorflow", "torch"}.isdisjoint(imported)


def test_an_unknown_attribute_is_an_attribute_error(python):
    message = python(
        "import nextword\ntry:\n  nextword.modles\nexcept AttributeError as error: print(error)"
    )
    assert message == "module 'nextword' has no attribute 'modles'"


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        ([], "jax"),
        (["jax"], "torch"),
        (["jax", "torch", "tensorflow"], "None"),
    ],
)
def test_the_first_installed_backend_is_chosen(python, hidden, expected):
    assert python(SHOW_BACKEND, hide=hidden) == expected


@pytest.mark.parametrize(
    "keras_json",
    [
        backend_json("tensorflow"),
        backend_json("no_such_backend"),
        backend_json(None),
        "{}",
        "[]",
        "not JSON",
        "",
    ],
)
def test_keras_json_that_names_no_installed_backend_is_no_choice(python, keras_json):
    shown = python(SHOW_BACKEND, hide=["tensorflow"], keras_json=keras_json)
    assert shown == "jax"


def test_keras_runs_on_jax_where_keras_json_names_what_is_not_there(python):
    shown = python(SHOW_KERAS_BACKEND, hide=["tensorflow"], keras_json=backend_json("tensorflow"))
    assert shown == "jax"


def test_keras_json_that_names_an_installed_backend_is_left_to_decide(python):
    assert python(SHOW_BACKEND, keras_json=backend_json("torch")) == "None"


def test_keras_json_in_the_home_directory_is_read_too(python, tmp_path):
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(backend_json("torch"))
    assert python(SHOW_BACKEND, KERAS_HOME="") == "None"


def test_the_environment_comes_before_keras_json(python):
    shown = python(SHOW_BACKEND, keras_json=backend_json("torch"), KERAS_BACKEND="jax")
    assert shown == "jax"


def test_a_keras_that_is_there_already_keeps_its_backend(python):
    code = "import keras, os; os.environ.pop('KERAS_BACKEND'); " + SHOW_BACKEND
    assert python(code, KERAS_BACKEND="jax") == "None"


@pytest.mark.parametrize("room", ["models", "samplers", "layers"])
def test_without_any_backend_one_sentence_says_what_to_install(python, room):
    message = python(
        f"import nextword\ntry:\n  nextword.{room}\nexcept ImportError as error: print(error)",
        hide=["jax", "torch", "tensorflow"],
    )
    assert message == (
        "nextword needs a Keras backend, and none of jax, torch and tensorflow is installed: "
        'run `pip install "nextword[jax]"`.'
    )


def test_the_command_says_so_too(python, tmp_path):
    code = (
        "sys.argv = ['nextword', 'generate', 'hello']\n"
        "from nextword.cli import main\n"
        "try:\n  main()\nexcept SystemExit as exit: print('status', exit.code)"
    )
    shown = python(f"sys.stderr = sys.stdout\n{code}", hide=["jax", "torch", "tensorflow"])
    error, status = shown.splitlines()
    assert error.startswith("Error: nextword needs a Keras backend")
    assert status == "status 1"


def test_tensorflow_is_not_imported_even_where_it_is_installed(python, tmp_path):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('imported')")
    rooms = "nextword.models, nextword.samplers, nextword.tokenizers, nextword.layers"
    assert python(f"import nextword; {rooms}; print('tensorflow' in sys.modules)") == "False"
