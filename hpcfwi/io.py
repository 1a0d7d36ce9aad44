"""What every reader of a file relies on: that it is one, ends, and is not too deep; and how what is in it is shown."""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hpcfwi.errors import InputError, StagingError

__all__ = [
    "make_private",
    "packaged_folder",
    "parse_json",
    "printable",
    "quoted",
    "remove_unfinished",
    "require_regular_file",
    "shortened",
    "write_atomic",
]

# Lists and objects in one another, of which nothing of ours has more than a few.
MAX_NESTING = 50


def require_regular_file(path: Path) -> Path:
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
        _check_nesting(found)
    except RecursionError:
        raise ValueError("it lies too deep in itself") from None
    return found


def _check_nesting(value: Any, left: int = MAX_NESTING) -> None:
    if left == 0:
        raise RecursionError
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_nesting(item, left - 1)


def shortened(text: str, most: int = 300) -> str:
    """At most so many letters of a text, all of them visible."""
    shown = printable(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def printable(text: str) -> str:
    """A text of one line or several without letters that a terminal would take for a command, or cannot show."""
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


def quoted(text: str) -> str:
    """The beginning of a text in quotes."""
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def packaged_folder(folder: str) -> Path:
    """Path of ``jobs`` or ``site-configs``: the checkout's own where there is one, else the wheel's copy."""
    package = Path(__file__).resolve().parent
    in_wheel = package / "share" / folder
    return in_wheel if in_wheel.is_dir() else package.parent / folder


UNFINISHED_SUFFIX = ".part"


def write_atomic(path: Path, write: Callable[[Any], object], sync: bool = True) -> None:
    """Let ``write`` fill a temporary file in the same folder, bring it to disk and give it its name.

    Without ``sync`` it may be lost or torn with the machine (not with the process), which its reader has to expect.

    Raises
    ------
    StagingError
        If the file system refuses; what was half written is removed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=UNFINISHED_SUFFIX, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            Path(temporary).replace(path)
            if sync:
                _sync_folder(path.parent)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StagingError(
            f"{path}: cannot be written ({error.strerror or error}); make room or mend it, then start the same command again"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk, where the file system can do that."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Remove what writers that were killed have left half-written; to be called while nobody writes."""
    for left in folder.rglob(f".*{UNFINISHED_SUFFIX}"):
        with suppress(OSError):  # a folder of this name, say, is none of ours
            left.unlink(missing_ok=True)


def make_private(folder: Path) -> Path:
    """Make a folder that only its owner can enter.

    Raises
    ------
    InputError
        If it cannot be made, or belongs to somebody else, or others may write to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o700)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be made or used ({error.strerror}); choose a folder that you can write to with --run-dir"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: cannot be written to; choose another folder with --run-dir")
    problem = _accessible_to_others(folder.stat())
    if problem:
        raise InputError(f"{folder}: {problem}; choose a folder of your own with --run-dir")
    return folder


def _accessible_to_others(status: os.stat_result) -> str | None:
    """Why a file or folder cannot be trusted, or None."""
    if status.st_uid not in (os.geteuid(), 0):
        return "belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by other users"
    return None
