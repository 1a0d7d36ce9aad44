"""What every reader of a file relies on: that it is one, and ends; and how what is in it is shown in messages."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

__all__ = ["quoted", "regular", "shortened"]


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


def shortened(text: str, most: int = 300) -> str:
    """At most so many letters of a text, and none that a terminal would take for a command."""
    visible = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text[: most + 1])
    return visible if len(visible) <= most else f"{visible[: most - 3]}..."


def quoted(text: str) -> str:
    """The beginning of a text in quotes."""
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
