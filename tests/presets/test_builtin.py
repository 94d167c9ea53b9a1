"""The table of built-in presets is sound, and listing it is cheap."""

import re
import subprocess
import sys

import pytest

from nextword import presets
from nextword.presets.handles import WheelHandle, parse_handle


@pytest.mark.parametrize("name", presets.builtin_presets())
def test_entry_is_complete_and_its_handle_can_be_read(name):
    preset = presets.builtin_presets()[name]
    assert re.fullmatch(r"[a-z0-9_.]+", name)
    assert preset.params > 0
    assert re.fullmatch(r"[a-z0-9_]+", preset.family)
    assert preset.description.endswith(".")
    handle = parse_handle(preset.handle)
    assert handle is not None
    # Only files from wheels are hashed against the table; the hubs' clients verify their own.
    assert (preset.sha256 is not None) == isinstance(handle, WheelHandle)
    assert re.fullmatch(r"[0-9a-f]{64}", preset.sha256 or "0" * 64)
    assert presets.resolve_preset(name).name == name


def test_default_preset():
    preset = presets.builtin_presets()[presets.DEFAULT_PRESET]
    assert preset.params == 134_515_008
    assert preset.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def test_the_table_cannot_be_changed_by_its_readers():
    presets.builtin_presets().clear()
    assert presets.DEFAULT_PRESET in presets.builtin_presets()


def test_listing_presets_imports_nothing_heavy():
    code = (
        "import sys; from nextword.presets import builtin_presets, resolve_preset;"
        "[resolve_preset(name) for name in builtin_presets()];"
        "print(*{'keras', 'numpy', 'huggingface_hub', 'kagglehub', 'rich'} & set(sys.modules))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""


def test_all_public_names_exist():
    for name in presets.__all__:
        assert getattr(presets, name) is not None


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'open_chekpoint'"):
        presets.open_chekpoint  # noqa: B018


def test_kaggle_s_own_client_reads_every_handle():
    from kagglehub.handle import parse_model_handle

    handles = [p.handle for p in presets.builtin_presets().values() if p.is_on_kaggle]
    assert len(handles) > 200
    for handle in handles:
        model = parse_model_handle(handle.removeprefix("kaggle://"))
        assert model.version > 0
        assert model.framework_enum().name == "MODEL_FRAMEWORK_KERAS"
