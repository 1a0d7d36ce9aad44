"""Checks of the folder for runs with real files, by the driver alone and together with a worker."""

import fcntl
import shutil
import stat
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hpcfwi.errors import StagingError
from hpcfwi.io import write_atomic
from hpcfwi.sitecheck.results import FREE_WARNING, Finding, problem, warning

# Number of timed renames, bytes of each file, and the median time above which renames slow a run down.
RENAMES, FILE_BYTES, SLOW_RENAME_S = 20, 100_000, 0.25
# Time limit for a file to appear on the other host.
SEEN_TIMEOUT_S = 10.0


@contextmanager
def temporary_folder(folder: Path) -> Iterator[None]:
    """Create a folder with its parents; at the end, remove those that are new and still empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        yield
    finally:
        with suppress(OSError):
            for path in missing:
                path.rmdir()


def runs_findings(folder: Path) -> list[Finding]:
    """Check the folder from the driver's host: permissions, space, renames, locks."""
    name, other = "runs folder", "choose another folder in filesystem.runs"
    try:
        with temporary_folder(folder), tempfile.TemporaryDirectory(prefix=".hpcfwi-check-", dir=folder) as inside:
            free = shutil.disk_usage(folder).free
            found = f"{folder}, {free / 1e9:.1f} GB free"
            mode = folder.stat().st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                first = warning(name, f"{found}: every user may write to it", f"type: chmod o-w '{folder}'")
            elif free < FREE_WARNING:
                first = warning(name, found, f"free some space, or {other}")
            else:
                first = Finding(name, found)
            return [first, _rename_finding(Path(inside)), _lock_finding(Path(inside))]
    except (OSError, StagingError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return [problem(name, f"{folder} cannot be used: {reason}", other)]


def _rename_finding(folder: Path) -> Finding:
    """Check that readers see only whole files while a file is replaced by renaming, and time it."""
    target, incomplete, done = folder / "renamed", list[str](), threading.Event()

    def replace(byte: int) -> float:
        started = time.perf_counter()
        write_atomic(target, lambda file: file.write(bytes([byte]) * FILE_BYTES))
        return time.perf_counter() - started

    def read() -> None:
        while not done.is_set():
            try:
                content = target.read_bytes()
            except OSError as error:
                incomplete.append(str(error))
                continue
            if content != content[:1] * FILE_BYTES:
                incomplete.append(f"{len(content)} bytes of {FILE_BYTES}")

    replace(0)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        median = statistics.median(replace(number) for number in range(RENAMES))
    finally:
        done.set()
        reader.join()
    if incomplete:
        found = f"readers see half-written or missing files ({incomplete[0]})"
        return problem("rename", found, "choose a folder on a POSIX file system in filesystem.runs")
    found = f"readers see whole files; {1e3 * median:.1f} ms to write, sync and rename 100 kB"
    if median > SLOW_RENAME_S:
        return warning("rename", found, "a faster file system (filesystem.runs) shortens every iteration")
    return Finding("rename", found)


def _lock_finding(folder: Path) -> Finding:
    """Check the file locks that keep two drivers apart."""
    with (folder / "lock").open("w") as first, (folder / "lock").open("w") as second:
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Finding("locks", "keep a second driver out of a run folder")
            found = "two processes get the same lock"
        except OSError as error:
            found = f"not supported by the file system ({error.strerror})"
    advice = "do not start two drivers on one run folder, or choose a file system with flock in filesystem.runs"
    return warning("locks", found, advice)


def write_probe_file(path: Path, text: str) -> None:
    """Write a temporary file and rename it; also runs as a task."""
    write_atomic(path, lambda file: file.write(text.encode()))


def wait_for_probe_file(path: Path, text: str) -> float | None:
    """Return the seconds until a file has this content (0: at once), or None after the timeout; also runs as a task."""
    started, seconds = time.perf_counter(), 0.0
    while seconds < SEEN_TIMEOUT_S:
        with suppress(OSError):
            if path.read_text() == text:
                return seconds
        time.sleep(0.01)
        seconds = time.perf_counter() - started
    return None


def shared_finding(folder: Path, call: Callable[..., Any]) -> Finding:
    """Check that driver and worker see each other's files in a new folder; ``call`` runs a function on the worker."""
    outward, inward = folder / "from-driver", folder / "from-worker"
    with suppress(OSError):
        inward.stat()  # a file system may cache that the file does not exist
    write_probe_file(outward, "one")
    first = call(wait_for_probe_file, outward, "one")
    if first is None:
        return shared_verdict(folder, None, None, None)
    write_probe_file(outward, "two")
    renamed = call(wait_for_probe_file, outward, "two")
    call(write_probe_file, inward, "three")
    return shared_verdict(folder, first, renamed, wait_for_probe_file(inward, "three"))


def shared_verdict(folder: Path, first: float | None, renamed: float | None, back: float | None) -> Finding:
    """Judge the seconds until the worker saw a new file and its replacement, and the driver the worker's file; None: never."""
    name, elsewhere = "shared folder", "choose a folder that all nodes see in filesystem.runs"
    if first is None:
        return problem(name, f"the worker does not see the driver's files in {folder}", elsewhere)
    if back is None:
        return problem(name, f"the driver does not see the worker's files in {folder}", elsewhere)
    if first or back:
        advice = "choose a file system in filesystem.runs that shows new files at once"
        return problem(name, f"new files appear only after {max(first, back):.2f} s", advice)
    when = f"after {renamed:.2f} s" if renamed is not None else f"not within {SEEN_TIMEOUT_S:g} s"
    found = f"new files appear at once, in both directions; a replaced file {when}"
    if renamed is None:
        return warning(name, found, "runs do not replace files that workers read; hpcfwi status may lag behind")
    return Finding(name, found)
