"""Dask plugins through which workers and nannies report new workers, and the cause of a worker's death, to the driver."""

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

EXIT_TOPIC = "hpcfwi-worker-exit"  # Dask topic of the reports
LIKELY_CAUSES = {
    "SIGKILL": ", perhaps by the system, which ran out of memory",
    "SIGILL": ": an instruction that this host does not have (devito.target)",
    "SIGBUS": ", perhaps because a disk is full",
}


class WorkerInfoPlugin(WorkerPlugin):
    """Logs an event under a Dask ``topic`` when a worker joins, before its first task."""

    name = "hpcfwi-worker-info"

    def __init__(self, topic: str) -> None:
        self.topic = topic

    def setup(self, worker: Any) -> None:
        """Log the event."""
        threads = os.environ.get(THREADS_VARIABLE) or os.environ.get("OMP_NUM_THREADS", "")
        host = socket.gethostname().partition(".")[0]
        event = WorkerJoined(worker=worker.address, host=host, name=str(worker.name), pid=os.getpid())
        if threads.isdigit():
            event.threads = event.cores = int(threads)
        with suppress(psutil.Error):
            event.process_start = round(psutil.Process().create_time(), 3)
        with suppress(KeyError, ValueError):
            event.job_start = round(float(os.environ[JOB_STARTED_VARIABLE]), 3)
        worker.log_event(self.topic, event.line())


def exit_reason(code: int) -> str:
    """Describe the exit code of a process, with the likely cause of a signal."""
    if code >= 0:
        return f"exited with status {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        return f"killed by signal {-code} ({name}{LIKELY_CAUSES.get(name, '')})"
    return f"killed by signal {-code}"


class WorkerExitPlugin(NannyPlugin):
    """Reports under :data:`EXIT_TOPIC` why a worker process ended unexpectedly; Dask only reports that it has left.

    The report comes within 0.1 s of Dask's ``KilledWorker``.
    """

    name = "hpcfwi-worker-exit"

    def setup(self, nanny: Any) -> None:
        """Report exits of the nanny's current and later processes."""

        def report(code: int) -> None:
            if code and nanny.status.name == "running":
                host = socket.gethostname().partition(".")[0]
                facts = {"worker": nanny.worker_address, "host": host, "reason": exit_reason(code)}
                nanny.log_event(EXIT_TOPIC, facts)

        watch_worker_exit(nanny, report)
