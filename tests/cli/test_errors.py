"""Whatever goes wrong: one line on stderr, a status that says what kind, no traceback."""

import pytest

from nextword.errors import PresetError


def fails_with(fake_model, error):
    def from_preset(preset, **arguments):
        raise error

    fake_model.from_preset = from_preset


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PresetError("No preset 'x'.\n\n  Did you mean 'y'?"), "No preset 'x'. Did you mean 'y'?"),
        (
            ValueError("[red]k[/red] is wrong. Received: k=[1]"),
            "[red]k[/red] is wrong. Received: k=[1]",
        ),
        (TypeError("x must be a string."), "x must be a string."),
        (ImportError("nextword needs a Keras backend."), "nextword needs a Keras backend."),
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (MemoryError(), "MemoryError"),
        (
            ValueError("title \x1b]0;owned\x07" + "x" * 300),
            "title \ufffd]0;owned\ufffd" + "x" * 300,
        ),
    ],
)
def test_an_error_is_one_line_and_status_1(fake_model, nextword_command, error, line):
    fails_with(fake_model, error)
    result = nextword_command("generate", "hello")
    assert result.status == 1
    assert result.stderr == f"Error: {line}\n"
    assert result.stdout == ""


def test_debug_shows_the_traceback(fake_model, nextword_command, monkeypatch):
    monkeypatch.setenv("NEXTWORD_DEBUG", "1")
    fails_with(fake_model, ValueError("the message"))
    result = nextword_command("generate", "hello")
    assert result.status == 1
    assert isinstance(result.exception, ValueError)


def test_a_bug_is_not_dressed_up_as_a_user_error(fake_model, nextword_command):
    fails_with(fake_model, AssertionError("a bug"))
    assert isinstance(nextword_command("generate", "hello").exception, AssertionError)


def test_control_c_while_loading_exits_130(fake_model, nextword_command):
    fails_with(fake_model, KeyboardInterrupt())
    result = nextword_command("generate", "hello")
    assert (result.status, result.stdout) == (130, "")
    assert "Traceback" not in result.stderr


def test_an_unknown_command_exits_2(nextword_command):
    result = nextword_command("generat")
    assert result.status == 2
    assert "generat" in result.stderr
