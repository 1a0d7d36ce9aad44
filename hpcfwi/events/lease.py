"""Who is at work on a run folder: one driver, on whatever host; one that has died is recognised, and its place taken.

The lease is a small file with a heartbeat. A driver on the same host is alive if its process is; of one on another host only
a heartbeat that goes on is believed, since clocks may differ. File locks, which not every shared file system has, only keep
two drivers apart that come at the same moment.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from hpcfwi.errors import InputError, RunError, StagingError
from hpcfwi.io import parse_json, require_regular_file, shortened, write_atomic

__all__ = ["DEAD_AFTER_S", "HEARTBEAT_INTERVAL_S", "Holder", "Lease", "Liveness", "parse_holder"]

# Seconds between two heartbeats, and without one after which a driver on another host is dead.
HEARTBEAT_INTERVAL_S, DEAD_AFTER_S = 5.0, 30.0
# Seconds for which another one that takes the lease at the same moment is waited for.
LOCK_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Holder:
    """A driver.

    Parameters
    ----------
    token
        Different for each.
    host, machine
        Its host's name, and what tells this start of it, and its process namespace, from others.
    pid, started
        Its process, and when that began (s after the host's start, which nobody who sets the clock changes).
    job, restarts
        Its batch job, and how often that was started before; empty and 0 without one.
    beat
        Its heartbeats so far.
    """

    token: str
    host: str
    machine: str
    pid: int
    started: float
    job: str
    restarts: int
    beat: int = 0

    @classmethod
    def this(cls) -> Holder:
        """The driver in this process."""
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
        return cls(
            secrets.token_hex(8),
            socket.gethostname().partition(".")[0],
            _machine(),
            os.getpid(),
            _began(os.getpid()),
            os.environ.get("SLURM_JOB_ID") or os.environ.get("PBS_JOBID") or "",
            int(restarts) if restarts.isdigit() else 0,
        )

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return shortened(f"process {self.pid} on {self.host}{job}")

    @property
    def sensible(self) -> bool:
        """Whether it may be a driver's: of the right types, and with the number of a process."""
        texts = (self.token, self.host, self.machine, self.job)
        numbers = (self.pid, self.restarts, self.beat)
        return (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(number, int) for number in numbers)
            and isinstance(self.started, (int, float))
            and self.pid > 0
            and abs(self.started) < math.inf
        )

    def gives_way_to(self, other: Holder) -> bool:
        """Whether the other is a later start of the same batch job; after a cut link a job may run on two nodes."""
        return bool(self.job) and self.job == other.job and self.restarts < other.restarts

    def known_dead(self) -> bool | None:
        """Whether its process is gone; None where that cannot be seen from here."""
        if self.machine != _machine():
            return None
        with suppress(psutil.Error):
            # one that was killed, and whose parent has not asked for it yet, still has its number
            zombie = psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
            return zombie or abs(_began(self.pid) - self.started) > 1
        return True


