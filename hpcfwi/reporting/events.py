"""The event log: one JSON object a line, appended and never changed."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpcfwi.errors import RunError

__all__ = ["EventLog", "read_events"]


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
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise RunError(f"{path}: cannot be written ({error.strerror})") from None

    def write(self, event: str, **facts: Any) -> None:
        """Append one event; its time is now unless ``time`` (s since 1970) is among the facts."""
        told = {"time": round(facts.pop("time", time.time()), 3), "event": event, **facts}
        line = json.dumps(told, default=str).encode() + b"\n"
        with self._lock:
            if self._file >= 0:
                os.write(self._file, line)

    def close(self) -> None:
        """Close the file; later events are dropped."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Read an event log; a last line that is not whole is left out."""
    with path.open("rb") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event
