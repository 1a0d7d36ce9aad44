"""The event log: one JSON object a line, appended and never changed.

One driver writes it, any number of readers read it, on whatever host. When the file has become long it is given a number,
``events-0001.jsonl``, and compressed; the log goes on in a new ``events.jsonl``, which begins with what the older ones come to.
What may stand in it says :mod:`hpcfwi.events.types`.
"""

from __future__ import annotations

import errno
import gzip
import os
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

__all__ = ["EventLog", "Follower", "read_events", "read_latest"]


LONGEST_LINE = 1_000_000
# Bytes of a file of the log; some 100,000 shots. Compressed it is about a tenth of that.
SEGMENT = 32_000_000
# Seconds that a reader waits for a file that is just being made.
ROTATION_TIMEOUT_S = 5.0
# Seconds for what is being compressed when the log is closed.
LAST_WORK = 10.0


class EventLog:
    """Appends events to ``events.jsonl``; safe from several threads.

    Parameters
    ----------
    path
        The file; made if it is not there.
    segment
        Bytes after which a new one is begun.
    on_event
        Called with each event after it is written, in the thread that writes it.
    """

    def __init__(self, path: Path, segment: int = SEGMENT, on_event: Callable[[Event], None] = lambda _: None) -> None:
        self.path, self.segment, self.on_event = path, segment, on_event
        self.state = RunState()
        self._lock = threading.RLock()
        self._number = 1
        self._compressing: threading.Thread | None = None
        try:
            _cut_unfinished_line(path)
            if path.exists():
                self._number = self._take_over()
            else:  # a driver was killed after it had renamed it
                self._number = len(_left_plain(path)) + len(list(path.parent.glob(f"{path.stem}-[0-9]*.jsonl.gz"))) + 1
            self._open()
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror or error})") from None
        self._compress_older()
        self.write(LogSegment(schema=SCHEMA, segment=self._number))

    def _take_over(self) -> int:
        """Read what is there; returns the number of this file."""
        number = 1
        for event in _lines(self.path):
            number = event.segment if isinstance(event, LogSegment) else number
            self.state.apply(event)
        return number

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        # nobody else writes; asking for it each time takes long on shared file systems
        self._size = os.fstat(self._file).st_size

    def write(self, event: Event) -> None:
        """Append one event.

        Raises
        ------
        RunError
            If the line cannot be written in full; no part of it stays then.
        """
        line = event.line()
        with self._lock:
            if self._file < 0:
                return
            self._append(line)
            self.state.apply(event)
            if self._size > self.segment:
                self._begin_another()
        self.on_event(event)

    def _append(self, line: bytes) -> None:
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror}); make room or mend it, then start the same command again"
            ) from None
        self._size += len(line)

    def _begin_another(self) -> None:
        """Go on in a new file. A reader that has this one open reads it to its end."""
        number = self._number + 1
        text = LogSegment(schema=SCHEMA, segment=number).line() + Summary(summary=self.state.summary()).line()
        fresh = self.path.with_name(f".{self.path.name}.next{UNFINISHED_SUFFIX}")
        try:
            # whole before it has its name: a reader has to know which older files there are
            write_atomic(fresh, lambda file: file.write(text))
            self.path.rename(_numbered(self.path, self._number))
            fresh.rename(self.path)
            os.close(self._file)
            self._open()
        except OSError as error:
            raise RunError(f"{self.path}: cannot be renamed or made anew ({error.strerror})") from None
        self._number = number
        self._compress_older()

    def _compress_older(self) -> None:
        """In the background; what is left undone, on a full disk for one, is done by the next start or not at all."""
        left = _left_plain(self.path)
        if left and (self._compressing is None or not self._compressing.is_alive()):
            self._compressing = threading.Thread(target=_compress, args=(left,), name="hpcfwi-events", daemon=True)
            self._compressing.start()

    def close(self) -> None:
        """Close the file; later events are dropped."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
        if self._compressing is not None:
            self._compressing.join(LAST_WORK)


def _compress(paths: list[Path]) -> None:
    for path in paths:
        with suppress(OSError, StagingError):
            write_atomic(path.with_name(f"{path.name}.gz"), lambda file, path=path: _squeeze(path, file))  # type: ignore[misc]
            path.unlink()


def _squeeze(path: Path, target: IO[bytes]) -> None:
    with path.open("rb") as source, gzip.GzipFile(path.name, "wb", 6, target) as squeezed:
        shutil.copyfileobj(source, squeezed, 1 << 20)


def _numbered(path: Path, number: int) -> Path:
    """An older file of a log."""
    return path.with_name(f"{path.stem}-{number:04d}.jsonl")


def _left_plain(path: Path) -> list[Path]:
    """Older files that are not compressed yet."""
    return sorted(path.parent.glob(f"{path.stem}-[0-9]*.jsonl"))


def _cut_unfinished_line(path: Path) -> None:
    """A driver that died with its machine may have left half a line."""
    if not path.exists():
        return
    with require_regular_file(path).open("rb+") as file:
        file.seek(max(0, path.stat().st_size - LONGEST_LINE))
        before = file.tell()
        tail = file.read()
        file.truncate(before + tail.rfind(b"\n") + 1)


def _parsed(lines: Iterable[bytes]) -> Iterator[Event]:
    """The events in lines; malformed lines are skipped."""
    return (event for event in map(parse_event, lines) if event is not None)


def _lines(path: Path) -> Iterator[Event]:
    with _opened(path) as file:
        yield from _parsed(file)


def _opened(path: Path) -> IO[bytes]:
    """The last file of a log, which for a moment is not there while another one is begun."""
    until = time.monotonic() + ROTATION_TIMEOUT_S
    while True:
        try:
            return require_regular_file(path).open("rb")
        except FileNotFoundError:
            if time.monotonic() > until or not any(path.parent.glob(f"{path.stem}-[0-9]*.jsonl*")):
                raise
        time.sleep(0.01)


def _older_lines(path: Path) -> Iterator[Event]:
    """Of an older file, which may be compressed at this moment; nothing where somebody has removed it."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        yield from _parsed(file)
        return
    # looked for only now: it has been there since before the other one was removed
    with suppress(FileNotFoundError), gzip.open(f"{path}.gz", "rb") as file:
        yield from _parsed(file)


