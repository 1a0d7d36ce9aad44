"""What a worker tells of itself when it registers, and who asks the scheduler for it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

import psutil
from distributed.diagnostics.plugin import SchedulerPlugin

from hpcfwi.cluster.environment import JOB_STARTED_VARIABLE, THREADS_VARIABLE
from hpcfwi.events.types import WorkerJoined, WorkerLeft

__all__ = ["WorkerInfoPlugin", "add_worker_info", "worker_info"]

# Under which Dask's registration has it.
NAME = "hpcfwi"


def add_worker_info(worker: Any) -> None:
    """Let a Dask worker tell of itself when it registers; to be called before it does."""
    worker.startup_information[NAME] = _itself


def _itself(_: Any) -> dict[str, Any]:
    threads = os.environ.get(THREADS_VARIABLE) or os.environ.get("OMP_NUM_THREADS", "")
    told: dict[str, Any] = {"host": socket.gethostname().partition(".")[0], "pid": os.getpid()}
    if threads.isdigit():
        told |= {"threads": int(threads), "cores": int(threads)}
    with suppress(psutil.Error):
        told["process_start"] = round(psutil.Process().create_time(), 3)
    with suppress(KeyError, ValueError):
        told["job_start"] = round(float(os.environ[JOB_STARTED_VARIABLE]), 3)
    return told


def worker_info(worker: Any) -> dict[str, Any]:
    """What is known of a worker, as the scheduler has it: host, name, and what it told of itself."""
    told = worker.extra.get(NAME) if isinstance(worker.extra, dict) else None
    known = {"host": worker.host, "name": str(worker.name)}
    return known | told if isinstance(told, dict) else known


class WorkerInfoPlugin(SchedulerPlugin):
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
        known = worker_info(scheduler.workers[worker])
        self._known[worker] = {name: known[name] for name in ("host", "name")}
        scheduler.log_event(self.topic, WorkerJoined(worker=worker, **known).line())

    def remove_worker(self, scheduler: Any, worker: str, **_: Any) -> None:
        known = self._known.pop(worker, {"host": "", "name": ""})
        scheduler.log_event(self.topic, WorkerLeft(worker=worker, **known).line())
