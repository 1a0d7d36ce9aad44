"""TOML files, ``--set`` and variables: from text to plain values."""

import getpass
import json
import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hpcfwi.errors import InputError

# Keys whose values are paths, in every section.
PATH_KEYS = frozenset({"bathymetry", "file", "geometry", "mask_file", "picks", "weights"})
# Keys whose text is short for a section with this kind.
SHORT_KEYS = frozenset({"misfit"})
# Before the keys of a site in --set.
SITE_PREFIX = "site."
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
VARIABLE_WITHOUT_BRACES = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
MAX_FILE_BYTES, MAX_NESTING, MAX_MESSAGE_LENGTH, MAX_VALUE_LENGTH = 1_000_000, 50, 1000, 60
TOO_DEEP = f"lists or sections are nested more than {MAX_NESTING} levels deep"
# tomllib takes quadratic time for a dotted key: refuse keys of a hundred parts.
ENDLESS_KEY = re.compile(
    r"""(?<![\w-])(?:(?:[\w-]++|"(?:[^"\\\n]|\\.){0,100}+"|'[^'\n]{0,100}+')[ \t]*+\.[ \t]*+){100}"""
)


def read_toml(path: Path, kind: str) -> dict[str, Any]:
    """Read a TOML file (a ``kind``, in messages); relative paths become absolute, from its folder."""
    try:
        with path.open("rb") as file:  # may be a pipe
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise InputError(f"{path}: cannot be read (it has more than {MAX_FILE_BYTES} bytes)")
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file ({kind})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}), so not a {kind}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path}: cannot be read ({reason})") from None
    try:
        if ENDLESS_KEY.search(text):
            raise ValueError("a key has a hundred parts or more")
        return _absolute_paths(tomllib.loads(text), path.resolve().parent)
    except RecursionError:
        raise InputError(f"{path}: is not valid TOML: {TOO_DEEP}") from None
    except ValueError as error:
        raise InputError(f"{path}: is not valid TOML: {abbreviate(str(error))}") from None


def parse_setting(setting: str) -> tuple[list[str], Any]:
    """Split ``section.key=value`` into keys and value, TOML or else plain text; relative paths start in the current folder."""
    name, equals, text = setting.partition("=")
    keys = [part.strip() for part in name.split(".")]
    least = 1 if text.lstrip().startswith("[") else 2  # a list of sections, as in stage=[], has no key after its name
    if not equals or not all(keys) or not least <= len(keys) <= MAX_NESTING:
        raise InputError(
            f"--set {abbreviate(setting)}: is not of the form section.key=value, for example --set inversion.iterations=10"
        )
    try:
        content = tomllib.loads(f"value = {text}")
        return keys, _absolute_paths(content["value"] if len(content) == 1 else text, Path.cwd(), keys[-1])
    except (ValueError, RecursionError):
        return keys, _absolute_paths(text.strip(), Path.cwd(), keys[-1])


