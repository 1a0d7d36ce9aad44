"""Tells the driver why a worker process died: a plugin of Dask's nannies, which see it."""

from __future__ import annotations

import logging
import re
import signal
import socket
from contextlib import suppress
from typing import Any

from distributed import NannyPlugin

from hpcfwi.cluster.dask_internals import use_monotonic_clock
from hpcfwi.events.types import WorkerDied

__all__ = ["WorkerExitPlugin", "exit_reason"]

NANNY, MEMORY = "distributed.nanny", "distributed.nanny.memory"
ENDED = re.compile(r"Worker process (?P<pid>\d+) (?:exited with status (?P<status>\d+)|was killed by (?P<signal>.*))")
TOO_LARGE = re.compile(r"\(pid=(?P<pid>\d+)\) exceeded (?P<per_cent>\d+)% memory budget")


def exit_reason(message: str, over: bool, limit: int | None) -> str:
    """What a nanny says of a worker's end, in the user's words.

    Parameters
    ----------
    message
        The nanny's.
    over
        Whether the worker was killed for its memory.
    limit
        Bytes that it may have.
    """
    if over:
        told = f" of {limit / 1e9:.3g} GB" if limit else ""
        return f"out of memory: it came too close to its limit{told} (site.worker.memory)"
    found = ENDED.search(message)
    if found is None:
        return message
    if found["status"] is not None:
        return f"exited with status {found['status']}"
    number = found["signal"].removeprefix("signal ")
    with suppress(ValueError):
        name = signal.Signals(int(number)).name
        perhaps = {
            "SIGKILL": ", perhaps by the system for want of memory",
            "SIGILL": ": an instruction that this host does not have (devito.target)",
            "SIGBUS": ", perhaps since a disk is full",
        }
        return f"killed by signal {number} ({name}{perhaps.get(name, '')})"
    return f"killed by {found['signal']}"


class WorkerExitPlugin(NannyPlugin):
    """Logs an event for each worker process that ends without having been asked to.

    Parameters
    ----------
    topic
        Dask's topic to log it under.
    """

    name = "hpcfwi-deaths"

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def setup(self, nanny: Any) -> None:
        """Listen to what the nanny would say in its log."""
        use_monotonic_clock()  # this process looks after the worker's memory by the clock
        self._notary = _ExitReporter(nanny, self.topic)
        _nanny_log_filter.open(self._notary)

    def teardown(self, nanny: Any) -> None:  # noqa: ARG002 - Dask's signature
        """Listen no more."""
        _nanny_log_filter.close(self._notary)


class _ExitReporter:
    """Passes on what one nanny says of deaths."""

    def __init__(self, nanny: Any, topic: str) -> None:
        self.nanny, self.topic = nanny, topic
        self._over: set[int] = set()

    def note(self, message: str) -> None:
        too_large, ended = TOO_LARGE.search(message), ENDED.search(message)
        process = self.nanny.process and self.nanny.process.process
        pid = process.pid if process is not None else None  # nanny.pid is None once it is dead
        if too_large and int(too_large["pid"]) == pid:
            self._over.add(pid)
        elif ended and int(ended["pid"]) == pid and self.nanny.status.name == "running":
            self._tell(message, pid)

    def _tell(self, message: str, pid: int) -> None:
        limit = getattr(self.nanny.memory_manager, "memory_limit", None)
        event = WorkerDied(
            worker=self.nanny.worker_address,
            host=socket.gethostname().partition(".")[0],
            pid=pid,
            reason=exit_reason(message, pid in self._over, limit),
        )
        self.nanny.log_event(self.topic, event.line())


class _NannyLogFilter(logging.Filter):
    """Shows the notaries of all nannies of this process their log; what nobody asked for does not come into it.

    A filter of its own for each would not do: the first that keeps a record out of the log keeps it from the others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.notaries: list[_ExitReporter] = []
        self._level = self._own_level = logging.NOTSET

    def open(self, notary: _ExitReporter) -> None:
        if not self.notaries:
            logger = logging.getLogger(NANNY)
            self._level, self._own_level = logger.getEffectiveLevel(), logger.level
            logger.setLevel(min(logging.INFO, self._level))
            logger.addFilter(self)
            logging.getLogger(MEMORY).addFilter(self)
        self.notaries.append(notary)

    def close(self, notary: _ExitReporter) -> None:
        self.notaries.remove(notary)
        if not self.notaries:
            logger = logging.getLogger(NANNY)
            logger.removeFilter(self)
            logging.getLogger(MEMORY).removeFilter(self)
            logger.setLevel(self._own_level)

    def filter(self, record: logging.LogRecord) -> bool:
        for notary in list(self.notaries):
            notary.note(record.getMessage())
        return record.levelno >= self._level


_nanny_log_filter = _NannyLogFilter()
