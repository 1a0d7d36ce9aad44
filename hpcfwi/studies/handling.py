"""What the driver and its scheduler do for each shot, whatever the shot: measured with shots that do nothing."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
from distributed import Client

from hpcfwi.cluster.layout import Layout
from hpcfwi.cluster.local import LocalWorkers
from hpcfwi.inversion.bundles import Handling
from hpcfwi.inversion.functional import FunctionalGradient
from hpcfwi.inversion.task import TOPIC, tell
from hpcfwi.inversion.tasks import ShotTasks
from hpcfwi.reporting.events import EventLog

__all__ = ["measure_handling", "nothing"]

# Shots that are compared, in turn, and how often; light workers that they run on.
FEW, MANY, TIMES, WORKERS = 200, 1000, 3, 2
# Bytes that each of them may use.
MEMORY = 1_000_000_000


def nothing(name: str) -> FunctionalGradient:
    """A shot without anything in it, of which all that is usual is told (a task)."""
    tell(event="shot", shot=name, evaluation=1, misfit=0.0, seconds=0.0, kernel_seconds=0.0, peak_memory=0)
    return FunctionalGradient(0.0, np.zeros(1))


def measure_handling() -> Handling:
    """CPU seconds of the driver's process, in which the scheduler is, for each shot more; takes some seconds.

    Start, end and what goes on all the time are in few shots as well as in many, and are not counted.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hpcfwi-handling-")))
        workers = stack.enter_context(LocalWorkers(Layout(WORKERS, 1, MEMORY)))
        client = stack.enter_context(Client(workers.cluster(), set_as_default=False))
        log = EventLog(folder / "events.jsonl")
        stack.callback(log.close)
        client.subscribe_topic(TOPIC, lambda event: log.write(**event[1]))
        tasks = ShotTasks(client)
        _cost(tasks, FEW, "first", bundled=False)  # what is imported or made at the first
        return Handling(_each(tasks, bundled=False), _each(tasks, bundled=True))


def _each(tasks: ShotTasks, bundled: bool) -> float:
    """Seconds of a shot, in a task of its own or with others."""
    spent = [(_cost(tasks, FEW, f"{i}-few", bundled), _cost(tasks, MANY, f"{i}-many", bundled)) for i in range(TIMES)]
    return max(0.0, median(many - few for few, many in spent) / (MANY - FEW))


def _cost(tasks: ShotTasks, shots: int, run: str, bundled: bool) -> float:
    names = [f"{run}-{bundled}-{i}" for i in range(shots)]
    began = time.process_time()
    tasks.sum(nothing, names, [(name,) for name in names], names, small=True, bundled=bundled)
    return time.process_time() - began
