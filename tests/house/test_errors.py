"""Every error has a code of its own, says what it means, and names the fields its sentence needs."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from string import Formatter

import pytest

from touchmark.domain import errors
from touchmark.domain.errors import TouchmarkError, list_error_classes

CLASSES = list_error_classes()


def list_documented_fields(cls: type[TouchmarkError]) -> list[str]:
    """Return the names after "Fields:" in a docstring; "none", or no such sentence, is no field."""
    found = re.search(r"Fields: ([^.]*)\.", " ".join((cls.__dict__["__doc__"] or "").split()))
    names = found.group(1).split(", ") if found else []
    return [] if names == ["none"] else names


def list_template_fields(cls: type[TouchmarkError]) -> list[str]:
    """Return the names in braces of the sentence of a class."""
    return [name for _, name, _, _ in Formatter().parse(cls.template) if name is not None]


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_class_is_complete(cls: type[TouchmarkError]) -> None:
    assert cls.__name__.endswith("Error")
    assert {"code", "template", "__doc__"} <= cls.__dict__.keys(), "inherited, not its own"
    assert cls.__doc__
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", cls.code)
    assert set(list_template_fields(cls)) <= set(list_documented_fields(cls))


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_built_from_its_documented_fields_reads_as_a_sentence(cls: type[TouchmarkError]) -> None:
    fields = {name: f"<{name}>" for name in list_documented_fields(cls)}

    said = str(cls(**fields))

    assert "{" not in said
    assert all(f"<{name}>" in said for name in list_template_fields(cls))


def test_no_two_errors_share_a_code() -> None:
    codes = Counter(cls.code for cls in CLASSES)

    assert [code for code, times in codes.items() if times > 1] == []


def test_the_tree_drawn_at_the_top_is_the_tree() -> None:
    drawn = re.findall(r"\w+Error\b", inspect.getdoc(errors) or "")

    assert sorted(drawn) == sorted(cls.__name__ for cls in CLASSES)


def test_each_error_is_drawn_below_its_kind() -> None:
    kind = ""
    drawn: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    [├└]── (\w+Error)", line):
            kind = found.group(1)
        elif re.match(r"    [│ ]   [├└]──", line):
            drawn |= dict.fromkeys(re.findall(r"\w+Error", line), kind)

    cases = [cls for cls in CLASSES if TouchmarkError not in (cls, *cls.__bases__)]
    assert drawn == {cls.__name__: cls.__bases__[0].__name__ for cls in cases}
