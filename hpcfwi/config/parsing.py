"""What configuration files have in common: reading TOML, variables and ``--set``."""

from __future__ import annotations

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

__all__ = [
    "PATH_KEYS",
    "apply_settings",
    "cut",
    "expand",
    "expand_variables",
    "find_line",
    "parse_setting",
    "read_toml",
    "short",
]

PATH_KEYS = frozenset({"file", "geometry", "mask_file"})
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
BARE_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
# Bytes of a configuration, at most, and lists or sections in one another; letters about one mistake.
LARGEST, DEEPEST, MOST_LETTERS = 1_000_000, 50, 1000
TOO_DEEP = f"lists or sections lie more than {DEEPEST} deep in one another"
# A key of a hundred parts, over which tomllib would take its time: with the square of their number.
ENDLESS = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"(?:[^"\\\n]|\\.){0,100}+"|'[^'\n]{0,100}+')[ \t]*+\.[ \t]*+){100}""")


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
        raise InputError(f"{path}: is no valid TOML: {cut(str(error))}") from None


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


def find_line(path: Path, key: str) -> tuple[int, str] | None:
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
            f"--set {cut(setting)}: is not of the form section.key=value, for instance --set inversion.iterations=10"
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
                    f"--set {cut('.'.join(keys))}: {cut('.'.join(keys[: i + 1]))} is a value ({short(table)}), not a "
                    "section with keys of its own"
                )
        table[keys[-1]] = value
    return result


def cut(text: str) -> str:
    """A line that can be read; what is to be typed next often stands at its end."""
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS // 2]} ... {text[-MOST_LETTERS // 2 :]}"


def short(value: Any) -> str:
    """A value as it may stand in a message."""
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = "a value too long to be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."
