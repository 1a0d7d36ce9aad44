"""Validation of configuration sections, with a message that lists every mistake by its key."""

import json
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from hpcfwi.config.parsing import abbreviate, format_value
from hpcfwi.errors import InputError

MAX_MISTAKES = 50
# What to write in TOML, by pydantic's type of error, with the limits that pydantic names.
EXPECTED = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "above {gt}",
    "greater_than_equal": "at least {ge}",
    "int_type": "a whole number",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "model_attributes_type": "a section",
    "model_type": "a section",
    "path_type": "a path in quotes",
    "string_type": "text in quotes",
    "too_long": "a list of at most {max_length} values",
    "too_short": "a list of at least {min_length} values",
    "tuple_type": "a list in brackets",
}


class Section(BaseModel):
    """A section of a configuration file: immutable, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


SectionT = TypeVar("SectionT", bound=Section)


def validate(kind: type[SectionT], content: Mapping[str, Any], where: str) -> SectionT:
    """Build a configuration from plain values, or raise an :class:`InputError` with a line for every mistake.

    ``where`` is the file, for the message.
    """
    total = 1
    try:
        # Strict validation of JSON still accepts arrays for tuples and text for paths.
        return kind.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            # the only content that TOML and command lines allow but JSON does not
            lines = ["a text in it, or the path of its folder, is not Unicode; give the file or folder another name"]
        else:
            # a default that follows from a wrong key is no mistake
            errors = [dict(item) for item in error.errors() if item["type"] != "default_factory_not_called"]
            lines = _explain(kind, content, errors[:MAX_MISTAKES])
            hidden = max(0, len(errors) - MAX_MISTAKES)
            total = len(lines) + hidden
            if hidden:
                lines.append(f"and {hidden} more")
    except (ValueError, RecursionError) as error:
        lines = [str(error)]
    if where.endswith("--set") and any("in quotes" in line or "in brackets" in line for line in lines):
        lines.append(
            "a shell removes quotes: put single ones around the whole setting, as in --set 'data.exclude=[\"3\"]'"
        )
    count = "one mistake" if total == 1 else f"{total} mistakes"
    raise InputError("\n".join([f"{where}: {count}", *(f"  {abbreviate(line)}" for line in lines)]))


def _explain(kind: type[Section], content: Mapping[str, Any], errors: list[dict[str, Any]]) -> list[str]:
    """One line for each key that is wrong."""
    lines: dict[str, str] = {}
    expected: dict[str, dict[str, str]] = {}
    for error in errors:
        keys, section = _locate(kind, content, error["loc"])
        if error["type"] == "missing" and keys and isinstance(keys[-1], int):
            # pydantic reports the missing items of a short list: report the list
            error = {"type": "too_short", "ctx": {"min_length": keys[-1] + 1}, "input": error["input"]}
            keys.pop()
        name = _name(keys)
        line = _explain_key(name, keys, section, error)
        if line is None and name in lines and name not in expected:
            continue  # what one branch of a union says about a value of its type is better than that another has other types
        if line is None:
            # a union of types ("fixed", or a number) gives several errors on one key: join what they expect
            expected.setdefault(name, {})[error["type"]] = _expected(error, _field(section, keys))
            joined = " or ".join(dict.fromkeys(expected[name].values()))
            meaning = "" if error["type"] == "model_type" else _describe(section, keys)
            line = f"{name}: is {format_value(error.get('input'))}; it should be {joined}{meaning}"
        lines[name] = line
    # a mistake inside a section makes those about the section redundant
    return [
        line for name, line in lines.items() if not any(other.startswith((f"{name}.", f"{name}, ")) for other in lines)
    ]


def _explain_key(
    name: str, keys: Sequence[int | str], section: type[Section] | None, error: dict[str, Any]
) -> str | None:
    """Explain an error that is about a key, not about the type or limits of its value."""
    match error["type"]:
        case "extra_forbidden":
            known = list(section.model_fields) if section else []
            kinds = kinds_of(section) if section else ()
            where = f" where kind is {_either(kinds)}" if kinds else ""
            return f"{name}: unknown key; the keys are {', '.join(known)}{where}.{_suggest(str(keys[-1]), known)}"
        case "missing":
            return f"{name}: is missing{_describe(section, keys)}"
        case "union_tag_not_found":
            return f'{name}: needs a key "kind": {_either(_kinds(_field(section, keys)))}'
        case "union_tag_invalid":
            kind, kinds = error["ctx"]["tag"], _kinds(_field(section, keys))
            return f"{name}.kind: is {format_value(kind)}; it should be {_either(kinds)}.{_suggest(str(kind), kinds)}"
        case "value_error":
            message = error["msg"].removeprefix("Value error, ")
            if not keys:
                return message
            # the message on a whole section may start with one of its keys
            inside = sections_of(field.annotation) if (field := _field(section, keys)) else []
            key = message.partition(":")[0].partition(".")[0]
            joint = "." if any(key in part.model_fields for part in inside) else ": "
            return f"{name}{joint}{message}"
    return None


def _name(keys: Sequence[int | str]) -> str:
    """``grid.spacing``, for an item of a list ``grid.spacing, value 2``, and for a section of one ``processing[2]``."""
    names = ".".join(key for key in keys if isinstance(key, str))
    items = "".join(f", value {key + 1}" for key in keys if isinstance(key, int))
    return f"{names}{items}" or "the file"


def _expected(error: dict[str, Any], field: FieldInfo | None) -> str:
    """What a value should be, according to an error of pydantic."""
    if error["type"] == "tuple_type" and is_list(field):
        return "a list of sections in double brackets"
    text = EXPECTED.get(error["type"])
    if text is None:
        return error["msg"].removeprefix("Input should be ")
    limits = error.get("ctx") or {}
    shown = {name: f"{limit:g}" if isinstance(limit, float) else str(limit) for name, limit in limits.items()}
    is_velocity = field and (field.description or "").startswith("km/s") and "le" in limits and error["input"] >= 100
    return text.format_map(shown).replace("'", '"') + ("; this looks like m/s" if is_velocity else "")


def _either(words: Iterable[str]) -> str:
    *first, last = (f'"{word}"' for word in words)
    return f"{', '.join(first)} or {last}" if first else last


def _suggest(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f' Did you mean "{near[0]}"?' if near else ""


def _locate(
    kind: type[Section], content: Any, loc: Sequence[int | str]
) -> tuple[list[int | str], type[Section] | None]:
    """Turn pydantic's location into the user's keys, and find the section that has the last of them."""
    keys: list[int | str] = []
    section: type[Section] | None = kind
    inner: type[Section] | None = kind
    kinds: tuple[str, ...] = ()
    field, listed = None, False
    for step in loc:
        known = isinstance(step, str) and inner is not None and step in inner.model_fields
        given = isinstance(content, dict) and step in content
        if step in kinds or (isinstance(step, str) and not known and not given):
            kinds = ()
            continue  # a branch of a union, not a key of the user's
        keys.append(step)
        if isinstance(step, int):
            content = content[step] if isinstance(content, list) and step < len(content) else None
            if listed:  # sections of a list are named by their number
                keys[-2:] = [f"{keys[-2]}[{step + 1}]"]
                inner = _section_of(field, content)
            continue
        section = inner
        content = content.get(step) if isinstance(content, dict) else None
        field = section.model_fields[step] if known and section else None
        kinds, listed = _kinds(field), is_list(field)
        inner = None if listed else _section_of(field, content)
    return keys, section


def _field(section: type[Section] | None, keys: Sequence[int | str]) -> FieldInfo | None:
    """The field of the last key."""
    name = next((key for key in reversed(keys) if isinstance(key, str)), "")
    return section.model_fields.get(name.partition("[")[0]) if section else None


def _section_of(field: FieldInfo | None, content: Any) -> type[Section] | None:
    """The section that a field holds; if there are several kinds, the one that the content names."""
    found = sections_of(field.annotation) if field else []
    kind = content.get("kind") if isinstance(content, dict) else None
    return found[0] if len(found) == 1 else next((section for section in found if kind in kinds_of(section)), None)


def sections_of(annotation: Any) -> list[type[Section]]:
    """All sections that an annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in sections_of(part)]


def is_list(field: FieldInfo | None) -> bool:
    """Whether a field holds a list of sections."""
    return field is not None and get_origin(field.annotation) is tuple and bool(sections_of(field.annotation))


def kinds_of(section: type[Section]) -> tuple[str, ...]:
    """Values of the section's key ``kind``; empty if it has no such key."""
    return get_args(section.model_fields["kind"].annotation) if "kind" in section.model_fields else ()


def _kinds(field: FieldInfo | None) -> tuple[str, ...]:
    """The kinds of section that a field allows."""
    found = sections_of(field.annotation) if field else []
    return tuple(kind for section in found for kind in kinds_of(section))


def _describe(section: type[Section] | None, keys: Sequence[int | str]) -> str:
    """The meaning of a key; for a section, the keys it needs."""
    field = _field(section, keys)
    if field is None:
        return ""
    kinds, inside = _kinds(field), sections_of(field.annotation)
    meaning = f" ({field.description})" if field.description else ""
    if kinds:
        return f"; a section with kind = {_either(kinds)}{meaning}"
    if not inside:
        return meaning
    needed = [name for name, part in inside[0].model_fields.items() if part.is_required()]
    return f"; a section with {' and '.join(needed) or 'keys of its own'}"