class Lease:
    """A driver's right to write to a run folder.

    Parameters
    ----------
    path
        The file.
    say
        Told why one has to wait.
    """

    def __init__(self, path: Path, say: Callable[[str], None] = lambda _: None) -> None:
        self.path, self.say = path, say
        self._own: Holder | None = None
        self._end = threading.Event()

    def acquire(self) -> Holder | None:
        """Take the lease; returns the dead driver whose it was, if any.

        Raises
        ------
        InputError
            If another driver has it, and is alive.
        """
        own, holder = Holder.this(), self._read()
        # not under the guard, which the other one's heartbeat needs
        refused = holder is not None and not holder.gives_way_to(own) and self._alive(holder)
        with self._guard():
            now = self._read()
            if refused or (now is not None and now != holder and not now.gives_way_to(own)):
                raise InputError(
                    f"{self.path.parent}: another hpcfwi is at work on this run folder ({now or holder}); wait for it, or "
                    "choose --run-dir"
                )
            self._write(own)
        self._own = own
        self._thread = threading.Thread(target=self._keep, name="hpcfwi-lease", daemon=True)
        self._thread.start()
        return holder

    def verify(self) -> None:
        """See that the lease is still this driver's; to be called before anything is written that others rely on.

        Raises
        ------
        RunError
            If another driver has taken it.
        """
        holder = self._read()
        if self._own is not None and holder is not None and holder.token != self._own.token:
            raise RunError(
                f"{self.path.parent}: another driver ({holder}) has taken this run over; this one stops and writes no more"
            )

    def release(self) -> None:
        """Give the lease back, unless somebody else has it by now."""
        if self._own is None:
            return
        self._end.set()
        self._thread.join(HEARTBEAT_INTERVAL_S)
        with self._guard():
            holder = self._read()
            if holder is not None and holder.token == self._own.token:
                self.path.unlink(missing_ok=True)
        self._own = None

    def _keep(self) -> None:
        while not self._end.wait(HEARTBEAT_INTERVAL_S):
            # a full disk or one that does not answer: others may take the run over, which verify() sees
            with suppress(StagingError, OSError):
                if not self.path.parent.is_dir():
                    continue  # and it is not made again
            with suppress(StagingError, OSError), self._guard():
                holder = self._read()
                if self._own is None or (holder is not None and holder.token != self._own.token):
                    return
                self._own = replace(self._own, beat=self._own.beat + 1)
                self._write(self._own)

    def _alive(self, holder: Holder) -> bool:
        dead = holder.known_dead()
        if dead is not None:
            return not dead
        self.say(f"{self.path.parent}: was last used by {holder}; watching for {DEAD_AFTER_S:g} s whether it is alive")
        until = time.monotonic() + DEAD_AFTER_S
        while time.monotonic() < until:
            time.sleep(min(1.0, DEAD_AFTER_S / 10))
            now = self._read()
            if now is None:
                return False  # it has just ended
            if now != holder:
                return True
        return False

    def _read(self) -> Holder | None:
        """Who has the lease; what cannot be understood is nobody's."""
        try:
            return parse_holder(require_regular_file(self.path).read_bytes())
        except OSError:
            return None

    def _write(self, holder: Holder) -> None:
        text = json.dumps(asdict(holder)).encode()
        write_atomic(self.path, lambda file: file.write(text), sync=False)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Keep others out for the moment, where the file system has locks."""
        lock = FileLock(self.path.with_name(".lock"))
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_S)
        except (Timeout, OSError, NotImplementedError):
            yield
            return
        try:
            yield
        finally:
            lock.release()


def parse_holder(content: bytes) -> Holder | None:
    """The driver that the content of a lease tells of; what cannot be understood is nobody's."""
    try:
        holder = Holder(**parse_json(content))
    except (ValueError, TypeError):
        return None
    return holder if holder.sensible else None


def _began(pid: int) -> float:
    """When a process began, in seconds after the host's start; an error of psutil where there is none."""
    process = psutil.Process(pid)
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return process.create_time() - psutil.boot_time()
    # not that difference where it can be helped: its parts change one after the other when the clock is set
    return ticks / os.sysconf("SC_CLK_TCK")


def _machine() -> str:
    """What tells this start of this host, and this process namespace, from others."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    names = [boot.read_text().strip() if boot.exists() else f"{psutil.boot_time():.0f}"]
    with suppress(OSError):
        names.append(Path("/proc/self/ns/pid").readlink().name)
    return " ".join([socket.gethostname(), *names])


# Seconds in which a driver that is alive has told so, on a file system that is busy.
FRESH = 2.5 * HEARTBEAT_INTERVAL_S
# Seconds by which clocks of hosts that are kept right may differ.
SLACK = 2.0
# A shared file system may lose sight of a file that is just being replaced.
TRIES, PAUSE = 3, 0.05


class Liveness:
    """Looks at a lease (:mod:`hpcfwi.events.lease`), once or again and again.

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
            with require_regular_file(self.path).open("rb") as file:
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
        if still >= DEAD_AFTER_S or (not self._goes_on and still > HEARTBEAT_INTERVAL_S and self.age > DEAD_AFTER_S):
            return False
        return None

    def watch(self, seconds: float = HEARTBEAT_INTERVAL_S + 1) -> None:
        """Look until it is known whether the driver is alive, or so many seconds have passed."""
        until = time.monotonic() + seconds
        while self.alive is None and time.monotonic() < until:
            time.sleep(0.2)
            self.look()
