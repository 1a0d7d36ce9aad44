"""What Dask's workers and nannies report to the driver: who joins, and why a worker process died."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from typing import Any

import psutil
from distributed import NannyPlugin, WorkerPlugin

from hpcfwi.cluster.dask_internals import watch_worker_exit
from hpcfwi.cluster.environment import JOB_STARTED_VARIABLE, THREADS_VARIABLE
from hpcfwi.events.types import WorkerJoined

# Dask topic of the reports.
EXIT_TOPIC = "hpcfwi-worker-exit"
LIKELY_CAUSES = {
    "SIGKILL": ", perhaps by the system for want of memory",
    "SIGILL": ": an instruction that this host does not have (devito.target)",
    "SIGBUS": ", perhaps since a disk is full",
}


class WorkerInfoPlugin(WorkerPlugin):
    """Logs an event for each worker that joins; Dask runs it before the worker's first task.

    Parameters
    ----------
    topic
        Dask's topic of the event.
    """

    name = "hpcfwi-worker-info"

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def setup(self, worker: Any) -> None:
        """Log the event."""
        worker.log_event(self.topic, _describe(worker).line())


def _describe(worker: Any) -> WorkerJoined:
    threads = os.environ.get(THREADS_VARIABLE) or os.environ.get("OMP_NUM_THREADS", "")
    event = WorkerJoined(
        worker=worker.address,
        host=socket.gethostname().partition(".")[0],
        name=str(worker.name),
        pid=os.getpid(),
    )
    if threads.isdigit():
        event.threads = event.cores = int(threads)
    with suppress(psutil.Error):
        event.process_start = round(psutil.Process().create_time(), 3)
    with suppress(KeyError, ValueError):
        event.job_start = round(float(os.environ[JOB_STARTED_VARIABLE]), 3)
    return event


def exit_reason(code: int) -> str:
    """The exit code of a process in words, with the likely cause of a signal."""
    if code >= 0:
        return f"exited with status {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"killed by signal {-code} ({name}{LIKELY_CAUSES.get(name, '')})"
    return f"killed by signal {-code}"


class WorkerExitPlugin(NannyPlugin):
    """Reports each worker process that ends without having been asked to, under :data:`EXIT_TOPIC`.

    Dask itself only says that a worker is gone. The report comes within 0.1 s of Dask's ``KilledWorker``.
    """

    name = "hpcfwi-worker-exit"

    def setup(self, nanny: Any) -> None:
        """Report exits of the nanny's present and later processes."""

        def report(code: int) -> None:
            if code and nanny.status.name == "running":
                host = socket.gethostname().partition(".")[0]
                facts = {"worker": nanny.worker_address, "host": host, "reason": exit_reason(code)}
                nanny.log_event(EXIT_TOPIC, facts)

        watch_worker_exit(nanny, report)