def split_settings(settings: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split values of ``--set`` into those of the run and those of the site, which begin with ``site.`` (removed here)."""
    stripped = [setting.lstrip() for setting in settings]
    run = [setting for setting in stripped if not setting.startswith(SITE_PREFIX)]
    return run, [setting.removeprefix(SITE_PREFIX) for setting in stripped if setting.startswith(SITE_PREFIX)]


def apply_settings(content: dict[str, Any], settings: Iterable[tuple[list[str], Any]]) -> dict[str, Any]:
    """Return a copy of ``content`` with settings applied; a number names a section of a list, from 1 on."""
    result = deepcopy(content)
    for keys, value in settings:
        table: Any = result
        for i, key in enumerate(keys[:-1]):
            if key in SHORT_KEYS and isinstance(table, dict) and isinstance(table.get(key), str):
                table[key] = {"kind": table[key]}
            table = _item(table, keys, i) if isinstance(table, list) else table.setdefault(key, {})
            if not isinstance(table, dict) and not _is_list_of_sections(table):
                raise InputError(
                    f"--set {abbreviate('.'.join(keys))}: {abbreviate('.'.join(keys[: i + 1]))} is a value "
                    f"({format_value(table)}), not a section"
                )
        if isinstance(table, list):
            _item(table, keys, len(keys) - 1)
            table[int(keys[-1]) - 1] = value
        else:
            table[keys[-1]] = value
    return result


def _is_list_of_sections(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _item(sections: list[Any], keys: Sequence[str], position: int) -> Any:
    """The section of a list that a number, the key at a position, names."""
    key, name = keys[position], ".".join(keys[:position])
    if not key.isdecimal() or not 1 <= int(key) <= len(sections):
        raise InputError(
            f"--set {abbreviate('.'.join(keys))}: {name} is a list of {len(sections)} sections; the key after it should be a "
            f"number from 1 to {len(sections)}, not {format_value(key)}"
        )
    return sections[int(key) - 1]


def expand_variables(content: dict[str, Any], where: str, skip: Sequence[str] = ()) -> dict[str, Any]:
    """Replace ``${NAME}`` in every text by the variable of the environment; keys (``section.key``) in ``skip`` keep theirs.

    ``where`` is the file, for messages.
    """

    def expanded(value: Any, key: str) -> Any:
        if key in skip:
            return value
        if isinstance(value, dict):
            return {name: expanded(item, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
        if isinstance(value, list):
            return [expanded(item, key) for item in value]
        if not isinstance(value, str):
            return value
        if VARIABLE_WITHOUT_BRACES.search(value):
            braced = VARIABLE_WITHOUT_BRACES.sub(lambda match: f"${{{match[1]}}}", value)
            raise InputError(f'{where}: one mistake\n  {key}: is "{value}"; write variables with braces: "{braced}"')
        return VARIABLE.sub(lambda match: known(match[1], key), value)

    def known(variable: str, key: str) -> str:
        found = os.environ.get(variable) or (getpass.getuser() if variable in ("USER", "LOGNAME") else None)
        if not found:
            raise InputError(
                f"{where}: one mistake\n  {key}: needs the variable {variable}, which is not set; type: export "
                f"{variable}=...  or give the key itself: --set site.{key}=..."
            )
        return found

    result: dict[str, Any] = expanded(content, "")
    return result


def find_line(path: Path, key: str) -> str | None:
    """Find the line of a TOML file that sets ``section.key``: ``number: content``, or None."""
    section: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError):
        return None
    for number, line in enumerate(lines, 1):
        heading = re.fullmatch(r"\s*\[([^\[\]]+)\]\s*(#.*)?", line)
        name, equals, _ = (heading[1] if heading else line).partition("=")
        parts = [part.strip().strip('"') for part in name.split(".")]
        if heading:
            section = parts
        elif equals and [*section, *parts] == key.split("."):
            return f"{number}: {line.strip()}"
    return None


def expand_home(path: str) -> Path:
    """Replace ``~`` and ``~user``; an unknown user's stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - Path.expanduser() raises for an unknown user


def _absolute_paths(value: Any, folder: Path, key: str = "", depth: int = 0) -> Any:
    """Make the paths in a value absolute; refuse nesting that would exhaust the stack later."""
    if depth > MAX_NESTING:
        raise ValueError(TOO_DEEP)
    if isinstance(value, dict):
        return {name: _absolute_paths(item, folder, name, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_absolute_paths(item, folder, key, depth + 1) for item in value]
    if key in PATH_KEYS and isinstance(value, str) and value and "\0" not in value:
        return str(folder / expand_home(value))
    return value


def abbreviate(text: str) -> str:
    """Shorten a line in the middle: what to type next often stands at its end."""
    half = MAX_MESSAGE_LENGTH // 2
    return text if len(text) <= MAX_MESSAGE_LENGTH else f"{text[:half]} ... {text[-half:]}"


def format_value(value: Any) -> str:
    """Format a value for a message."""
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (ValueError, RecursionError):
        return "a value too long to be shown"
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[: MAX_VALUE_LENGTH - 3]}..."
