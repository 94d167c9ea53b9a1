"""docs/models.md lists exactly what is read and written."""

import re
from pathlib import Path

from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from nextword.models.family import all_families

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
FORMATS = ("transformers", "gguf", "keras")


def rows() -> dict[str, tuple[list[str], ...]]:
    """Return what the page's table lists, by class."""
    cells = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `")
    )
    return {
        name.strip("`"): tuple(re.findall(r"`([^`]+)`", cell) for cell in stored)
        for name, *stored in cells
    }


def test_the_table_is_what_the_families_say() -> None:
    declared = {
        family.task.__name__: tuple(
            sorted(name for stored in family.stored_in(each) for name in stored.architectures)
            for each in FORMATS
        )
        for family in all_families().values()
    }
    assert rows() == declared
    assert list(rows()) == sorted(rows())


def test_the_classes_are_those_of_transformers() -> None:
    known = MODEL_MAPPING_NAMES | MODEL_FOR_CAUSAL_LM_MAPPING_NAMES | {"bert": "BertModel"}
    declared = {
        architecture: class_name
        for family in all_families().values()
        for stored in family.stored_in("transformers")
        for architecture, class_name in dict(stored.architectures).items()
    }
    assert declared == {architecture: known[architecture] for architecture in declared}
