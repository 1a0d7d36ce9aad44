"""The event log: one JSON object a line, appended and never changed."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcfwi.errors import RunError
from hpcfwi.files import parse_json, regular

__all__ = ["EventLog", "read_events"]


LONGEST_LINE = 1_000_000


class EventLog:
    """Appends events to ``events.jsonl``; safe from several threads.

    Parameters
    ----------
    path
        The file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            _cut_unfinished_line(path)
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror or error})") from None

    def write(self, event: str, **facts: Any) -> None:
        """Append one event; its time is now unless ``time`` (s since 1970) is among the facts.

        Raises
        ------
        RunError
            If the line cannot be written in full; no part of it stays then.
        """
        told = {"time": round(facts.pop("time", time.time()), 3), "event": event, **facts}
        line = json.dumps(told, default=str).encode() + b"\n"
        with self._lock:
            if self._file >= 0:
                self._append(line)

    def _append(self, line: bytes) -> None:
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.ftruncate(self._file, size)
            raise RunError(
                f"{self.path}: cannot be written ({error.strerror}); make room or mend it, then start the same command again"
            ) from None

    def close(self) -> None:
        """Close the file; later events are dropped."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1


def _cut_unfinished_line(path: Path) -> None:
    """A driver that died with its machine may have left half a line."""
    if not path.exists():
        return
    with regular(path).open("rb+") as file:
        file.seek(max(0, path.stat().st_size - LONGEST_LINE))
        before = file.tell()
        tail = file.read()
        file.truncate(before + tail.rfind(b"\n") + 1)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Read an event log; a last line that is not whole is left out.

    Raises
    ------
    RunError
        If there is none, or it cannot be read.
    """
    try:
        with regular(path).open("rb") as file:
            for line in file:
                try:
                    event = parse_json(line)
                except ValueError:
                    continue
                if isinstance(event, dict):
                    yield event
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
