"""Every example in a docstring runs: doctests, and fenced Python blocks around a real model."""

import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest

import nextword
from families.cases import CASES

MODULES = [
    "nextword",
    *(
        module.name
        for module in pkgutil.walk_packages(nextword.__path__, "nextword.")
        if module.name != "nextword.ops.native._kernels"  # a library, and no module of Python
    ),
]
FENCED = re.compile(r"```python\n(.*?)```", re.DOTALL)


def objects(module: ModuleType) -> dict[str, Any]:
    """Return what a module defines, and the methods of its classes, by qualified name."""
    found = {module.__name__: module}
    for item in vars(module).values():
        if getattr(item, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(item) or inspect.isfunction(item):
            found[f"{module.__name__}.{item.__qualname__}"] = item
        if inspect.isclass(item):
            for member in vars(item).values():
                if inspect.isfunction(inspect.unwrap(getattr(member, "__func__", member))):
                    function = getattr(member, "__func__", member)
                    found[f"{module.__name__}.{function.__qualname__}"] = function
    return found


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def blocks() -> list[Any]:
    found = []
    for module_name in MODULES:
        for name, item in objects(importlib.import_module(module_name)).items():
            for block in FENCED.findall(item.__doc__ or ""):
                found.append(pytest.param(module_name, textwrap.dedent(block), id=name))
    return found


@pytest.fixture
def names(smollm2: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What an example may use without saying where it comes from."""
    CASES[0].make(tmp_path / "checkpoint")
    monkeypatch.chdir(tmp_path)
    return {
        "lm": smollm2,
        "preprocessor": smollm2.preprocessor,
        "tokenizer": smollm2.preprocessor.tokenizer,
        "directory": tmp_path / "checkpoint",
        "nextword": nextword,
        "keras": keras,
        "np": np,
    }


@pytest.mark.parametrize(("module_name", "block"), blocks())
def test_fenced_examples(module_name: str, block: str, names: dict[str, Any]) -> None:
    namespace = vars(importlib.import_module(module_name)) | names
    exec(compile(block, module_name, "exec"), namespace)
    names["lm"].compile(sampler="greedy")
