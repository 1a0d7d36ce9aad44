"""The event log ``events.jsonl``: one JSON object a line, appended by one driver and never changed.

A file that has grown to :data:`SEGMENT_BYTES` is renamed to ``events-0001.jsonl`` and compressed, and the log continues in a
new ``events.jsonl`` that begins with a summary of the older ones. Any number of readers follow it, on any host::

    log = EventLog(folder / "events.jsonl")
    log.write(RunWarning(message="the disk is nearly full"))

    for event in read_events(folder / "events.jsonl"):  # all files
        print(event.time, event.event)
    state = read_state(folder / "events.jsonl")  # the last file is enough

The standard library's rotating handler would not do: it renumbers every older file, its new file has its name before it has
its first lines, and it leaves half a line on a full disk.
"""

from __future__ import annotations

import errno
import gzip
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from hpcfwi.errors import RunError, StagingError
from hpcfwi.events.state import RunState
from hpcfwi.events.types import SCHEMA, Event, LogSegment, Summary, parse_event
from hpcfwi.io import UNFINISHED_SUFFIX, require_regular_file, write_atomic

MAX_LINE_BYTES = 1_000_000
# Some 100,000 shots; compressed, a tenth of that.
SEGMENT_BYTES = 32_000_000
# The two renames of a rotation leave a moment without events.jsonl.
ROTATION_TIMEOUT_S = 0.5
COMPRESSION_TIMEOUT_S = 10.0


class EventLog:
    """Append events to ``events.jsonl``; safe from several threads.

    Parameters
    ----------
    path
        The file; created if it does not exist. A log that exists is continued.
    segment_bytes
        Size at which a new file is begun.
    on_event
        Called with each event after it is written, in the thread that writes it.

    Attributes
    ----------
    state
        How the run stands after the events so far.

    Raises
    ------
    RunError
        If the log cannot be read or opened.
    """

    def __init__(
        self, path: Path, segment_bytes: int = SEGMENT_BYTES, on_event: Callable[[Event], None] = lambda _: None
    ) -> None:
        self.path, self.segment_bytes, self.on_event = path, segment_bytes, on_event
        self._lock = threading.RLock()
        self._compression: threading.Thread | None = None
        try:
            _cut_unfinished_line(path)
            self.state = read_state(path)
            self._open()
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror or error})") from None
        self._compress_older()
        self._segment = max(self.state.segment, _last_older(path) + 1)
        self.write(LogSegment(schema=SCHEMA, segment=self._segment))

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # counted from here on: asking a shared file system for it takes long
        self._size = os.fstat(self._file).st_size

    def write(self, event: Event) -> None:
        """Append an event; after :meth:`close` it is dropped.

        Raises
        ------
        RunError
            If the line cannot be written in full; no part of it stays in the file.
        """
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
        """Continue in a new file. A reader that has the old one open reads it to its end."""
        first = LogSegment(schema=SCHEMA, segment=self._segment + 1)
        self.state.apply(first)
        text = first.line() + Summary(summary=self.state.summary()).line()
        fresh = self.path.with_name(f".{self.path.name}.next{UNFINISHED_SUFFIX}")
        try:
            # complete before it gets its name: its first line tells readers which older files there are
            write_atomic(fresh, lambda file: file.write(text))
            self.path.rename(_older(self.path, self._segment))
            fresh.rename(self.path)
            os.close(self._file)
            self._open()
        except OSError as error:
            raise RunError(f"{self.path}: cannot be renamed or created anew ({error.strerror})") from None
        self._segment += 1
        self._compress_older()

    def _compress_older(self) -> None:
        """Compress older files in the background; the next start does what this one leaves, on a full disk for example."""
        plain = sorted(self.path.parent.glob(f"{self.path.stem}-[0-9]*.jsonl"))
        if plain and (self._compression is None or not self._compression.is_alive()):
            self._compression = threading.Thread(target=_compress, args=(plain,), name="hpcfwi-events", daemon=True)
            self._compression.start()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
        if self._compression is not None:
            self._compression.join(COMPRESSION_TIMEOUT_S)


