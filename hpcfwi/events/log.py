"""The event log ``events.jsonl``: one JSON object per line, appended by one driver and never changed.

A file that has grown to :data:`SEGMENT_BYTES` is compressed to ``events-0001.jsonl.gz`` and replaced by a new ``events.jsonl``,
which begins with a summary of the older files. Any number of readers can follow the log on any host::

    log = EventLog(folder / "events.jsonl")
    log.write(RunWarning(message="the disk is nearly full"))

    for event in read_events(folder / "events.jsonl"):  # all files
        print(event.time, event.event)
    state = read_state(folder / "events.jsonl")  # the last file is enough

The standard library's rotating log handler is unsuitable: it renumbers every older file, its new file is visible before its
first lines are written, and it leaves half a line on a full disk.
"""

import errno
import gzip
import os
import re
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hpcfwi.errors import RunError
from hpcfwi.events.state import RunState
from hpcfwi.events.types import SCHEMA, Event, LogSegment, Summary, parse_event
from hpcfwi.io import require_regular_file, write_atomic

MAX_LINE_BYTES = 1_000_000
# About 100,000 shots; they are compressed to a tenth in a quarter of a second.
SEGMENT_BYTES, COMPRESSION_LEVEL = 32_000_000, 3


class EventLog:
    """Appends events to ``events.jsonl``, or continues an existing log; safe from several threads.

    ``state`` is the state of the run after the events so far. ``on_event`` may be set to a function that is called with each
    event after it is written, in the thread that writes it. Raises RunError if the log cannot be read or opened.
    """

    def __init__(self, path: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.path, self.segment_bytes = path, segment_bytes
        self.on_event: Callable[[Event], None] = lambda _: None
        self._lock = threading.RLock()
        try:
            _cut_unfinished_line(path)
            self.state = read_state(path)
            self._open()
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror or error})") from None
        self.write(LogSegment(schema=SCHEMA, segment=self.state.segment or _last_older(path) + 1))

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # counted from here on, since asking a shared file system is slow
        self._size = os.fstat(self._file).st_size

    def write(self, event: Event) -> None:
        """Append an event, or drop it after :meth:`close`. Raises RunError on a full disk, and leaves no partial line."""
        line = event.line()
        with self._lock:
            if self._file < 0:
                return
            self._append(line)
            self.state.apply(event)
            if self._size > self.segment_bytes:
                self._rotate()
        self.on_event(event)

    def _append(self, line: bytes) -> None:
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror}); free some space or repair the file system, then type the "
                "same command again"
            ) from None
        self._size += len(line)

    def _rotate(self) -> None:
        """Continue in a new file. A reader that has opened the old file reads it to its end."""
        first = LogSegment(schema=SCHEMA, segment=self.state.segment + 1)
        summary = Summary(summary=replace(self.state, segment=first.segment).summary())
        try:
            compressed = gzip.compress(self.path.read_bytes(), COMPRESSION_LEVEL)
            write_atomic(_older(self.path, self.state.segment), lambda file: file.write(compressed))
            # after a kill here, the next driver continues in the existing file, and rewrites the compressed one
            write_atomic(self.path, lambda file: file.write(first.line() + summary.line()))
            old = self._file
            self._open()
            os.close(old)
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read or replaced ({error.strerror})") from None
        self.state.apply(first)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1


def _cut_unfinished_line(path: Path) -> None:
    """Remove the half line that a driver may leave when its machine dies."""
    if not path.exists():
        return
    with require_regular_file(path).open("rb+") as file:
        file.seek(max(0, path.stat().st_size - MAX_LINE_BYTES))
        start = file.tell()
        file.truncate(start + file.read().rfind(b"\n") + 1)


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number:04d}.jsonl.gz")


def _last_older(path: Path) -> int:
    """The number of the last older file of a log; 0 if none exists."""
    names = (file.name[len(path.stem) :] for file in path.parent.glob(f"{path.stem}-*.jsonl.gz"))
    return max((int(found[1]) for name in names if (found := re.match(r"-(\d{4})\.", name))), default=0)


def _parsed(lines: Iterable[bytes]) -> Iterator[Event]:
    return (event for event in map(parse_event, lines) if event is not None and not isinstance(event, Summary))


def read_events(path: Path | str) -> Iterator[Event]:
    """Read all events of a log, the oldest first; malformed lines and the summaries of older files are skipped.

    Parameters
    ----------
    path
        ``events.jsonl`` of a run folder.

    Yields
    ------
    Event
        An event of a kind in :mod:`hpcfwi.events.types`.

    Raises
    ------
    RunError
        If the log does not exist or cannot be read.
    """
    path = Path(path)
    try:
        # opened before the older files, so that a later rotation neither hides nor repeats an event
        with require_regular_file(path).open("rb") as file:
            first = next(_parsed(file), None)
            file.seek(0)
            for number in range(1, first.segment if isinstance(first, LogSegment) else 1):
                # the user may have removed it
                with suppress(FileNotFoundError), gzip.open(require_regular_file(_older(path, number))) as older:
                    yield from _parsed(older)
            yield from _parsed(file)
    except (OSError, EOFError, zlib.error) as error:
        raise RunError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def read_state(path: Path) -> RunState:
    """Return the state of a run from its log; a new state without a log. Raises OSError if it cannot be read."""
    follower = Follower(path)
    follower.read()
    return follower.state


class Follower:
    """Keeps ``state``, the state of a run, up to date with its log."""

    # Bytes of the first line that identify a file: the inode number of a removed file may be reused.
    FIRST_LINE_BYTES = 1000

    def __init__(self, path: Path) -> None:
        self.path, self.state = path, RunState()
        self._identity: tuple[int, bytes] | None = None
        self._offset = 0

    def read(self) -> bool:
        """Apply the events since the last call, and return whether any were found; raises OSError if unreadable."""
        if not self.path.exists():
            return False
        with require_regular_file(self.path).open("rb") as file:
            first = file.readline(self.FIRST_LINE_BYTES)
            if not first.endswith(b"\n") and len(first) < self.FIRST_LINE_BYTES:
                return False  # still being written
            identity = os.fstat(file.fileno()).st_ino, first
            if identity != self._identity:
                self.state, self._identity, self._offset = RunState(), identity, 0
            before = self._offset
            file.seek(before)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                self._offset += len(line)
                event = parse_event(line)
                if event is not None:
                    self.state.apply(event)
            return self._offset > before
