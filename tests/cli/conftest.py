"""The commands on a model that computes nothing."""

import re
from types import SimpleNamespace
from typing import ClassVar

import pytest
from typer.testing import CliRunner

import nextword
from cli.fake_model import FakeCausalLM
from nextword.cli.app import app


@pytest.fixture
def fake_model(monkeypatch):
    """The class that `nextword.models.CausalLM` is while the test runs."""

    class Model(FakeCausalLM):
        loaded: ClassVar[list[FakeCausalLM]] = []

    # Not `setattr`, which would first look the real one up and so import it.
    monkeypatch.setitem(vars(nextword), "models", SimpleNamespace(CausalLM=Model))
    return Model


@pytest.fixture
def nextword_command(monkeypatch):
    """A function that runs `nextword` with its arguments and returns output, stderr and status."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments, stdin=None):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
        # One space for every run of blanks and box lines: help and usage errors are laid out.
        words = re.sub(r"[\s│╭╮╰╯─]+", " ", result.stderr)
        return SimpleNamespace(
            stdout=result.stdout,
            stderr=result.stderr,
            words=words,
            status=result.exit_code,
            exception=result.exception,
        )

    return run
