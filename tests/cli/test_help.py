"""`--help` teaches: every command shows examples, and they are commands that exist."""

import pytest

from documents import check_command, shell_commands
from nextword import __version__


def test_version(nextword_command):
    assert nextword_command("--version").stdout == f"nextword {__version__}\n"


def test_without_a_command_the_help_is_shown(nextword_command):
    result = nextword_command()
    assert "Examples" in result.stdout + result.stderr


@pytest.mark.parametrize(
    "command", [[], ["generate"], ["chat"], ["convert"], ["presets"], ["info"]]
)
def test_help_has_examples_that_parse(nextword_command, command):
    result = nextword_command(*command, "--help")
    assert result.status == 0
    examples_on = result.stdout.partition("Examples")[2]
    shown = examples_on.partition("╭")[0].splitlines()
    examples = [line.strip() for line in shown if "nextword " in line]
    assert len(examples) >= 2
    for example in examples:
        for words in shell_commands(example):
            check_command(words)


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_options_say_their_defaults(nextword_command, command):
    words = " ".join(nextword_command(command, "--help").stdout.replace("│", " ").split())
    for default in ("smollm2_135m_instruct_en", "256", "1.0", "greedy"):
        assert default in words
    assert "tokens" in words
