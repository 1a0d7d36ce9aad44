"""Which run folder a user means."""

from __future__ import annotations

import difflib
import os
import shlex
from contextlib import suppress
from pathlib import Path

from hpcfwi.errors import InputError
from hpcfwi.files import shortened

__all__ = ["find_run", "is_run_folder", "runs_in"]

# One of them is there from the first moment on.
MARKS = ("problem.json", "events.jsonl", "driver.json", "result.json")
# Where runs are unless told otherwise, and how many are named.
RUNS, NAMED = Path("runs"), 5


def is_run_folder(path: Path) -> bool:
    """Whether a run is there, or was.

    Raises
    ------
    OSError
        If it must not be looked into.
    """
    return any((path / name).exists() for name in MARKS)


def runs_in(folder: Path) -> list[Path]:
    """The run folders in a folder, the newest first."""
    found = []
    with suppress(OSError, ValueError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir() and is_run_folder(folder / entry.name):
                    found.append((entry.stat().st_mtime, folder / entry.name))
    return [path for _, path in sorted(found, reverse=True)]


def find_run(path: Path) -> Path:
    """The run folder that is meant by its path, by its name in ``runs``, or by a configuration whose run is there.

    Raises
    ------
    InputError
        If there is none; with those that there are.
    """
    named = shortened(str(path))
    try:
        if path.is_dir():
            if is_run_folder(path):
                return path
        else:
            for folder in (RUNS / path.name, RUNS / path.stem, path.parent):
                if folder.is_dir() and is_run_folder(folder) and (folder != path.parent or path.is_file()):
                    return folder
        here = path.is_dir()
    except (OSError, ValueError) as error:  # no path at all, or one that may not be looked at
        raise InputError(
            f"{named}: cannot be read ({getattr(error, 'strerror', None) or error}); give a run folder that you may read"
        ) from None
    raise InputError(f"{named}: {'is no run folder' if here else 'there is no such run folder'}{_others(path)}")


def _others(path: Path) -> str:
    """What may have been meant."""
    runs = runs_in(path) or runs_in(RUNS) or runs_in(path.parent)
    if not runs:
        return "; hpcfwi run makes one, runs/<name of its configuration> unless --run-dir says otherwise"
    alike = difflib.get_close_matches(path.name, [run.name for run in runs], NAMED, 0.5)
    named = sorted(runs, key=lambda run: alike.index(run.name) if run.name in alike else NAMED)[:NAMED]
    more = f", and {len(runs) - NAMED} more in {runs[0].parent}" if len(runs) > NAMED else ""
    return f"; there are {', '.join(map(str, named))}{more}\n  Type: {shlex.join(['hpcfwi', 'status', str(named[0])])}"
