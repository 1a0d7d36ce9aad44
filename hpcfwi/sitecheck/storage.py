"""The folder for run folders, tried with real files: by the driver alone, and between it and a worker."""

from __future__ import annotations

import fcntl
import shutil
import stat
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from hpcfwi.config.site import Site
from hpcfwi.errors import StagingError
from hpcfwi.io import write_atomic
from hpcfwi.sitecheck.results import Finding, problem, warning

__all__ = [
    "runs_findings",
    "runs_folder",
    "shared_finding",
    "temporary_folder",
    "wait_for_probe_file",
    "write_probe_file",
]

# Renames that are timed, the bytes of each file, and the median seconds from which on a run feels them.
RENAMES, SIZE, SLOW = 20, 100_000, 0.25
# Seconds that the other side may take to see a rename over a name that it has read before.
PATIENCE = 10.0
FREE = 10**9


def runs_folder(site: Site) -> Path:
    """Where run folders of a site are, as ``hpcfwi run`` chooses it."""
    return Path(site.config.filesystem.runs or "runs").absolute()


@contextmanager
def temporary_folder(folder: Path) -> Iterator[None]:
    """Have a folder, and take away at the end what had to be made for it and has stayed empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        yield
    finally:
        with suppress(OSError):
            for path in missing:
                path.rmdir()


def runs_findings(folder: Path) -> list[Finding]:
    """What can be seen of the folder from here."""
    name, other = "runs folder", "choose another in filesystem.runs"
    try:
        with temporary_folder(folder), tempfile.TemporaryDirectory(prefix=".hpcfwi-check-", dir=folder) as inside:
            free = shutil.disk_usage(folder).free
            found = f"{folder}, {free / 1e9:.1f} GB free"
            mode = folder.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                first = warning(name, f"{found}: everybody may write to it", f"type: chmod o-w '{folder}'")
            elif free < FREE:
                first = warning(name, found, f"make room, or {other}")
            else:
                first = Finding(name, found)
            return [first, _rename_finding(Path(inside)), _lock_finding(Path(inside))]
    except (OSError, StagingError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return [problem(name, f"{folder} cannot be used: {reason}", other)]


def _rename_finding(folder: Path) -> Finding:
    """Files that are written aside and renamed appear whole, and quickly."""
    target = folder / "renamed"
    write_atomic(target, partial(_fill, bytes(1)))
    broken: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                content = target.read_bytes()
            except OSError as error:
                broken.append(str(error))
                continue
            if content != content[:1] * SIZE:
                broken.append(f"{len(content)} bytes of {SIZE}")

    reader = threading.Thread(target=read)
    reader.start()
    seconds = []
    try:
        for number in range(RENAMES):
            started = time.perf_counter()
            write_atomic(target, partial(_fill, bytes([number])))
            seconds.append(time.perf_counter() - started)
    finally:
        done.set()
        reader.join()
    return rename_verdict(statistics.median(seconds), broken)


def _fill(byte: bytes, file: BinaryIO) -> None:
    file.write(byte * SIZE)


def rename_verdict(median: float, broken: list[str]) -> Finding:
    """Judge renames: their median seconds, and what a reader saw that was not whole."""
    if broken:
        found = f"readers see files that are half-written or missing ({broken[0]})"
        return problem("rename", found, "choose a folder on a POSIX file system in filesystem.runs")
    found = f"whole at every moment; {1e3 * median:.1f} ms to write, sync and rename 100 kB"
    if median > SLOW:
        return warning("rename", found, "a faster file system (filesystem.runs) would shorten every iteration")
    return Finding("rename", found)


def _lock_finding(folder: Path) -> Finding:
    """Locks keep a second driver out of a run folder."""
    path = folder / "lock"
    with path.open("w") as first, path.open("w") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Finding("locks", "keep a second driver out of a run folder")
            trouble = "the same lock is given to two"
        except OSError as error:
            trouble = f"the file system has none ({error.strerror})"
    advice = "never start two drivers on one run folder, or choose a file system with flock in filesystem.runs"
    return warning("locks", trouble, advice)


def write_probe_file(path: Path, text: str) -> None:
    """Write a file aside and rename it (a task, too)."""
    write_atomic(path, lambda file: file.write(text.encode()))


def wait_for_probe_file(path: Path, text: str, patience: float) -> float | None:
    """Seconds until a file with this content is there; None if it never is (a task, too)."""
    started = time.perf_counter()
    looked = False
    while not looked or time.perf_counter() - started < patience:
        with suppress(OSError):
            if path.read_text() == text:
                return time.perf_counter() - started if looked else 0.0
        looked = True
        time.sleep(0.01)
    return None


def shared_finding(folder: Path, there: Callable[..., Any]) -> Finding:
    """Whether both sides see each other's files.

    Parameters
    ----------
    folder
        Empty, and the driver's own.
    there
        Calls a function with arguments on the other side.
    """
    outward, inward = folder / "from-driver", folder / "from-worker"
    with suppress(OSError):
        inward.stat()  # a file system may remember for a while that it is not there
    write_probe_file(outward, "one")
    first = there(wait_for_probe_file, outward, "one", PATIENCE)
    if first is None:
        return shared_verdict(folder, None, None, None)
    write_probe_file(outward, "two")
    renamed = there(wait_for_probe_file, outward, "two", PATIENCE)
    there(write_probe_file, inward, "three")
    return shared_verdict(folder, first, renamed, wait_for_probe_file(inward, "three", PATIENCE))


def shared_verdict(folder: Path, first: float | None, renamed: float | None, back: float | None) -> Finding:
    """Judge the seconds until a new file, a renamed one and the other side's were seen; None: never."""
    elsewhere = "choose a folder that all nodes see in filesystem.runs"
    if first is None:
        return problem("shared folder", f"what the driver writes to {folder} is not seen here", elsewhere)
    if back is None:
        return problem("shared folder", f"what is written here to {folder} is not seen by the driver", elsewhere)
    if first or back:
        found = f"new files are seen after {max(first, back):.2f} s only"
        return problem("shared folder", found, "choose a file system in filesystem.runs that shows new files at once")
    told = f"after {renamed:.2f} s" if renamed is not None else f"not within {PATIENCE:g} s"
    found = f"new files are seen at once, both ways; one that replaces another {told}"
    if renamed is None:
        return warning("shared folder", found, "no harm to runs, whose files never change; status may lag behind")
    return Finding("shared folder", found)
