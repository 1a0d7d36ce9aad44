"""What configuration files have in common: reading TOML, ``--set``, and telling mistakes in one message."""

from __future__ import annotations

import getpass
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from hpcfwi.errors import InputError

__all__ = [
    "PATH_KEYS",
    "Section",
    "apply_settings",
    "expand",
    "expand_variables",
    "kinds_of",
    "line_of",
    "parse_setting",
    "read_toml",
    "sections_of",
    "validate",
]

PATH_KEYS = frozenset({"file", "geometry", "mask_file"})
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
BARE_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
# Bytes of a configuration, at most, and lists or sections in one another; mistakes that are told, and letters about one.
LARGEST, DEEPEST, MOST_MISTAKES, MOST_LETTERS = 1_000_000, 50, 50, 1000
TOO_DEEP = f"lists or sections lie more than {DEEPEST} deep in one another"
# A key of a hundred parts, over which tomllib would take its time: with the square of their number.
ENDLESS = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"(?:[^"\\\n]|\\.){0,100}+"|'[^'\n]{0,100}+')[ \t]*+\.[ \t]*+){100}""")
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


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file whose relative paths are meant relative to its own folder."""
    try:
        text = _small(path).decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file ({what})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text (byte {error.start}), so no {what}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read ({reason})") from None
    try:
        if ENDLESS.search(text):
            raise ValueError("there is a key of a hundred parts or more")
        return _anchor(tomllib.loads(text), path.resolve().parent)
    except RecursionError:
        raise InputError(f"{path}: is no valid TOML: {TOO_DEEP}") from None
    except ValueError as error:
        raise InputError(f"{path}: is no valid TOML: {_cut(str(error))}") from None


def _small(path: Path) -> bytes:
    """The content of a file, or pipe, that people write."""
    with path.open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"it has more than {LARGEST} bytes")
    return content


def expand(path: str) -> Path:
    """A path with ``~`` and ``~user`` replaced, where there is such a user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def expand_variables(content: dict[str, Any], where: str, later: Sequence[str] = ()) -> dict[str, Any]:
    """Replace ``${NAME}`` in every text by the environment's value.

    Parameters
    ----------
    content
        Plain values.
    where
        The file, for messages.
    later
        Keys (``section.key``) that are left alone.

    Raises
    ------
    InputError
        Naming key and variable, if one is not set.
    """

    def expanded(value: Any, name: str) -> Any:
        if name in later:
            return value
        if isinstance(value, dict):
            return {key: expanded(item, f"{name}.{key}".lstrip(".")) for key, item in value.items()}
        if isinstance(value, list):
            return [expanded(item, name) for item in value]
        if isinstance(value, str) and BARE_VARIABLE.search(value):
            raise InputError(
                f'{where}: one mistake\n  {name}: is "{value}"; variables are written with braces: '
                f'"{BARE_VARIABLE.sub(lambda match: f"${{{match[1]}}}", value)}"'
            )
        return VARIABLE.sub(lambda match: known(match[1], name), value) if isinstance(value, str) else value

    def known(variable: str, name: str) -> str:
        found = os.environ.get(variable) or (getpass.getuser() if variable in ("USER", "LOGNAME") else None)
        if not found:
            raise InputError(
                f"{where}: one mistake\n  {name}: needs the variable {variable}, which is not set; type: export "
                f"{variable}=...  or give the key itself: --set site.{name}=..."
            )
        return found

    result: dict[str, Any] = expanded(content, "")
    return result


def line_of(path: Path, key: str) -> tuple[int, str] | None:
    """Number and content of the line of a TOML file that sets ``section.key``; None where none does as ``key = ...``."""
    *sections, last = key.split(".")
    here: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError):
        return None
    for number, line in enumerate(lines, 1):
        heading = re.fullmatch(r"\s*\[([^\[\]]+)\]\s*(#.*)?", line)
        if heading:
            here = [part.strip().strip('"') for part in heading[1].split(".")]
            continue
        name, equals, _ = line.partition("=")
        if equals and [*here, *(part.strip().strip('"') for part in name.split("."))] == [*sections, last]:
            return number, line.strip()
    return None


def _anchor(value: Any, folder: Path, key: str = "", depth: int = 0) -> Any:
    """Make relative paths absolute, and refuse what lies so deep that who walks over it may run out of stack."""
    if depth > DEEPEST:
        raise ValueError(TOO_DEEP)
    if isinstance(value, dict):
        return {k: _anchor(v, folder, k, depth + 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_anchor(v, folder, "", depth + 1) for v in value]
    if key in PATH_KEYS and isinstance(value, str) and value:
        return str(folder / expand(value)) if "\0" not in value else value
    return value


def parse_setting(setting: str) -> tuple[list[str], Any]:
    """Split ``section.key=value``; the value is TOML, or plain text where that is not TOML."""
    name, equals, text = setting.partition("=")
    keys = [part.strip() for part in name.split(".")]
    if not equals or not all(keys) or not 2 <= len(keys) <= DEEPEST:
        raise InputError(
            f"--set {_cut(setting)}: is not of the form section.key=value, for instance --set inversion.iterations=10"
        )
    try:
        content = tomllib.loads(f"value = {text}")
        value = content["value"] if len(content) == 1 else text
        return keys, _anchor(value, Path.cwd(), keys[-1])
    except (ValueError, RecursionError):
        return keys, _anchor(text.strip(), Path.cwd(), keys[-1])


def apply_settings(content: dict[str, Any], settings: Iterable[tuple[list[str], Any]]) -> dict[str, Any]:
    """Return ``content`` with settings laid over it; a setting's path is relative to the current folder."""
    result = deepcopy(content)
    for keys, value in settings:
        table = result
        for i, key in enumerate(keys[:-1]):
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise InputError(
                    f"--set {_cut('.'.join(keys))}: {_cut('.'.join(keys[: i + 1]))} is a value ({_short(table)}), not a "
                    "section with keys of its own"
                )
        table[keys[-1]] = value
    return result


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
    raise InputError("\n".join([f"{where}: {count}", *(f"  {_cut(line)}" for line in lines)]))


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
            line = f"{name}: is {_short(error.get('input'))}; it should be {joined}{meaning}"
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
            return f"{name}.kind: is {_short(tag)}; it should be {_either(tags)}.{_did_you_mean(str(tag), tags)}"
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


def _cut(text: str) -> str:
    """A line that can be read; what is to be typed next often stands at its end."""
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS // 2]} ... {text[-MOST_LETTERS // 2 :]}"


def _short(value: Any) -> str:
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = "a value too long to be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."
