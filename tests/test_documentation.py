"""The documents are true: their Python runs, their commands exist, their links lead somewhere."""

import re
import subprocess

import pytest

from documents import DOCUMENTS, ROOT, check_command, code_blocks, shell_commands

BLOCKS = {document: list(code_blocks(document)) for document in DOCUMENTS}
SHELL_BLOCKS = [b for blocks in BLOCKS.values() for b in blocks if b.language == "shell"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_code_blocks_say_their_language(document):
    languages = {block.language for block in BLOCKS[document]}
    assert languages <= {"python", "shell", "text"}


@pytest.mark.parametrize(
    "document",
    [d for d in DOCUMENTS if any(b.language == "python" for b in BLOCKS[d])],
    ids=lambda document: document.name,
)
def test_python_runs(document, tmp_path, monkeypatch):
    """A document's blocks run in order and share their names, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for block in BLOCKS[document]:
        if block.language == "python":
            # The line feeds put the block where it stands, so that a traceback names its line.
            code = "\n" * (block.line - 1) + block.code
            exec(compile(code, str(document), "exec"), names)


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=str)
def test_commands_exist(block):
    subprocess.run(["bash", "-n"], input=block.code, text=True, check=True)
    commands = list(shell_commands(block.code))
    assert commands
    for words in commands:
        check_command(words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_to_files_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    files = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in files if not (document.parent / link).exists()] == []


def test_the_readme_s_command_is_the_one_that_ci_runs():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    command = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert command in readme.splitlines()


@pytest.mark.parametrize(
    "command",
    [
        "nextword generat hello",
        "nextword generate hello --no-such-option",
        "nextword generate",
        "nextword generate hello --top-k x | cat",
        "cat question.txt | nextword generate - --no-such-option > answer.txt",
        "pip install nox && nox -s no_such_session",
        'pip install ".[no_such_extra]"',
        "pip install -e . --group no_such_group",
        "pytest tests/no_such_folder",
        "no_such_program",
    ],
)
def test_a_command_that_does_not_exist_is_found(command):
    with pytest.raises(Exception, match="No such|Missing|Input|no_such|not have|sessions"):
        for words in shell_commands(command):
            check_command(words)
