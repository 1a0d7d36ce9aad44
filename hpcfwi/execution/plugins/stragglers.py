"""Sees tasks that take far longer than others of their kind; a plugin of Dask's scheduler.

A worker whose process is stopped sends no heartbeats, but one that waits for a file system that does not answer does: only
the time that a shot takes tells both.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Any

from distributed import Client
from distributed.diagnostics.plugin import SchedulerPlugin
from tornado.ioloop import PeriodicCallback

from hpcfwi.events.types import TaskOverdue, WorkerRestarted
from hpcfwi.execution.plugins.worker_info import worker_info

__all__ = ["StragglerMonitor", "longest_task", "restart_workers", "task_kind"]

# Seconds that a worker which is put out has to end, before it is forgotten.
RESTART_TIMEOUT_S = 20
# Durations that the median is taken of; seconds for the first of those that are never long.
REMEMBERED, FIRST = 200, 600.0


def task_kind(key: Any) -> str:
    """What a task's key begins with."""
    return str(key).partition("-")[0]


def _is_waiting(task: Any) -> bool:
    """Whether a task is behind another one on its worker, as far as its last heartbeat tells, which knows of no later end."""
    worker = task.processing_on
    return task not in worker.executing and any(other in worker.processing for other in worker.executing)


class StragglerMonitor(SchedulerPlugin):
    """Logs an event for each task that takes longer than ``max(shortest, factor * median)`` of its kind.

    Parameters
    ----------
    topic
        Dask's topic to log it under.
    shots
        What the keys of shots begin with, up to a hyphen. Before the first of a kind of them is done, nobody knows how long
        they take.
    others
        The same of other tasks, which are never long: they may take ``FIRST`` seconds before one is done.
    shortest
        Seconds that any task may take.
    factor
        Times the median of those that are done.
    """

    name = "hpcfwi-overtime"

    def __init__(
        self,
        topic: str,
        shots: Sequence[str],
        others: Sequence[str] = (),
        shortest: float = 60.0,
        factor: float = 10.0,
    ) -> None:
        self.topic, self.shortest, self.factor = topic, shortest, factor
        self._durations = {kind: deque[float](maxlen=REMEMBERED) for kind in (*shots, *others)}
        self._others = frozenset(others)
        self._since: dict[str, float] = {}
        self._told: set[str] = set()
        self._free_at: dict[str, float] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}

    async def start(self, scheduler: Any) -> None:
        """Look every second."""
        self.scheduler = scheduler
        self._clock = PeriodicCallback(self.look, 1000)
        self._clock.start()

    async def close(self) -> None:
        """Look no more."""
        self._clock.stop()

    def transition(self, key: Any, start: str, finish: str, *_: Any, **facts: Any) -> None:
        """Note when tasks begin and end."""
        durations = self._durations.get(task_kind(key))
        if durations is None:
            return
        now = time.monotonic()
        if finish == "processing":
            self._since[key] = now
        elif start == "processing":
            self._since.pop(key, None)
            self._told.discard(key)
            if facts.get("worker"):
                self._free_at[facts["worker"]] = now
            durations.extend(
                part["stop"] - part["start"] for part in facts.get("startstops") or () if part["action"] == "compute"
            )

    @property
    def longest(self) -> float:
        """Seconds that the longest of the last tasks took; 0 before there was one."""
        return max((seconds for durations in self._durations.values() for seconds in durations), default=0.0)

    def _limit(self, kind: str) -> float:
        """Seconds that a task of a kind may take."""
        durations = self._durations[kind]
        if not durations:
            return FIRST if kind in self._others else math.inf
        return max(self.shortest, self.factor * median(durations))

    def look(self) -> None:
        """Tell of what takes too long; a task that waits behind another one on its worker has not begun."""
        now = time.monotonic()
        limits = {kind: self._limit(kind) for kind in self._durations}
        for key, since in list(self._since.items()):
            task = self.scheduler.tasks.get(key)
            if key in self._told or task is None or task.processing_on is None or _is_waiting(task):
                continue
            worker, limit = task.processing_on.address, limits[task_kind(key)]
            if task_kind(key) in self._others:
                # what a worker is at is told by its heartbeats; one of these may wait there behind a shot of hours
                seconds = task.processing_on.executing.get(task, 0.0)
            else:
                seconds = now - max(since, self._free_at.get(worker, since))
            if seconds > limit:
                self._told.add(key)
                event = TaskOverdue(
                    key=str(key), worker=worker, seconds=round(seconds, 1), limit_seconds=round(limit, 1)
                )
                self.scheduler.log_event(self.topic, event.line())

    def put_out(self, worker: str) -> None:
        """Let a worker that hangs be started anew by its nanny; one whose nanny does not answer is forgotten."""
        if worker in self.scheduler.workers and worker not in self._leaving:
            host = worker_info(self.scheduler.workers[worker])["host"]
            self.scheduler.log_event(self.topic, WorkerRestarted(worker=worker, host=host).line())
            self._leaving[worker] = asyncio.ensure_future(self._put_out(worker))

    async def _put_out(self, worker: str) -> None:
        try:
            # one that does not end in time is removed by Dask
            await self.scheduler.restart_workers(
                [worker],
                timeout=RESTART_TIMEOUT_S,
                wait_for_workers=False,
                on_error="return",
                stimulus_id=f"{self.name}-{time.time()}",
            )
        finally:
            self._leaving.pop(worker, None)


def longest_task(scheduler: Any) -> float:
    """Seconds of the longest recent task, by the :class:`StragglerMonitor` of a Dask scheduler; 0 without one."""
    plugin = scheduler.plugins.get(StragglerMonitor.name)
    return plugin.longest if plugin is not None else 0.0


def restart_workers(client: Client, workers: Sequence[str]) -> None:
    """Let go of workers that hang, without waiting for it; needs an :class:`StragglerMonitor` on the client's scheduler."""

    def leave(dask_scheduler: Any) -> None:
        for worker in workers:
            dask_scheduler.plugins[StragglerMonitor.name].put_out(worker)

    client.run_on_scheduler(leave)
