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

from hpcfwi.cluster.overtime import kind_of
from hpcfwi.cluster.pace import AGAIN, longest_ahead

__all__ = ["Dealing"]

# Durations that the median is taken of.
REMEMBERED = 20
# Tasks that a worker may have in hand where they are dealt one by one, as Dask counts them: for each of its threads.
ONE = 1.0


class Dealing(SchedulerPlugin):
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
        dealt = [key for key in tasks if kind_of(key) in self._durations]
        for key in dealt:
            # Dask's own mark of tasks that wait so, of however few there are; it has no other way to say it
            scheduler.tasks[key].run_spec._data_producer = True
        for kind in {kind_of(key) for key in dealt}:
            self._deal(kind)

    def transition(self, key: Any, start: str, finish: str, *_: Any, **facts: Any) -> None:
        """Note how long shots take."""
        if start != "processing" or finish != "memory" or math.isinf(self._ahead):
            return
        kind = kind_of(key)
        durations = self._durations.get(kind)
        if durations is not None:
            durations.extend(
                part["stop"] - part["start"] for part in facts.get("startstops") or () if part["action"] == "compute"
            )
            self._deal(kind)

    def _deal(self, kind: str) -> None:
        """Decide how shots of a kind are dealt from now on."""
        durations, now = self._durations[kind], self.scheduler.WORKER_SATURATION
        limit = longest_ahead(len(self.scheduler.workers))
        short = durations and median(durations) < limit * (AGAIN if now == ONE else 1)
        wanted = self._ahead if short else ONE
        if wanted != now:
            self.scheduler.WORKER_SATURATION = wanted
            for worker in list(self.scheduler.workers.values()):
                self.scheduler.check_idle_saturated(worker)  # who has a slot free is known beforehand
