"""What the README says about the configuration is what the code takes."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from hpcfwi.config.messages import kinds_of, sections_of
from hpcfwi.config.reference import config_table
from hpcfwi.config.run import RunConfig
from hpcfwi.config.site import SiteConfig
from hpcfwi.events.types import event_table

README = Path(__file__).parent.parent / "README.md"


def leaves(section: type[BaseModel], path: str = ""):
    """(section path, kind, key, field) of everything that can be written in a configuration, found independently."""
    for name, field in section.model_fields.items():
        inner = sections_of(field.annotation)
        for below in inner:
            yield from leaves(below, f"{path}.{name}".lstrip("."))
        if not inner and name != "kind":
            yield path, kinds_of(section), name, field


def tables():
    """Rows of the table under each heading, by heading."""
    found, heading = {}, ""
    for line in config_table().splitlines():
        if line.startswith("#### "):
            heading = line
        elif line.startswith("| `") and heading:
            key, *cells = (cell.strip() for cell in line.strip("|").split(" | "))
            found.setdefault(heading, {})[key.strip("`")] = cells
    return found


def row(path: str, kinds: tuple[str, ...], key: str) -> list[str]:
    tag = f'`kind = "{kinds[0]}"`' if kinds else ""
    (rows,) = (rows for heading, rows in tables().items() if f"`[{path}]`" in heading and tag in heading)
    return rows[key]


TABLES = {
    "config": (config_table(RunConfig), "hpcfwi.config.reference"),
    "site": (config_table(SiteConfig), "hpcfwi.config.reference site"),
    "event": (event_table(), "hpcfwi.events.types"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_readme_has_the_table_that_the_code_gives(kind):
    text = README.read_text(encoding="utf-8")
    begin, end = f"<!-- {kind} table: begin -->\n", f"<!-- {kind} table: end -->"
    assert text.count(begin) == 1, f"{README.name} has no line {begin.strip()}"
    assert text.count(end) == 1, f"{README.name} has no line {end}"
    shown = text.partition(begin)[2].partition(end)[0]
    table, module = TABLES[kind]
    assert shown == table, f"put what `python -m {module}` prints between the markers"


def test_every_key_of_every_section_and_kind_is_in_the_table_with_its_unit_and_default():
    count = 0
    for path, kinds, key, field in leaves(RunConfig):
        unit, meaning, default, may_be = row(path, kinds, key)
        assert meaning, f"{path}.{key} has no description"
        assert may_be
        assert (default == "**needed**") == field.is_required()
        assert field.description.startswith(f"{unit}; ") or not unit
        count += 1
    assert count > 60


def test_limits_and_defaults_are_written_as_in_toml():
    assert row("solver", (), "space_order")[2:] == ["`8`", "whole number, 2 to 16, a multiple of 2"]
    assert row("solver", (), "free_surface")[2:] == ["`false`", "`true`, `false`"]
    assert row("solver", (), "strategy")[2:] == ['`"sampled"`', '`"sampled"`, `"full"`']
    assert row("inversion", (), "bounds") == [
        "km/s",
        "[lowest, highest] velocity allowed",
        "**needed**",
        "2 numbers, each 0.1 to 15",
    ]
    assert row("grid", (), "origin")[2] == "zeros"
