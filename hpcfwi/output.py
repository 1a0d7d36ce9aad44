"""Standard output and error, whose reader, terminal or disk may go away: what is at work goes on."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import Any, TextIO

__all__ = ["abandoned", "lost", "secure"]

# Nobody is there any more who would miss anything.
GONE = (errno.EPIPE, errno.EIO, errno.EBADF)


class _Patient(io.RawIOBase):
    """A descriptor that is written to as far as it can be."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.lost = ""
        self.abandoned = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)

    def write(self, data: Any) -> int:
        try:
            return os.write(self.descriptor, data)
        except BlockingIOError:
            select.select([], [self.descriptor], [], 1.0)
            return 0
        except OSError as error:
            if error.errno in GONE:
                self.abandoned = True
            else:
                self.lost = error.strerror or str(error)
            return len(memoryview(data))


_streams: dict[int, _Patient] = {}


def secure() -> None:
    """Take over standard output and error; where one is closed it leads nowhere, and not into the next file that is opened."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout, sys.stderr = _stream(1, sys.stdout), _stream(2, sys.stderr)


def _stream(descriptor: int, before: TextIO | None) -> TextIO:
    # names of files, and what is in them, may be letters that the terminal has not
    raw = _streams[descriptor] = _Patient(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=before.encoding if before is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or raw.isatty(),
    )


def lost() -> str:
    """Why some of the output could not be written; empty where all was, or nobody was there any more."""
    return next((raw.lost for raw in _streams.values() if raw.lost), "")


def abandoned() -> bool:
    """Whether nobody reads standard output any more."""
    return 1 in _streams and _streams[1].abandoned
