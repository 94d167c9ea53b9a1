"""Every backbone says what each of its arguments means."""

import inspect
import re

import pytest

from nextword.models.backbone_docs import ARGUMENTS
from nextword.models.family import all_families

BACKBONES = [family.task.backbone_cls for family in all_families().values()]


@pytest.mark.parametrize("backbone_cls", BACKBONES, ids=lambda cls: cls.__name__)
def test_every_argument_is_described_in_its_order(backbone_cls: type) -> None:
    arguments, _, example = (backbone_cls.__doc__ or "").partition("Args:")[2].partition("Example:")
    described = re.findall(r"^    (\*{0,2}\w+): ", arguments, re.MULTILINE)
    assert described == [*inspect.signature(backbone_cls.describe).parameters, "**kwargs"]
    assert f"{backbone_cls.__name__}(" in example


@pytest.mark.parametrize("backbone_cls", BACKBONES, ids=lambda cls: cls.__name__)
def test_every_argument_is_an_attribute(backbone_cls: type) -> None:
    for name in inspect.signature(backbone_cls.describe).parameters:
        assert isinstance(getattr(backbone_cls, name), property), name


def test_shared_descriptions_are_shared() -> None:
    used = [set(inspect.signature(cls.describe).parameters) for cls in BACKBONES]
    for argument in ARGUMENTS:
        assert sum(argument in arguments for arguments in used) > 1, argument
