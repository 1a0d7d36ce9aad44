"""Worker jobs that are about to reach their time limit: no more shots for them, and what they have is handed over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hpcfwi.cluster.dask_internals import monotonic_time, stop_assigning_tasks
from hpcfwi.cluster.job_script import WorkerJob
from hpcfwi.cluster.pool import Workload

__all__ = ["Draining", "jobs_of"]

# Seconds to hand over results and to end the job; and times the longest shot so far, that the one in hand may take.
CLOSING, LONGER = 15.0, 1.2


def jobs_of(worker: object) -> set[str]:
    """Names that the job of a worker may have: of several processes each has the job's name and a number after it."""
    return {str(worker), str(worker).rpartition("-")[0]}


@dataclass
class _Leaving:
    """A job whose workers get no more tasks, and since when, by the steady clock."""

    job: WorkerJob
    since: float


class Draining:
    """Ends worker jobs before their scheduler does; all of it in the event loop of Dask's scheduler.

    Dask's own ``--lifetime`` knows no shot times, and breaks off the shot that is being computed.

    Parameters
    ----------
    scheduler
        Dask's.
    workload
        What the workers compute.
    """

    def __init__(self, scheduler: Any, workload: Workload) -> None:
        self.scheduler, self.workload = scheduler, workload
        self.leaving: dict[str, _Leaving] = {}

    def _workers(self, name: str) -> list[Any]:
        """States of the workers of a job."""
        return [worker for worker in self.scheduler.workers.values() if name in jobs_of(worker.name)]

    def due(self, left: float | None) -> bool:
        """Whether a shot that is begun now could outlast a job that has so many seconds left."""
        return left is not None and left < LONGER * self.workload.longest_task(self.scheduler) + CLOSING

    def unwanted(self, name: str) -> bool:
        """Whether a job has its workers on a host that is excluded."""
        excluded = self.workload.excluded_hosts(self.scheduler)
        return any(worker.host in excluded for worker in self._workers(name))

    def begin(self, name: str, job: WorkerJob) -> None:
        """Give the workers of a job no more tasks."""
        now = monotonic_time()
        self.leaving[name] = _Leaving(job, now)
        for worker in self._workers(name):
            stop_assigning_tasks(self.scheduler, worker)

    async def look(self) -> list[str]:
        """End the jobs whose workers have nothing in hand any more; returns their numbers."""
        ended = []
        for name, leaving in list(self.leaving.items()):
            workers = self._workers(name)
            # what a worker is at is told by its heartbeats
            if any(worker.executing or worker.last_seen <= leaving.since for worker in workers):
                continue
            addresses = [worker.address for worker in workers]
            moved = await self.scheduler.retire_workers(addresses) if addresses else {}
            if len(moved) == len(addresses):  # or there is nobody yet to hand things over to
                ended.append(str(leaving.job.job_id))
                await self._end(name)
        return ended

    async def _end(self, name: str) -> None:
        await self.leaving.pop(name).job.close()

    async def close(self) -> None:
        """End what has not ended."""
        for name in list(self.leaving):
            await self._end(name)
