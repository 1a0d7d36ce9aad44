"""The lease of a run folder, ``driver.json``: only one driver at a time uses the folder, and others see whether it is alive.

The lease is a small file with a heartbeat. A driver on this host is alive if its process exists. A driver on another host is
alive if its heartbeat continues, since the clocks of hosts may differ. File locks, which some shared file systems lack, only
separate drivers that start at the same moment.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import psutil
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from hpcfwi.errors import InputError, RunError, StagingError
from hpcfwi.io import file_lock, require_regular_file, shortened, write_json

# A driver on another host is dead after DEAD_AFTER_S without a heartbeat.
HEARTBEAT_INTERVAL_S, DEAD_AFTER_S = 5.0, 30.0
LOCK_TIMEOUT_S = 10.0  # another driver may hold the lock for a moment
# The largest age of a living driver's heartbeat on a busy file system, and the largest difference of synchronised clocks.
FRESH_S, CLOCK_SKEW_S = 2.5 * HEARTBEAT_INTERVAL_S, 2.0
# On a shared file system, reading a file that is being replaced may fail (ESTALE).
READ_ATTEMPTS, READ_PAUSE_S = 3, 0.05


@dataclass(frozen=True)
class Holder:
    """The driver that holds a lease, with a unique ``token``."""

    __pydantic_config__ = ConfigDict(strict=True, allow_inf_nan=False, extra="forbid")
    token: str
    host: str
    machine: str  # identifies the host's boot and the process namespace
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    started: float  # start of the process, s since the host's boot, so that setting the clock changes nothing
    job: str  # its batch job; empty outside a job
    restarts: int  # how often the batch system has restarted that job
    heartbeats: int = 0

    @classmethod
    def current(cls, job: str = "", restarts: int = 0) -> Holder:
        """The driver in this process."""
        host, pid = socket.gethostname().partition(".")[0], os.getpid()
        return cls(secrets.token_hex(8), host, _machine(), pid, _start_since_boot(pid), job, restarts)

    def __str__(self) -> str:
        return shortened(f"process {self.pid} on {self.host}{f', job {self.job}' if self.job else ''}")

    def yields_to(self, other: Holder) -> bool:
        """Whether the other is a later start of the same batch job: after a network failure, a job may run on two nodes."""
        return bool(self.job) and self.job == other.job and self.restarts < other.restarts

    def is_alive(self) -> bool | None:
        """Whether the process exists; None if it is on another host."""
        if self.machine != _machine():
            return None
        with suppress(psutil.Error):
            # a killed process keeps its number until its parent has waited for it
            zombie = psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE
            return not zombie and abs(_start_since_boot(self.pid) - self.started) <= 1
        return False


class Lease:
    """A driver's right to write to a run folder; ``print_line`` prints why the driver has to wait."""

    def __init__(
        self, path: Path, print_line: Callable[[str], None] = lambda _: None, job: str = "", restarts: int = 0
    ) -> None:
        self.path, self.print_line, self.job, self.restarts = path, print_line, job, restarts
        self._own: Holder | None = None
        self._released = threading.Event()

    def acquire(
        self,
        used: str = "another hpcfwi is at work on this run folder",
        other: str = "choose another folder with --run-dir",
    ) -> Holder | None:
        """Take the lease, and return the dead driver that held it, if any; raise InputError if a living one holds it.

        The message says with ``used`` that the folder is in use, and with ``other`` what to do instead of waiting.
        """
        own, holder = Holder.current(self.job, self.restarts), self._read()
        # outside the lock, which the other driver's heartbeat needs
        refused = holder is not None and not holder.yields_to(own) and self._is_alive(holder)
        with self._locked():
            now = self._read()
            if refused or (now is not None and now != holder and not now.yields_to(own)):
                raise InputError(f"{self.path.parent}: {used} ({now or holder}); wait for it, or {other}")
            write_json(self.path, asdict(own), sync=False)
        self._own = own
        self._thread = threading.Thread(target=self._beat, name="hpcfwi-lease", daemon=True)
        self._thread.start()
        return holder

    def verify(self) -> None:
        """Raise RunError if another driver has taken the lease; call it before writing anything that others rely on."""
        other = self._other_holder()
        if other is not None:
            raise RunError(
                f"{self.path.parent}: another driver ({other}) has taken over this run; this one stops and writes no more"
            )

    def release(self) -> None:
        """Remove the lease, unless another driver has taken it."""
        if self._own is None:
            return
        self._released.set()
        self._thread.join(HEARTBEAT_INTERVAL_S)
        with self._locked():
            if self._other_holder() is None:
                self.path.unlink(missing_ok=True)
        self._own = None

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_INTERVAL_S):
            # the disk may be full or not respond; if another driver takes over, verify() raises
            with suppress(StagingError, OSError):
                if not self.path.parent.is_dir():
                    continue  # the user has moved the folder: do not recreate it
                with self._locked():
                    if self._own is None or self._other_holder() is not None:
                        return
                    self._own = replace(self._own, heartbeats=self._own.heartbeats + 1)
                    write_json(self.path, asdict(self._own), sync=False)

    def _is_alive(self, holder: Holder) -> bool:
        alive = holder.is_alive()
        if alive is not None:
            return alive
        self.print_line(f"{self.path.parent}: {holder} used it last; waiting {DEAD_AFTER_S:g} s for its heartbeat")
        until = time.monotonic() + DEAD_AFTER_S
        while time.monotonic() < until:
            time.sleep(min(1.0, DEAD_AFTER_S / 10))
            now = self._read()
            if now != holder:
                return now is not None  # a heartbeat, or the driver has just ended
        return False

    def _read(self) -> Holder | None:
        try:
            return parse_holder(require_regular_file(self.path).read_bytes())
        except OSError:
            return None

    def _other_holder(self) -> Holder | None:
        """The driver that has taken the lease from this one, if any."""
        holder = self._read()
        taken = holder is not None and self._own is not None and holder.token != self._own.token
        return holder if taken else None

    def _locked(self) -> AbstractContextManager[None]:
        """Exclude other drivers for a moment."""
        return file_lock(self.path.with_name(".lock"), LOCK_TIMEOUT_S)


