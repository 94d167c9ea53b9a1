"""The project's documents as data: their code blocks, and what it means for a command to exist."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import typer
import typer.main

from nextword.cli.app import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("**/*.md")])

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")


@dataclass(frozen=True)
class CodeBlock:
    """A fenced code block: `line` is the number of its first line of code."""

    document: Path
    line: int
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def code_blocks(document: Path) -> Iterator[CodeBlock]:
    """Yield the fenced code blocks of a Markdown document.

    Raises:
        ValueError: a block is not closed.
    """
    opening, start, code = None, 0, []
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), start=1):
        fence = _FENCE.match(line)
        if opening is None:
            opening, start, code = fence, number + 1, []
        elif fence and fence["fence"].startswith(opening["fence"]) and not fence["info"].strip():
            yield CodeBlock(document, start, opening["info"].strip(), "\n".join(code) + "\n")
            opening = None
        else:
            code.append(line.removeprefix(opening["indent"]))
    if opening is not None:
        raise ValueError(f"{document}:{start - 1}: this code block is not closed.")


def shell_commands(code: str) -> Iterator[list[str]]:
    """Yield the words of every simple command in shell code, redirections left out."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.wordchars += "=@:,[]!$%^+{}"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in {";", "&&", "||", "|"}:
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def check_command(words: list[str]) -> None:
    """Check that a command of a document is one that a reader can run.

    Raises:
        Exception: it is not; the message says why.
    """
    for redirection in (">", ">>", "<"):
        if redirection in words:
            words = words[: words.index(redirection)]
    checks = {
        "nextword": _check_nextword,
        "nox": _check_nox,
        "pip": _check_pip,
        "pytest": _check_paths,
        "cat": lambda words: None,
        "git": lambda words: None,
    }
    program = words[0]
    if program not in checks:
        raise ValueError(f"{program!r} has no check: write one, or leave the command out.")
    checks[program](words)


def _check_nextword(words: list[str]) -> None:
    """Parse the arguments as `nextword` does, without running the command."""
    group = typer.main.get_command(app)
    # Showing the help or the version ends the parsing, well.
    with suppress(typer.Exit), group.make_context("nextword", words[1:]) as context:
        arguments = [*context._protected_args, *context.args]
        name, subcommand, rest = group.resolve_command(context, arguments)
        with subcommand.make_context(name, rest, parent=context):
            pass


def _check_nox(words: list[str]) -> None:
    sessions = set(
        re.findall(r"^@nox\.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    )
    before, *_ = " ".join(words[1:]).partition("--")
    match before.split():
        case []:
            pass
        case ["-s", *names] if set(names) <= sessions:
            pass
        case _:
            raise ValueError(f"{shlex.join(words)}: noxfile.py has the sessions {sessions}.")


def _check_pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = set(project["project"]["optional-dependencies"])
    groups = set(project["dependency-groups"])
    if words[1] != "install":
        raise ValueError(f"{shlex.join(words)}: only `pip install` is expected.")
    asked = re.findall(r"\[([\w,]+)\]", " ".join(words))
    unknown = {extra for names in asked for extra in names.split(",")} - extras
    if "--group" in words:
        unknown |= {words[i + 1] for i, word in enumerate(words) if word == "--group"} - groups
    if unknown:
        raise ValueError(f"{shlex.join(words)}: pyproject.toml does not have {unknown}.")


def _check_paths(words: list[str]) -> None:
    for word in words[1:]:
        if not word.startswith("-") and not (ROOT / word.partition("::")[0]).exists():
            raise ValueError(f"{shlex.join(words)}: there is no {word}.")
