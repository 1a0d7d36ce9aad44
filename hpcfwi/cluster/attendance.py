"""Tells the driver of every worker that comes and goes; a plugin of Dask's scheduler."""

from __future__ import annotations

import time
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from hpcfwi.cluster.arrival import described

__all__ = ["Attendance"]


class Attendance(SchedulerPlugin):
    """Logs an event for each worker that comes or goes.

    Parameters
    ----------
    topic
        Dask's topic to log it under.
    """

    name = "hpcfwi-attendance"

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._known: dict[str, dict[str, Any]] = {}

    async def start(self, scheduler: Any) -> None:
        for address in list(scheduler.workers):
            self.add_worker(scheduler, address)

    def add_worker(self, scheduler: Any, worker: str) -> None:
        known = described(scheduler.workers[worker])
        self._known[worker] = {name: known[name] for name in ("host", "name")}
        self._tell(scheduler, "worker came", worker, known)

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        self._tell(scheduler, "worker left", worker, self._known.pop(worker, {}))

    def _tell(self, scheduler: Any, event: str, worker: str, known: dict[str, Any]) -> None:
        scheduler.log_event(self.topic, {"time": time.time(), "event": event, "worker": worker, **known})
