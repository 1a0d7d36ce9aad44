"""What every reader of a file relies on: that it is one, ends, and is not too deep; and how what is in it is shown."""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path
from typing import Any

__all__ = ["parse_json", "quoted", "regular", "shortened", "visible"]

# Lists and objects in one another, of which nothing of ours has more than a few.
DEEPEST = 50


def regular(path: Path) -> Path:
    """The path itself; of a device or pipe, which may have no end or nothing to say, an error.

    Raises
    ------
    OSError
        If it is one of those, or not there.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the one who opens it complains
        raise OSError(errno.EINVAL, "it is a device or a pipe, no file", str(path))
    return path


def parse_json(content: bytes) -> Any:
    """What a piece of JSON says.

    Raises
    ------
    ValueError
        If it is none, or lies so deep in itself that who walks over it may run out of stack.
    """
    try:
        found = json.loads(content)
        _measure(found)
    except RecursionError:
        raise ValueError("it lies too deep in itself") from None
    return found


def _measure(value: Any, left: int = DEEPEST) -> None:
    if left == 0:
        raise RecursionError
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _measure(item, left - 1)


def shortened(text: str, most: int = 300) -> str:
    """At most so many letters of a text, all of them visible."""
    shown = visible(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def visible(text: str) -> str:
    """A text of one line or several without letters that a terminal would take for a command, or cannot show."""
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


def quoted(text: str) -> str:
    """The beginning of a text in quotes."""
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
