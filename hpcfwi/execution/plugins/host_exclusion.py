"""Hosts on which shots fail again and again: they get no more of them while there are others; a plugin of Dask's scheduler."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from distributed import Client
from distributed.core import Status
from distributed.diagnostics.plugin import SchedulerPlugin

from hpcfwi.cluster.dask_internals import stop_assigning_tasks
from hpcfwi.events.types import HostExcluded, HostReadmitted
from hpcfwi.execution.plugins.worker_info import worker_info

__all__ = ["HostExclusion", "excluded_hosts", "host_of", "record_failure"]

# Different shots that have failed on a host within so many seconds, after which it is no accident, nor the shots' own fault.
FAILURES, WITHIN = 3, 3600.0


def host_of(address: str) -> str:
    """The host in a Dask address, ``tls://10.0.0.1:4242``."""
    return address.rpartition(":")[0].rpartition("/")[2]


class HostExclusion(SchedulerPlugin):
    """Keeps tasks away from hosts that fail.

    Parameters
    ----------
    topic
        Dask's topic to log it under.

    Attributes
    ----------
    excluded
        Those hosts, as in Dask's addresses.
    """

    name = "hpcfwi-hosts"

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.excluded: set[str] = set()
        # when a shot has failed there, by host and shot
        self._failures: dict[str, dict[str, float]] = defaultdict(dict)

    async def start(self, scheduler: Any) -> None:
        """Dask's hook."""
        self.scheduler = scheduler

    def failed(self, worker: str, shot: str) -> None:
        """Note that a shot has failed on a worker, or that this has died with it."""
        host, now = host_of(worker), time.monotonic()
        self._failures[host] = {known: when for known, when in self._failures[host].items() if now - when < WITHIN} | {
            shot: now
        }
        others = {host_of(address) for address in self.scheduler.workers} - self.excluded - {host}
        if len(self._failures[host]) >= FAILURES and others and host not in self.excluded:
            self.excluded.add(host)
            self._tell(HostExcluded, host)
            self._set(Status.closing_gracefully)

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """One more of an excluded host."""
        if host_of(worker) in self.excluded:
            stop_assigning_tasks(scheduler, scheduler.workers[worker])

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        """Where no other host is left, a bad one is better than none."""
        rest = {host_of(address) for address in scheduler.workers if address != worker}
        if self.excluded and rest and rest <= self.excluded:
            self._set(Status.running)
            for host in sorted(self.excluded):
                self._tell(HostReadmitted, host)
            self.excluded.clear()
            self._failures.clear()

    def _set(self, status: Status) -> None:
        for address, worker in list(self.scheduler.workers.items()):
            if host_of(address) in self.excluded and worker.status != status:
                stop_assigning_tasks(self.scheduler, worker, status)

    def _tell(self, kind: type[HostExcluded | HostReadmitted], host: str) -> None:
        workers = self.scheduler.workers.items()
        name = next((worker_info(worker)["host"] for address, worker in workers if host_of(address) == host), host)
        self.scheduler.log_event(self.topic, kind(host=name, failed_shots=sorted(self._failures[host])).line())


def excluded_hosts(scheduler: Any) -> set[str]:
    """Hosts that the :class:`HostExclusion` of a Dask scheduler keeps tasks away from; empty without one."""
    plugin = scheduler.plugins.get(HostExclusion.name)
    return plugin.excluded if plugin is not None else set()


def record_failure(client: Client, worker: str, shot: str) -> None:
    """Tell the :class:`HostExclusion` of a client's scheduler of a failure."""

    def note(dask_scheduler: Any) -> None:
        dask_scheduler.plugins[HostExclusion.name].failed(worker, shot)

    client.run_on_scheduler(note)
