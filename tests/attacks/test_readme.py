"""The table of attacks names tests that there are."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_every_test_in_the_table_is_there() -> None:
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+/\w+\.py)(?:::(\w+))?`", text)
    assert len(named) > 50
    for filename, function in named:
        tree = ast.parse((TESTS / filename).read_text(encoding="utf-8"))
        assert not function or function in {
            node.name for node in ast.walk(tree) if hasattr(node, "name")
        }


def test_every_attack_is_in_the_table() -> None:
    text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    for path in Path(__file__).parent.glob("test_*.py"):
        if path.name in ("test_guard.py", Path(__file__).name):
            continue
        for name in _functions(path):
            if name.startswith("test_"):
                assert f"`attacks/{path.name}::{name}`" in text, name


def _functions(path: Path) -> set[str]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}
