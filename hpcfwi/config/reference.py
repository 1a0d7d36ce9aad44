"""Every key of ``fwi.toml`` and of site files as Markdown tables, made from the configuration classes themselves.

README.md contains what ``python -m hpcfwi.config.reference`` (``... site``) prints, and a test holds it against the code.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from hpcfwi.config.messages import Section, kinds_of, sections_of
from hpcfwi.config.run import RunConfig
from hpcfwi.config.site import SiteConfig

__all__ = ["config_table"]

UNITS = ("km/s", "m", "ms", "Hz", "cells", "GB")
# A description may end in what is taken where nothing is said.
DEFAULT = "; default: "
# That of a section, in when it cannot be left out.
NEEDED = "; needed "
# Limits from here on only keep slips of the pen away: not worth a word.
FAR = 1e6


def config_table(whole: type[Section] = RunConfig) -> str:
    """Every section, and every key with its unit, meaning, default and limits.

    Parameters
    ----------
    whole
        The class of the file.

    Returns
    -------
    str
        Markdown: a table of the sections, then one for each; sections with the same keys ([model] and [initial] from a
        circle) share theirs.
    """
    overview = ["| Section | Meaning | Needed |", "|---|---|---|"]
    places: dict[type[Section], list[str]] = {}
    for path, field in _walk(whole):
        sections = [section for section in sections_of(field.annotation) if _own_keys(section)]
        for section in sections:
            places.setdefault(section, []).append(path)
        if sections:
            meaning, _, condition = (field.description or _about(sections[0])).partition(NEEDED)
            needed = "**yes**" if field.is_required() else condition or "no"
            overview.append(_cells(f"`[{path}]`", _escape(meaning), needed))
    tables = (_table(section, paths) for section, paths in places.items())
    return "\n\n".join(["\n".join(overview), *tables]) + "\n"


def _walk(section: type[Section], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """All sections below one, with their paths, as the fields that hold them."""
    for name, field in section.model_fields.items():
        inner = sections_of(field.annotation)
        if inner:
            below = f"{path}.{name}".lstrip(".")
            yield below, field
            for kind in inner:
                yield from _walk(kind, below)


def _own_keys(section: type[Section]) -> dict[str, FieldInfo]:
    """Keys with a value; a ``kind`` that chooses the section is in the heading, sections have tables of their own."""
    hidden = "kind" if len(kinds_of(section)) == 1 else ""
    fields = section.model_fields.items()
    return {name: field for name, field in fields if name != hidden and not sections_of(field.annotation)}


def _table(section: type[Section], paths: list[str]) -> str:
    kinds = kinds_of(section)
    heading = " or ".join(f"`[{path}]`" for path in paths) + (f', `kind = "{kinds[0]}"`' if len(kinds) == 1 else "")
    rows = [_row(name, field) for name, field in _own_keys(section).items()]
    head = ["| Key | Unit | Meaning | Default | May be |", "|---|---|---|---|---|"]
    return "\n".join([f"#### {heading}", "", _about(section), "", *head, *rows])


def _about(section: type[Section]) -> str:
    return (section.__doc__ or "").strip().replace("``", "`")


def _row(name: str, field: FieldInfo) -> str:
    text, _, told = (field.description or "").partition(DEFAULT)
    unit, separator, meaning = text.partition("; ")
    if unit not in UNITS or not separator:
        unit, meaning = "", text
    default = "**needed**" if field.is_required() else told or _literal(field.default)
    return _cells(f"`{name}`", unit, _escape(meaning), default, _may_be(field.annotation, field.metadata))


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "\\|")


def _literal(value: Any) -> str:
    """A value as one writes it in TOML."""
    match value:
        case None:
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case str():
            return f'`"{value}"`'
        case () | {}:
            return "none"
        case float():
            return f"`{value:.3g}`" if value < 1e-3 else f"`{value}`"
    return f"`{value}`"


def _may_be(annotation: Any, metadata: list[Any]) -> str:
    """What a value of this type, with these limits, may be."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _may_be(parts[0], [*metadata, *parts[1:]])
    if origin is Literal:
        return ", ".join(map(_literal, parts))
    if origin in (Union, UnionType):
        return "; or ".join(_may_be(part, metadata) for part in parts if part is not type(None))
    limits = _limits(metadata)
    if origin is tuple:
        least, most = (limits.get(name) for name in ("min_length", "max_length"))
        if parts[-1] is not Ellipsis:
            least = most = len(parts)
        count = f"{least} or {most} " if least != most and most else f"{least} " if most else ""
        kind, _, allowed = _may_be(parts[0], []).partition(", ")
        return f"{count}{kind}s" + (f", each {allowed}" if allowed else "")
    if annotation is bool:
        return "`true`, `false`"
    if annotation is str:
        return "text"
    if origin is dict:
        return "a table of texts"
    if annotation is Path:
        return "path"
    return ", ".join(filter(None, ("whole number" if annotation is int else "number", *_range(limits))))


def _limits(metadata: list[Any]) -> dict[str, Any]:
    """Limits by their names, wherever pydantic has put them."""
    found: dict[str, Any] = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            found |= _limits(item.metadata)
        for name in ("ge", "gt", "le", "min_length", "max_length", "multiple_of"):
            if getattr(item, name, None) is not None:
                found[name] = getattr(item, name)
    return found


def _range(limits: dict[str, Any]) -> Iterator[str]:
    """Limits in words."""
    low, high = (limits.get(name) for name in ("ge", "le"))
    low, high = (None if limit is None or abs(limit) >= FAR else f"{limit:g}" for limit in (low, high))
    if "gt" in limits:
        yield f"above {limits['gt']:g}"
    if low is not None:
        yield f"{low} or more" if high is None else f"{low} to {high}"
    if "multiple_of" in limits:
        yield f"a multiple of {limits['multiple_of']}"


if __name__ == "__main__":
    print(config_table(SiteConfig if sys.argv[1:] == ["site"] else RunConfig), end="")