def _compress(paths: list[Path]) -> None:
    def copy(path: Path, target: IO[bytes]) -> None:
        with path.open("rb") as source, gzip.GzipFile(path.name, "wb", 6, target) as compressed:
            shutil.copyfileobj(source, compressed, 1 << 20)

    for path in paths:
        with suppress(OSError, StagingError):
            write_atomic(path.with_name(f"{path.name}.gz"), lambda file, path=path: copy(path, file))  # type: ignore[misc]
            path.unlink()


def _cut_unfinished_line(path: Path) -> None:
    """Remove the half line that a driver may leave when its machine dies."""
    if not path.exists():
        return
    with require_regular_file(path).open("rb+") as file:
        file.seek(max(0, path.stat().st_size - MAX_LINE_BYTES))
        start = file.tell()
        file.truncate(start + file.read().rfind(b"\n") + 1)


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number:04d}.jsonl")


def _last_older(path: Path) -> int:
    """The number of the last older file of a log; 0 where there is none."""
    names = (file.name[len(path.stem) :] for file in path.parent.glob(f"{path.stem}-*.jsonl*"))
    return max((int(found[1]) for name in names if (found := re.fullmatch(r"-(\d{4})\.jsonl(\.gz)?", name))), default=0)


def _open_current(path: Path) -> IO[bytes] | None:
    """Open the last file of a log; None where there is none, even after a rotation that may be under way."""
    until = time.monotonic() + ROTATION_TIMEOUT_S
    while True:
        try:
            return require_regular_file(path).open("rb")
        except FileNotFoundError:
            if time.monotonic() > until or not _last_older(path):
                return None
        time.sleep(0.01)


def _older_events(path: Path, number: int) -> Iterator[Event]:
    """The events of an older file, which may be compressed at this moment; none where the user has removed it."""
    plain = _older(path, number)
    # the compressed file has its name before the other one is removed
    for name, opener in ((plain, open), (Path(f"{plain}.gz"), gzip.open)):
        with suppress(FileNotFoundError), opener(require_regular_file(name), "rb") as file:
            yield from _parsed(file)
            return


def _parsed(lines: Iterable[bytes]) -> Iterator[Event]:
    return (event for event in map(parse_event, lines) if event is not None)


def read_events(path: Path) -> Iterator[Event]:
    """Read all events of a log, the oldest first; malformed lines and the summaries of older files are skipped.

    Raises
    ------
    RunError
        If there is no log, or it cannot be read.
    """
    try:
        # opened before the older files: a rotation from now on neither hides nor repeats an event
        file = _open_current(path)
        if file is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with file:
            first = next(_parsed(file), None)
            file.seek(0)
            # by number, not by the folder's listing, which may miss a file that is being renamed
            for number in range(1, first.segment if isinstance(first, LogSegment) else 1):
                yield from (event for event in _older_events(path, number) if not isinstance(event, Summary))
            yield from (event for event in _parsed(file) if not isinstance(event, Summary))
    except (OSError, EOFError) as error:
        raise RunError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def read_state(path: Path) -> RunState:
    """How the run stands whose log this is; a new :class:`RunState` where there is no log.

    Raises
    ------
    OSError
        If the log cannot be read.
    """
    follower = Follower(path)
    follower.read()
    return follower.state


class Follower:
    """Apply the events of a log to a state as they come.

    Parameters
    ----------
    path
        ``events.jsonl``.

    Attributes
    ----------
    state
        How the run stands.
    """

    # Bytes of the first line by which files are told apart: the inode number of a removed file may be reused.
    FIRST_LINE_BYTES = 1000

    def __init__(self, path: Path) -> None:
        self.path, self.state = path, RunState()
        self._identity: tuple[int, bytes] | None = None
        self._offset = 0

    def read(self) -> bool:
        """Apply the events since the last call, and return whether there are any.

        Raises
        ------
        OSError
            If the log cannot be read.
        """
        file = _open_current(self.path)
        if file is None:
            return self._read_last_older()
        with file:
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

    def _read_last_older(self) -> bool:
        """A driver was killed between the two renames of a rotation; its last file has a number already."""
        number = _last_older(self.path)
        if not number or self._identity is not None:
            return False  # what is in it was read while it was the current file
        self.state = RunState()
        with suppress(EOFError, gzip.BadGzipFile):
            for event in _older_events(self.path, number):
                self.state.apply(event)
        return True
