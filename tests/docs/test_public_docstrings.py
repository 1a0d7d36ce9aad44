"""Docstrings of the public API: numpydoc, with every parameter and what is returned."""

from __future__ import annotations

import dataclasses
import inspect
import re

import pytest

import hpcfwi

PUBLIC = {name: getattr(hpcfwi, name) for name in hpcfwi.__all__ if not name.startswith("__")}


def sections(text):
    """Sections of a numpydoc docstring by title."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", inspect.cleandoc(text), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(section):
    """Names in a section; several may share a line."""
    lines = [line.partition(" : ")[0] for line in section.splitlines() if line and not line.startswith(" ")]
    return {name.strip() for line in lines for name in line.split(",")}


@pytest.mark.parametrize("name", PUBLIC)
def test_the_docstring_has_every_parameter_and_what_is_returned(name):
    found = PUBLIC[name]
    assert found.__doc__, name
    known = sections(found.__doc__)
    if inspect.isfunction(found):
        signature = inspect.signature(found)
        assert documented(known.get("Parameters", "")) == set(signature.parameters)
        if signature.return_annotation not in (None, "None"):
            assert known.keys() & {"Returns", "Yields"}
    elif dataclasses.is_dataclass(found):
        described = documented(known.get("Parameters", ""))
        annotated = {field.name for field in dataclasses.fields(found) if "Annotated[" in str(field.type)}
        assert described | annotated == {field.name for field in dataclasses.fields(found)}
