"""The floor plan holds: rooms import only downwards, and only models/families knows a family."""

import ast
import statistics
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "nextword"

# From the street to the ground.
FLOOR_PLAN = [
    "cli",
    "models",
    "training",
    "generation",
    "samplers",
    "preprocessing",
    "tokenizers",
    "presets",
    "layers",
    "quantization",
    "ops",
]
GROUND = {"errors", "_backend", "_garbage"}
FAMILIES = {path.stem for path in (SOURCE / "models" / "families").glob("[!_]*.py")}
FAMILY_ROOM = ("models", "families")

MODULES = sorted(SOURCE.rglob("*.py"))


def module_name(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(tree, importer, *, is_package):
    """Yield what a module imports from nextword, each as the parts of its name below nextword.

    `from nextword.a import b` may import a module or a name in one, so it yields `("a", "b")`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                package = ["nextword", *importer][: None if is_package else -1]
                base = package[: len(package) - node.level + 1] + base
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        yield from (tuple(name[1:]) for name in names if name[0] == "nextword" and name[1:])


def misplaced_imports(path, source):
    """Return a sentence for every import that the floor plan forbids."""
    importer = module_name(path)
    if not importer or importer[0] in {"__main__"}:
        return []
    room = importer[0]
    assert room in {*FLOOR_PLAN, *GROUND}, f"{room} has no place in the floor plan"
    allowed = set(GROUND)
    if room in FLOOR_PLAN:
        allowed |= set(FLOOR_PLAN[FLOOR_PLAN.index(room) :])
    found = []
    for imported in imports(ast.parse(source), importer, is_package=path.stem == "__init__"):
        name = ".".join(("nextword", *imported))
        if imported[0] in {*FLOOR_PLAN, *GROUND} and imported[0] not in allowed:
            found.append(f"{room}/ must not import {name}: it is a room above")
        if imported[:2] == FAMILY_ROOM and imported[2:] and room != "models":
            found.append(f"{room}/ must not import the family {name}")
    return found


def family_mentions(source):
    """Return every identifier that names a family, and every comparison with a family's name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                found |= {name} & FAMILIES
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.keyword(arg=str(name)):
                found |= {name} & FAMILIES
            case ast.Compare():
                found |= strings(node) & FAMILIES
            case ast.match_case(pattern=pattern):
                found |= strings(pattern) & FAMILIES
    return found


def strings(node):
    return {
        constant.value.lower()
        for constant in ast.walk(node)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }


def named(path):
    return path.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_rooms_import_only_downwards(path):
    assert misplaced_imports(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "path", [path for path in MODULES if module_name(path)[:2] != FAMILY_ROOM], ids=named
)
def test_only_its_own_file_names_a_family(path):
    assert family_mentions(path.read_text(encoding="utf-8")) == set()


def imported_families(path):
    """Return the families that a family's module imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = imports(tree, module_name(path), is_package=False)
    return {name[2] for name in names if name[:2] == FAMILY_ROOM and name[2:]}


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent.name == "families"])
def test_a_family_imports_no_other_but_a_relative_the_one_it_is_a_relative_of(path):
    others = imported_families(path)
    is_relative = "FAMILY = Relative(" in path.read_text(encoding="utf-8")
    assert len(others) == is_relative
    assert not any(imported_families(path.with_stem(other)) for other in others)


def test_half_of_the_families_are_shorter_than_150_lines():
    folder = SOURCE.joinpath(*FAMILY_ROOM)
    lengths = [len((folder / f"{name}.py").read_text("utf-8").splitlines()) for name in FAMILIES]
    assert statistics.median(lengths) < 150


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("layers/linear.py", "from nextword.models import CausalLM"),
        ("layers/linear.py", "import nextword.generation.engine"),
        ("layers/linear.py", "def f():\n    from nextword import samplers"),
        ("layers/linear.py", "from ..presets import resolve_preset"),
        ("layers/__init__.py", "from ..presets import resolve_preset"),
        ("layers/deep/linear.py", "from ...presets import resolve_preset"),
        ("errors.py", "from nextword.presets import DEFAULT_PRESET"),
        ("cli/app.py", f"from nextword.models.families import {sorted(FAMILIES)[0]}"),
        ("cli/app.py", f"from nextword.models.families.{sorted(FAMILIES)[0]} import FAMILY"),
    ],
)
def test_a_misplaced_import_is_found(path, source):
    assert misplaced_imports(SOURCE / path, source)


@pytest.mark.parametrize("source", ["{0} = 1", "x.{0}", "if kind == '{0}': pass", "f({0}=1)"])
def test_a_family_s_name_is_found(source):
    family = sorted(FAMILIES)[0]
    assert family_mentions(source.format(family)) == {family}
    assert family_mentions(f"f'the {family} file'; x = '{family}'") == set()
