"""The pages that ``docs/reference.py`` writes have everything that the code has."""

import importlib.util
import re
from dataclasses import fields
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

import hpcfwi
from hpcfwi import RunConfig, RunStatus, errors, load_run_config, run_inversion
from hpcfwi.cli.main import cli
from hpcfwi.config.inversion import OptimisationSection
from hpcfwi.config.messages import kinds_of, sections_of
from hpcfwi.config.site import SiteConfig
from hpcfwi.events.types import EVENTS, event_schema

SPEC = importlib.util.spec_from_file_location("reference", Path(__file__).parents[2] / "docs" / "reference.py")
reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(reference)


def page(name: str) -> str:
    return reference.PAGES[f"reference/{name}.md"]()


def leaves(section: type[BaseModel], path: str = ""):
    """(section path, kind, key, field) of everything that can be written in a configuration, found independently."""
    for name, field in section.model_fields.items():
        inner = sections_of(field.annotation)
        for below in inner:
            yield from leaves(below, f"{path}.{name}".lstrip("."))
        if not inner and name != "kind":
            yield path, kinds_of(section), name, field


def row(name: str, path: str, kinds: tuple[str, ...], key: str) -> list[str]:
    """Unit, meaning, default and allowed values of a key."""
    tag = f'`kind = "{kinds[0]}"`' if len(kinds) == 1 else ""
    parts = re.split(r"^## ", page(name), flags=re.MULTILINE)[1:]
    headings = [part.partition("\n")[0] for part in parts]
    (part,) = (
        part
        for part, heading in zip(parts, headings, strict=True)
        if re.search(rf"`\[\[?{re.escape(path)}\]\]?`", heading) and tag in heading
    )
    (line,) = (line for line in part.splitlines() if line.startswith(f"| `{key}` |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")][1:]


@pytest.mark.parametrize(("name", "whole", "least"), [("config", RunConfig, 60), ("site", SiteConfig, 35)])
def test_every_key_has_a_row_with_its_unit_and_default(name, whole, least):
    count = 0
    for path, kinds, key, field in leaves(whole):
        if not path:
            continue  # a site's description and its sources are in the text
        borrowed = (
            path == "stage" and key in OptimisationSection.model_fields
        )  # they are described where they come from
        unit, meaning, default, allowed = row(name, "inversion" if borrowed else path, kinds, key)
        assert meaning, f"{path}.{key} has no description"
        assert allowed
        assert (default == "**needed**") == field.is_required()
        assert field.description.startswith(f"{unit}; ") or not unit
        count += 1
    assert count > least


def test_limits_and_defaults_are_written_as_in_toml():
    assert row("config", "solver", (), "space_order")[2:] == ["`8`", "whole number, 2 to 16, a multiple of 2"]
    assert row("config", "solver", (), "free_surface")[2:] == ["`false`", "`true`, `false`"]
    assert row("config", "solver", (), "boundary")[2:] == ['`"cpml"`', '`"cpml"`, `"sponge"`']
    assert row("config", "inversion", (), "bounds")[2:] == ["**needed**", "2 numbers, each 0.1 to 15"]
    assert row("config", "inversion", (), "bounds")[0] == "km/s"
    assert row("config", "grid", (), "origin")[2] == "zeros"


def rows(text: str) -> dict[str, str]:
    """Lines of tables by their first cell."""
    return {found[1]: found[0] for found in re.finditer(r"^\| `([^`]+)` \|.*$", text, re.MULTILINE)}


def test_every_event_and_field_has_a_row():
    events, listed = map(rows, page("events").split("## Fields"))
    assert list(events) == list(EVENTS)
    for kind in event_schema()["$defs"].values():
        assert set(kind["properties"]) <= set(listed)
        assert all(f"`{name}`" in events[kind["title"]] for name in kind["properties"] if name not in ("time", "event"))


def test_every_field_of_the_status_has_a_row():
    assert list(rows(page("status"))) == [field.name for field in fields(RunStatus)]


def test_every_exit_code_and_exception_has_a_row():
    found = rows(page("exit-codes"))
    assert set(found) == {"0", "1", "2", "3", "75"}
    for name in set(errors.__all__) - {"HpcfwiError"}:
        assert f"`{name}`" in found[str(getattr(errors, name).exit_code)]


def commands(command: click.Command, path: str = "hpcfwi"):
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


def test_every_command_and_option_is_documented():
    text = page("commands")
    for path, command in commands(cli):
        part = text.partition(f"## {path}\n")[2].partition("\n## ")[0]
        assert command.help.splitlines()[0].split(":")[0].replace("<", "&lt;")[:30] in part
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden and option.name != "help":
                assert option.opts[-1] in part, f"{path} {option.opts[-1]}"


def test_every_public_name_is_documented():
    assert re.findall(r"^::: hpcfwi\.(\w+)$", page("python"), re.MULTILINE) == [
        name for name in hpcfwi.__all__ if not name.startswith("__")
    ]


def test_every_file_of_a_run_folder_has_a_row(fwi_toml, tmp_path):
    run_inversion(load_run_config(fwi_toml, ["output.figures=true"]), run_dir=tmp_path / "run")
    known = {name.strip("/") for name in rows(page("run-folder"))}
    assert {path.name for path in (tmp_path / "run").iterdir()} <= known
