"""What configuration files have in common: reading TOML, ``--set``, and telling mistakes in one message."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from hpcfwi.errors import InputError

__all__ = ["Section", "apply_settings", "parse_setting", "read_toml", "validate"]

PATH_KEYS = frozenset({"file", "geometry", "mask_file"})


class Section(BaseModel):
    """A section of a configuration file: immutable, and closed to keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


SectionT = TypeVar("SectionT", bound=Section)


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file whose relative paths are meant relative to its own folder."""
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file ({what})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no UTF-8 text (byte {error.start}), so no {what}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read ({reason})") from None
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"{path}: is no valid TOML: {error}") from None
    return _anchor(content, path.resolve().parent)


def _anchor(value: Any, folder: Path, key: str = "") -> Any:
    """Make relative paths absolute."""
    if isinstance(value, dict):
        return {k: _anchor(v, folder, k) for k, v in value.items()}
    if key in PATH_KEYS and isinstance(value, str) and value:
        return str(folder / Path(value).expanduser()) if "\0" not in value else value
    return value


def parse_setting(setting: str) -> tuple[list[str], Any]:
    """Split ``section.key=value``; the value is TOML, or plain text where that is not TOML."""
    name, equals, text = setting.partition("=")
    keys = [part.strip() for part in name.split(".")]
    if not equals or not all(keys) or len(keys) < 2:
        raise InputError(
            f"--set {setting}: is not of the form section.key=value, for instance --set inversion.iterations=10"
        )
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        value = text.strip()
    return keys, _anchor(value, Path.cwd(), keys[-1])


def apply_settings(content: dict[str, Any], settings: Iterable[tuple[list[str], Any]]) -> dict[str, Any]:
    """Return ``content`` with settings laid over it; a setting's path is relative to the current folder."""
    result = json.loads(json.dumps(content, default=str))
    for keys, value in settings:
        table = result
        for key in keys[:-1]:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise InputError(f"--set {'.'.join(keys)}: {key} is a value, not a section")
        table[keys[-1]] = value
    return result


def validate(kind: type[SectionT], content: Mapping[str, Any], where: str) -> SectionT:
    """Build a configuration from plain values, or raise one :class:`InputError` that lists every mistake."""
    try:
        # By way of JSON: there pydantic is strict about types and still takes arrays for tuples and text for paths.
        return kind.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        lines = _explain_all(kind, content, [dict(item) for item in error.errors()])
    except (ValueError, RecursionError) as error:
        lines = [str(error)]
    count = "one mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
    raise InputError("\n".join([f"{where}: {count}", *(f"  {line}" for line in lines)]))


def _explain_all(kind: type[Section], content: Mapping[str, Any], errors: list[dict[str, Any]]) -> list[str]:
    """One line for each key that is wrong, in the user's words."""
    lines: dict[str, str] = {}
    wishes: dict[str, list[str]] = {}
    for error in errors:
        steps, section = _locate(kind, content, error["loc"])
        name = ".".join(map(str, steps)) or "the file"
        special = _explain_special(name, steps, section, error)
        if special is None:
            # a union of types ("fixed", or a number) yields several findings on one key: they are one wish
            wishes.setdefault(name, []).append(_wish(error))
            joined = " or ".join(dict.fromkeys(wishes[name]))
            special = f"{name}: is {_short(error.get('input'))}; it should be {joined}{_describe(section, steps)}"
        lines[name] = special
    return [line for name, line in lines.items() if not any(other.startswith(f"{name}.") for other in lines)]


def _explain_special(
    name: str, steps: Sequence[int | str], section: type[Section] | None, error: dict[str, Any]
) -> str | None:
    """The findings that are not about a value's type or limits."""
    match error["type"]:
        case "extra_forbidden":
            known = list(section.model_fields) if section else []
            return f"{name}: unknown key.{_did_you_mean(str(steps[-1]), known)} There may be: {', '.join(known)}"
        case "missing":
            return f"{name}: is missing{_describe(section, steps)}"
        case "union_tag_not_found":
            return f'{name}: needs a key "kind"'
        case "union_tag_invalid":
            tag, expected = str(error["ctx"]["tag"]), error["ctx"]["expected_tags"]
            known = [text.strip("' ") for text in expected.split(",")]
            return f"{name}.kind: is {tag!r}; it may be {expected}.{_did_you_mean(tag, known)}"
        case "value_error":
            message = error["msg"].removeprefix("Value error, ")
            return f"{name}: {message}" if steps else message
    return None


def _wish(error: dict[str, Any]) -> str:
    limits = error.get("ctx") or {}
    match error["type"]:
        case "too_short":
            return f"at least {limits['min_length']} values"
        case "too_long":
            return f"at most {limits['max_length']} values"
        case "missing":
            return "longer"
    return error["msg"].removeprefix("Input should be ").removesuffix(", got a number")


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
    for step in loc:
        known = isinstance(step, str) and inner is not None and step in inner.model_fields
        given = isinstance(content, dict) and step in content
        if isinstance(step, str) and not known and not given:
            continue  # pydantic names the branch of a union here: not a key of the user's
        steps.append(step)
        if isinstance(step, int):
            content = content[step] if isinstance(content, list) and step < len(content) else None
            continue
        section = inner
        content = content.get(step) if isinstance(content, dict) else None
        inner = _section_at(section, step, content) if known and section else None
    return steps, section


def _section_at(section: type[Section], key: str, content: Any) -> type[Section] | None:
    """The section under a key; of several kinds the one that the content names."""
    found = _sections(section.model_fields[key].annotation)
    tag = content.get("kind") if isinstance(content, dict) else None
    named = (v for v in found if "kind" in v.model_fields and tag in get_args(v.model_fields["kind"].annotation))
    return found[0] if len(found) == 1 else next(named, None)


def _sections(annotation: Any) -> list[type[Section]]:
    """All sections that an annotation may stand for."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]


def _describe(section: type[Section] | None, steps: Sequence[int | str]) -> str:
    """What the key means, from its description."""
    key = next((s for s in reversed(steps) if isinstance(s, str)), None)
    field = section.model_fields.get(str(key)) if section and key else None
    return f" ({field.description})" if field is not None and field.description else ""


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
