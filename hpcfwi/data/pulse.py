"""Whether the driver of a run is alive, as far as it can be seen from any host and without touching anything."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hpcfwi.data.lease import BEAT, PATIENCE, Holder, parse_holder
from hpcfwi.files import regular

__all__ = ["Pulse"]

# Seconds in which a driver that is alive has told so, on a file system that is busy.
FRESH = 2.5 * BEAT
# Seconds by which clocks of hosts that are kept right may differ.
SLACK = 2.0
# A shared file system may lose sight of a file that is just being replaced.
TRIES, PAUSE = 3, 0.05


class Pulse:
    """Looks at a lease (:mod:`hpcfwi.data.lease`), once or again and again.

    Of a driver on this host its process tells. Of another one a heartbeat that goes on is believed, or one that is no older
    than it should be: by the time of the file, which the file server gives, and this host's clock. Where these differ a beat
    has to be waited for.

    Parameters
    ----------
    path
        ``driver.json``.

    Attributes
    ----------
    holder
        The driver; None where there is none, or it must not be read.
    there
        Whether there is a lease.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder: Holder | None = None
        self.there = False
        self._beat: tuple[int, int] | None = None
        self._written = 0.0
        self._changed = time.monotonic()
        self._fresh = self._goes_on = False

    def look(self) -> None:
        """See what the lease says now."""
        for left in reversed(range(TRIES)):
            try:
                beat = self._read()
                break
            except FileNotFoundError:
                self.there, self.holder, self._beat = False, None, None
                return
            except OSError:
                if not left:
                    self.there, self.holder = True, None
                    return
                time.sleep(PAUSE)
        if beat != self._beat:
            self._goes_on = self._beat is not None
            self._beat, self._changed = beat, time.monotonic()
            self._fresh = -SLACK <= self.age <= FRESH
        self.there = True

    def _read(self) -> tuple[int, int]:
        """Take the driver, and return what changes with every heartbeat."""
        try:
            # opened first: shared file systems look for what is new when a file is opened, not when it is asked for
            with regular(self.path).open("rb") as file:
                told = os.fstat(file.fileno())
                self.holder = parse_holder(file.read())
        except PermissionError:
            told = self.path.stat()
            self.holder = None
        self._written = told.st_mtime
        return told.st_ino, told.st_mtime_ns

    @property
    def age(self) -> float:
        """Seconds since the last heartbeat, by the file server's clock and this host's."""
        return time.time() - self._written

    @property
    def alive(self) -> bool | None:
        """Whether the driver is alive; None as long as that is not known."""
        if not self.there:
            return False
        dead = self.holder.known_dead() if self.holder is not None else None
        if dead is not None:
            return not dead
        still = time.monotonic() - self._changed
        if still < FRESH and (self._goes_on or self._fresh):
            return True
        if still >= PATIENCE or (not self._goes_on and still > BEAT and self.age > PATIENCE):
            return False
        return None

    def watch(self, seconds: float = BEAT + 1) -> None:
        """Look until it is known whether the driver is alive, or so many seconds have passed."""
        until = time.monotonic() + seconds
        while self.alive is None and time.monotonic() < until:
            time.sleep(0.2)
            self.look()
