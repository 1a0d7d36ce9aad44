"""Sees workers that are not heard of any more though their connections stand; a plugin of Dask's scheduler.

A process that is stopped answers no question, and whoever asked it for a finished part waits for ever. Dask's own
``worker-ttl`` looks only every five minutes.
"""

from __future__ import annotations

from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import heartbeat_interval
from tornado.ioloop import PeriodicCallback

from hpcfwi.cluster.dask_internals import monotonic_time
from hpcfwi.events.types import WorkerUnresponsive
from hpcfwi.execution.plugins.stragglers import StragglerMonitor
from hpcfwi.execution.plugins.worker_info import worker_info

__all__ = ["HeartbeatMonitor"]

# Seconds without a heartbeat (of which there is one every few): more than any read or sum keeps a process from it.
HEARTBEAT_TIMEOUT_S = 120.0
# Heartbeats that may be missing in any case, and seconds after which we were not looking ourselves.
BEATS, ASLEEP = 10, 10.0


class HeartbeatMonitor(SchedulerPlugin):
    """Lets silent workers be started anew, and logs an event for each; needs an :class:`Overtime` on the same scheduler.

    Parameters
    ----------
    topic
        Dask's topic to log it under.
    limit
        Seconds without a heartbeat.
    """

    name = "hpcfwi-silence"

    def __init__(self, topic: str, limit: float = HEARTBEAT_TIMEOUT_S) -> None:
        self.topic, self.limit = topic, limit
        self._told: set[str] = set()

    async def start(self, scheduler: Any) -> None:
        """Look every second."""
        self.scheduler = scheduler
        self._looked = self._awake = monotonic_time()
        self._clock = PeriodicCallback(self.look, 1000)
        self._clock.start()

    async def close(self) -> None:
        """Look no more."""
        self._clock.stop()

    def look(self) -> None:
        """Put out who has been silent for too long; while this process itself was stopped nobody could be heard."""
        now = monotonic_time()
        if now - self._looked > ASLEEP:
            self._awake = now
        self._looked = now
        workers = self.scheduler.workers
        limit = max(self.limit, BEATS * heartbeat_interval(len(workers)))
        self._told &= set(workers)
        for address, worker in list(workers.items()):
            silent = now - max(worker.last_seen, self._awake)
            if silent > limit and address not in self._told:
                self._told.add(address)
                event = WorkerUnresponsive(worker=address, host=worker_info(worker)["host"], seconds=round(silent, 1))
                self.scheduler.log_event(self.topic, event.line())
                self.scheduler.plugins[StragglerMonitor.name].put_out(address)