def _without_summaries(events: Iterable[Event]) -> Iterator[Event]:
    return (event for event in events if not isinstance(event, Summary))


def read_events(path: Path) -> Iterator[Event]:
    """Read an event log, its older files first; a last line that is not whole is left out, and so are summaries of older files.

    Raises
    ------
    RunError
        If there is none, or it cannot be read.
    """
    try:
        # opened first: what is renamed from now on is still read, and only once
        with _opened(path) as file:
            first = next(_parsed(file), None)
            number = first.segment if isinstance(first, LogSegment) else 1
            file.seek(0)
            # not those that a folder's listing has: one that is just being renamed may be missing there
            for older in range(1, number):
                yield from _without_summaries(_older_lines(_numbered(path, older)))
            yield from _without_summaries(_parsed(file))
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise RunError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def read_latest(path: Path) -> Iterator[Event]:
    """Read the last file of a log alone, which begins with what the older ones come to: enough to know how a run stands.

    Raises
    ------
    RunError
        If there is none, or it cannot be read.
    """
    try:
        yield from _lines(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None


# Seconds for which a log may be without its last file while another one is begun, which takes two renames.
ROTATION_PAUSE_S = 0.3
# Bytes of a first line, by which files are told apart.
FIRST = 1000


class Follower:
    """Folds events into how the run stands, as they come.

    Parameters
    ----------
    path
        ``events.jsonl``: the last file of the log, which begins with what the older ones come to.

    Attributes
    ----------
    state
        How the run stands.
    there
        Whether there is a log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = RunState()
        self.there = False
        self._known: tuple[int, bytes] | None = None
        self._offset = 0

    def read(self) -> bool:
        """Take what has come since the last time, and tell whether anything has.

        Raises
        ------
        OSError
            If the log cannot be read.
        """
        file = self._open()
        if file is None:
            return False
        self.there = True
        with file:
            first = file.readline(FIRST)
            # the number of a file that is gone may be that of another one
            known = os.fstat(file.fileno()).st_ino, first
            if not first.endswith(b"\n") and len(first) < FIRST:
                return False  # not whole yet
            if known != self._known:
                self.state, self._known, self._offset = RunState(), known, 0
            file.seek(self._offset)
            return self._take(file)

    def _take(self, lines: IO[bytes]) -> bool:
        before = self._offset
        for line in lines:
            if not line.endswith(b"\n"):
                break  # it is just being written
            self._offset += len(line)
            self._apply(line)
        return self._offset > before

    def _open(self) -> IO[bytes] | None:
        until = time.monotonic() + ROTATION_PAUSE_S
        while True:
            try:
                return require_regular_file(self.path).open("rb")
            except FileNotFoundError:
                older = sorted(self.path.parent.glob(f"{self.path.stem}-[0-9]*.jsonl*"))
                if not older:
                    return None
                if time.monotonic() > until:
                    self._read_older(older[-1])
                    return None
            time.sleep(0.01)

    def _read_older(self, path: Path) -> None:
        """A driver was killed after it had renamed its file, and before there was another one."""
        if self._known is not None:
            return  # what is in it was read when it was the last one
        self.state, self.there = RunState(), True
        with suppress(EOFError, gzip.BadGzipFile), gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for line in file:
                self._apply(line)

    def _apply(self, line: bytes) -> None:
        event = parse_event(line)
        if event is not None:
            self.state.apply(event)
