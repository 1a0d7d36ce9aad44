"""Reading files with limits, writing them atomically, and showing text of unknown origin."""

import errno
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from hpcfwi.errors import InputError, StagingError

# Depth of nested lists and objects; files of hpcfwi have a few levels.
MAX_NESTING = 50


def require_regular_file(path: Path) -> Path:
    """Return the path; raises OSError if it is missing, or a device or a pipe, which could block forever."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # open() itself rejects a folder
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file", str(path))
    return path


def parse_json(content: bytes) -> Any:
    """Parse JSON; raises ValueError if it is malformed, or nested deeper than 50 levels."""
    try:
        found = json.loads(content)
        _check_nesting(found)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_NESTING} levels") from None
    return found


def _check_nesting(value: Any, levels: int = MAX_NESTING) -> None:
    if levels == 0:
        raise RecursionError
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_nesting(item, levels - 1)


def shortened(text: str, most: int = 300) -> str:
    """The beginning of a text, printable."""
    shown = printable(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def printable(text: str) -> str:
    """A text, of one line or several, with escapes for characters that a terminal interprets or cannot show."""
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


def quoted(text: str) -> str:
    """The beginning of a text, in quotes."""
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def format_ranges(numbers: Iterable[int]) -> str:
    """Format numbers as ``0-3,8``."""
    # within a range, a number minus its place is always the same
    ranges = groupby(enumerate(sorted(numbers)), key=lambda pair: pair[1] - pair[0])
    ends = [(found[0][1], found[-1][1]) for found in (list(group) for _, group in ranges)]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def count_ranges(text: str) -> int:
    """How many numbers ``0-3,8`` stands for; malformed parts count as none."""
    count = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            count += max(0, int(last or first) - int(first) + 1)
    return count


def packaged_folder(folder: str) -> Path:
    """The path of ``jobs`` or ``site-configs``, in the wheel or in the checkout."""
    package = Path(__file__).resolve().parent
    in_wheel = package / "share" / folder
    return in_wheel if in_wheel.is_dir() else package.parent / folder


UNFINISHED_SUFFIX = ".part"


def write_atomic(path: Path, write: Callable[[Any], object], sync: bool = True) -> None:
    """Write a file as :func:`atomic_path` does; ``write`` takes the open file and fills it."""
    with atomic_path(path, sync) as temporary, temporary.open("wb") as file:
        write(file)


@contextmanager
def atomic_path(path: Path, sync: bool = True) -> Iterator[Path]:
    """The path of a temporary file in the same folder, for the context to fill; at its end the file is synced and renamed.

    Readers see only complete files. Without ``sync`` a crash of the machine (not of the process) may lose or truncate the file,
    and its readers must cope with that. Raises StagingError if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=UNFINISHED_SUFFIX, dir=path.parent)
        temporary = Path(name)
        try:
            yield temporary
            if sync:
                os.fsync(handle)
            temporary.replace(path)
            if sync:
                folder = os.open(path.parent, os.O_RDONLY)
                with suppress(OSError):  # not every file system can sync a folder
                    os.fsync(folder)
                os.close(folder)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
    except OSError as error:
        raise StagingError(
            f"{path}: cannot be written ({error.strerror or error}); free some space or repair the file system, then type the "
            "same command again"
        ) from error


def write_json(path: Path, content: Any, sync: bool = True) -> None:
    """Write a small JSON file as :func:`write_atomic` does."""
    text = json.dumps(content, indent=1)
    write_atomic(path, lambda file: file.write(text.encode()), sync)


@contextmanager
def file_lock(path: Path, timeout_s: float) -> Iterator[None]:
    """Exclude other processes, if the file system has locks; after the timeout, enter the context without the lock."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    with suppress(Timeout, OSError, NotImplementedError):
        lock.acquire(timeout=timeout_s)
    try:
        yield
    finally:
        lock.release()


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files of writers that were killed; call it while no process writes to the folder."""
    for path in folder.rglob(f".*{UNFINISHED_SUFFIX}"):
        with suppress(OSError):  # a folder of this name, for example
            path.unlink(missing_ok=True)


def make_private(folder: Path, option: str = "--run-dir") -> Path:
    """Create a folder that only its owner can enter; raises InputError, which names the option to choose another one."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(0o700)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be created or used ({error.strerror}); choose a folder that you can write to with {option}"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: cannot be written to; choose another folder with {option}")
    problem = _accessible_to_others(folder.stat())
    if problem:
        raise InputError(f"{folder}: {problem}; choose a folder of your own with {option}")
    return folder


def _accessible_to_others(status: os.stat_result) -> str | None:
    """Why a file or folder cannot be trusted; None if it can."""
    if status.st_uid not in (os.geteuid(), 0):
        return "belongs to another user"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by other users"
    return None
