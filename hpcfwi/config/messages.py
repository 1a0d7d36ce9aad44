"""Sections of a configuration, and every mistake in one told in the user's words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from hpcfwi.config.parsing import cut, short
from hpcfwi.errors import InputError

__all__ = ["Section", "kinds_of", "sections_of", "validate"]

# Mistakes that are told.
MOST_MISTAKES = 50
# What pydantic's findings about types mean to somebody who writes TOML.
WISHES = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_type": "a whole number",
    "model_type": "a section",
    "path_type": "a path in quotes",
    "string_type": "text in quotes",
    "tuple_type": "a list in brackets",
}


class Section(BaseModel):
    """A section of a configuration file: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


SectionT = TypeVar("SectionT", bound=Section)


def validate(kind: type[SectionT], content: Mapping[str, Any], where: str) -> SectionT:
    """Build a configuration from plain values, or raise one :class:`InputError` that lists every mistake."""
    left_out = 0
    try:
        # By way of JSON: there pydantic is strict about types and still takes arrays for tuples and text for paths.
        return kind.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        lines = _explain_all(kind, content, [dict(item) for item in error.errors()[:MOST_MISTAKES]])
        left_out = max(0, error.error_count() - MOST_MISTAKES)
        if error.errors()[0]["type"] == "json_invalid":
            # of what JSON cannot say, TOML and a command line can only say this
            lines = ["a text in it, or the path of its folder, is no Unicode; give the file or folder another name"]
    except (ValueError, RecursionError) as error:
        lines = [str(error)]
    total = len(lines) + left_out
    if left_out:
        lines.append(f"and {left_out} more")
    count = "one mistake" if total == 1 else f"{total} mistakes"
    raise InputError("\n".join([f"{where}: {count}", *(f"  {cut(line)}" for line in lines)]))


def _explain_all(kind: type[Section], content: Mapping[str, Any], errors: list[dict[str, Any]]) -> list[str]:
    """One line for each key that is wrong, in the user's words."""
    lines: dict[str, str] = {}
    wishes: dict[str, dict[str, str]] = {}
    for error in errors:
        steps, section = _locate(kind, content, error["loc"])
        if error["type"] == "missing" and steps and isinstance(steps[-1], int):
            # of a list too short pydantic says which items are missing: it is the list that is wrong
            error = {"type": "too_short", "ctx": {"min_length": steps[-1] + 1}, "input": error["input"]}
            steps.pop()
        name = _name(steps)
        line = _explain_special(name, steps, section, error)
        if line is None:
            # a union of types ("fixed", or a number) yields several findings on one key: they are one wish
            wishes.setdefault(name, {})[error["type"]] = _wish(error, _field(section, steps))
            joined = " or ".join(dict.fromkeys(wishes[name].values()))
            meaning = "" if error["type"] == "model_type" else _describe(section, steps)
            line = f"{name}: is {short(error.get('input'))}; it should be {joined}{meaning}"
        lines[name] = line
    return [
        line for name, line in lines.items() if not any(other.startswith((f"{name}.", f"{name}, ")) for other in lines)
    ]


def _explain_special(
    name: str, steps: Sequence[int | str], section: type[Section] | None, error: dict[str, Any]
) -> str | None:
    """The findings that are not about a value's type or limits."""
    match error["type"]:
        case "extra_forbidden":
            known = list(section.model_fields) if section else []
            tags = kinds_of(section) if section else ()
            where = f" where kind is {_either(tags)}" if tags else ""
            return f"{name}: unknown key; there may be {', '.join(known)}{where}.{_did_you_mean(str(steps[-1]), known)}"
        case "missing":
            return f"{name}: is missing{_describe(section, steps)}"
        case "union_tag_not_found":
            return f'{name}: needs a key "kind": {_either(_tags(_field(section, steps)))}'
        case "union_tag_invalid":
            tag, tags = error["ctx"]["tag"], _tags(_field(section, steps))
            return f"{name}.kind: is {short(tag)}; it should be {_either(tags)}.{_did_you_mean(str(tag), tags)}"
        case "value_error":
            message = error["msg"].removeprefix("Value error, ")
            if not steps:
                return message
            # what is wrong with a section as a whole may begin with the key that it is about
            inside = sections_of(field.annotation) if (field := _field(section, steps)) else []
            key = message.partition(":")[0].partition(".")[0]
            joint = "." if any(key in part.model_fields for part in inside) else ": "
            return f"{name}{joint}{message}"
    return None