class Liveness:
    """Whether the driver of a run is alive, found on any host by reading its lease once or repeatedly.

    A driver on another host is alive if its heartbeat changes, or is recent by this host's clock and the file's time, which
    the file server sets. If these clocks differ, the reader has to wait for a heartbeat.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # whether a lease exists, and its driver; None if the lease is malformed or unreadable
        self.exists = False
        self.holder: Holder | None = None
        self._version: tuple[int, int] | None = None
        self._written = 0.0
        self._changed = time.monotonic()
        self._fresh = self._beating = False

    def check(self) -> None:
        """Read the lease."""
        self.exists, self.holder = True, None
        for _ in range(READ_ATTEMPTS):
            try:
                version = self._read()
            except FileNotFoundError:
                self.exists, self._version = False, None
                return
            except OSError:
                time.sleep(READ_PAUSE_S)
                continue
            if version != self._version:
                self._beating = self._version is not None
                self._version, self._changed = version, time.monotonic()
                self._fresh = -CLOCK_SKEW_S <= self.heartbeat_age <= FRESH_S
            return

    def _read(self) -> tuple[int, int]:
        """Read the holder; return the file's version, which changes with every heartbeat."""
        try:
            # shared file systems check for changes when a file is opened, not when its status is read
            with require_regular_file(self.path).open("rb") as file:
                status = os.fstat(file.fileno())
                self.holder = parse_holder(file.read())
        except PermissionError:
            status, self.holder = self.path.stat(), None
        self._written = status.st_mtime
        return status.st_ino, status.st_mtime_ns

    @property
    def heartbeat_age(self) -> float:
        """Seconds since the last heartbeat, by the file server's clock and this host's."""
        return time.time() - self._written

    @property
    def alive(self) -> bool | None:
        """Whether the driver is alive; None if not known yet."""
        if not self.exists:
            return False
        alive = self.holder.is_alive() if self.holder is not None else None
        if alive is not None:
            return alive
        unchanged = time.monotonic() - self._changed
        if unchanged < FRESH_S and (self._beating or self._fresh):
            return True
        old = not self._beating and unchanged > HEARTBEAT_INTERVAL_S and self.heartbeat_age > DEAD_AFTER_S
        return False if old or unchanged >= DEAD_AFTER_S else None

    def watch(self, seconds: float = HEARTBEAT_INTERVAL_S + 1) -> None:
        """Read the lease until it is known whether the driver is alive, for at most this many seconds."""
        until = time.monotonic() + seconds
        while self.alive is None and time.monotonic() < until:
            time.sleep(0.2)
            self.check()


_ADAPTER = TypeAdapter(Holder)


def parse_holder(content: bytes) -> Holder | None:
    """The driver in a lease's content; None if it is malformed."""
    try:
        return _ADAPTER.validate_json(content)
    except ValidationError:
        return None


def _start_since_boot(pid: int) -> float:
    """When a process began, s since the host's boot; raises a psutil error if the process does not exist."""
    process = psutil.Process(pid)
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return process.create_time() - psutil.boot_time()
    # preferred over that difference, whose two terms change one after the other when the clock is set
    return ticks / os.sysconf("SC_CLK_TCK")


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    names = [boot.read_text().strip() if boot.exists() else f"{psutil.boot_time():.0f}"]
    with suppress(OSError):
        names.append(Path("/proc/self/ns/pid").readlink().name)
    return " ".join([socket.gethostname(), *names])
