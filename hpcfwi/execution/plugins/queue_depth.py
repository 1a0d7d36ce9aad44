"""How many shots a worker is given ahead of time; a plugin of Dask's scheduler.

Dask gives a worker its next task while it is still at one, and where there are no more than two tasks for each worker it gives
out all of them at once. So nobody waits for the scheduler; but a shot may wait on a slow worker, or on one that has yet
another to do, while others are idle, and with a worker two shots are lost. Where shots are long they are dealt one by one.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from statistics import median
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from hpcfwi.execution.plugins.stragglers import task_kind

__all__ = ["AGAIN", "QueueDepth", "queue_depth", "shortest_unqueued_shot"]

# Durations that the median is taken of.
REMEMBERED = 20
# Tasks that a worker may have in hand where they are dealt one by one, as Dask counts them: for each of its threads.
ONE = 1.0


class QueueDepth(SchedulerPlugin):
    """Keeps long shots with the scheduler until a worker is free, and lets short ones be given out as Dask does.

    Before the first of a kind is done nobody knows how long they take: the first ones are dealt one by one.

    Parameters
    ----------
    shots
        What the keys of shots begin with, up to a hyphen.
    """

    name = "hpcfwi-dealing"

    def __init__(self, shots: Sequence[str]) -> None:
        self._durations = {kind: deque[float](maxlen=REMEMBERED) for kind in shots}

    async def start(self, scheduler: Any) -> None:
        """Dask's hook."""
        self.scheduler = scheduler
        self._ahead = scheduler.WORKER_SATURATION

    def update_graph(self, scheduler: Any, *, tasks: Sequence[Any], **_: Any) -> None:
        """Let all new shots wait with the scheduler for a worker, however few they are."""
        if math.isinf(self._ahead):  # somebody has asked Dask to give out everything at once
            return
        dealt = [key for key in tasks if task_kind(key) in self._durations]
        for key in dealt:
            # Dask's own mark of tasks that wait so, of however few there are; it has no other way to say it
            scheduler.tasks[key].run_spec._data_producer = True
        for kind in {task_kind(key) for key in dealt}:
            self._deal(kind)

    def transition(self, key: Any, start: str, finish: str, *_: Any, **facts: Any) -> None:
        """Note how long shots take."""
        if start != "processing" or finish != "memory" or math.isinf(self._ahead):
            return
        kind = task_kind(key)
        durations = self._durations.get(kind)
        if durations is not None:
            durations.extend(
                part["stop"] - part["start"] for part in facts.get("startstops") or () if part["action"] == "compute"
            )
            self._deal(kind)

    def _deal(self, kind: str) -> None:
        """Decide how shots of a kind are dealt from now on."""
        durations, now = self._durations[kind], self.scheduler.WORKER_SATURATION
        limit = shortest_unqueued_shot(len(self.scheduler.workers))
        short = durations and median(durations) < limit * (AGAIN if now == ONE else 1)
        wanted = self._ahead if short else ONE
        if wanted != now:
            self.scheduler.WORKER_SATURATION = wanted
            for worker in list(self.scheduler.workers.values()):
                self.scheduler.check_idle_saturated(worker)  # who has a slot free is known beforehand


# Seconds that a worker is idle between two shots that it is given one by one (measured: 0.004 with small gradients, 0.008 where
# a sum of some MB comes between), and those that driver and scheduler need for each worker that has finished before it.
ROUND_TRIP, QUEUED = 0.01, 0.0015
# The part of a shot that this may be, and by how much shorter shots must be than that until they are dealt ahead again.
IDLE, AGAIN = 0.01, 0.5


def shortest_unqueued_shot(workers: int) -> float:
    """Seconds of a shot from which on shots are dealt one by one to so many workers."""
    # where all end at the same time, one is behind half of the others
    return (ROUND_TRIP + QUEUED * workers / 2) / IDLE


def queue_depth(seconds: float, workers: int) -> int:
    """Shots of this length that one of so many workers has in hand at a time."""
    return 1 if seconds >= AGAIN * shortest_unqueued_shot(workers) else 2