def _name(steps: Sequence[int | str]) -> str:
    """``grid.spacing``, or of an item of a list ``grid.spacing, value 2``."""
    keys = ".".join(step for step in steps if isinstance(step, str))
    items = "".join(f", value {step + 1}" for step in steps if isinstance(step, int))
    return f"{keys}{items}" or "the file"


def _wish(error: dict[str, Any], field: FieldInfo | None) -> str:
    """What a value should be, from what pydantic found wrong with it."""
    limits = error.get("ctx") or {}
    match error["type"]:
        case "too_short":
            return f"a list of at least {limits['min_length']} values"
        case "too_long":
            return f"a list of at most {limits['max_length']} values"
        case "less_than_equal":
            velocity = field and (field.description or "").startswith("km/s") and error["input"] >= 100
            return f"at most {_number(limits['le'])}{'; this looks like m/s' if velocity else ''}"
        case "greater_than_equal":
            return f"at least {_number(limits['ge'])}"
        case "greater_than":
            return f"above {_number(limits['gt'])}"
        case "literal_error":
            return str(limits["expected"]).replace("'", '"')
    return WISHES.get(error["type"], error["msg"].removeprefix("Input should be "))


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _either(words: Iterable[str]) -> str:
    *first, last = (f'"{word}"' for word in words)
    return f"{', '.join(first)} or {last}" if first else last


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f' Did you mean "{near[0]}"?' if near else ""


def _locate(
    kind: type[Section], content: Any, loc: Sequence[int | str]
) -> tuple[list[int | str], type[Section] | None]:
    """Turn pydantic's location into the user's keys, and find the section that the last of them belongs to."""
    steps: list[int | str] = []
    section: type[Section] | None = kind
    inner: type[Section] | None = kind
    kinds: tuple[str, ...] = ()
    for step in loc:
        known = isinstance(step, str) and inner is not None and step in inner.model_fields
        given = isinstance(content, dict) and step in content
        if step in kinds or (isinstance(step, str) and not known and not given):
            kinds = ()
            continue  # pydantic names the branch of a union here: not a key of the user's
        steps.append(step)
        if isinstance(step, int):
            content = content[step] if isinstance(content, list) and step < len(content) else None
            continue
        section = inner
        content = content.get(step) if isinstance(content, dict) else None
        field = section.model_fields[step] if known and section else None
        kinds = _tags(field)
        inner = _section_of(field, content)
    return steps, section


def _field(section: type[Section] | None, steps: Sequence[int | str]) -> FieldInfo | None:
    """The field that the last key names."""
    key = next((step for step in reversed(steps) if isinstance(step, str)), "")
    return section.model_fields.get(key) if section else None


def _section_of(field: FieldInfo | None, content: Any) -> type[Section] | None:
    """The section that a field holds; of several kinds the one that the content names."""
    found = sections_of(field.annotation) if field else []
    tag = content.get("kind") if isinstance(content, dict) else None
    named = (section for section in found if tag in kinds_of(section))
    return found[0] if len(found) == 1 else next(named, None)


def sections_of(annotation: Any) -> list[type[Section]]:
    """All sections that an annotation may stand for."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in sections_of(part)]


def kinds_of(section: type[Section]) -> tuple[str, ...]:
    """What a section's key ``kind`` may be; empty where it has none."""
    return get_args(section.model_fields["kind"].annotation) if "kind" in section.model_fields else ()


def _tags(field: FieldInfo | None) -> tuple[str, ...]:
    """The kinds of section among which a field chooses."""
    found = sections_of(field.annotation) if field else []
    return tuple(tag for section in found for tag in kinds_of(section))


def _describe(section: type[Section] | None, steps: Sequence[int | str]) -> str:
    """What the key means, from its description; of a section, what must be in it."""
    field = _field(section, steps)
    if field is None:
        return ""
    tags, inside = _tags(field), sections_of(field.annotation)
    if tags:
        return f"; a section with kind = {_either(tags)}" + (f" ({field.description})" if field.description else "")
    if inside:
        needed = [name for name, part in inside[0].model_fields.items() if part.is_required()]
        return f"; a section with {' and '.join(needed) if needed else 'keys of its own'}"
    return f" ({field.description})" if field.description else ""
