"""Follows the log of a run that others write, without reading anything twice."""

from __future__ import annotations

import gzip
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from hpcfwi.files import parse_json, regular
from hpcfwi.reporting.state import RunState

__all__ = ["Follower"]

# Seconds for which a log may be without its last file while another one is begun, which takes two renames.
MOMENT = 0.3
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
            self._heed(line)
        return self._offset > before

    def _heed(self, line: bytes) -> None:
        with suppress(ValueError):
            event = parse_json(line)
            if isinstance(event, dict):
                self.state.heed(event)

    def _open(self) -> IO[bytes] | None:
        until = time.monotonic() + MOMENT
        while True:
            try:
                return regular(self.path).open("rb")
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
                self._heed(line)
