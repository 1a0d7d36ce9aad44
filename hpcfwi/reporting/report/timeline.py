"""What the workers did when: bars of shots while they are few, busy parts of a worker's or host's time when they are many.

Fed with one event after the other, in memory that does not grow with their number.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field

from hpcfwi.events.types import (
    DataStaged,
    EvaluationDone,
    EvaluationStarted,
    Event,
    HostExcluded,
    JobLost,
    LogSegment,
    NodeLost,
    Optimised,
    RunClosed,
    RunDone,
    RunFailed,
    RunInterrupted,
    RunStarted,
    ShotDone,
    ShotExcluded,
    ShotRetried,
    ShotStaged,
    StagingData,
    TaskFailed,
    TaskOverdue,
    WorkerDied,
    WorkerJoined,
    WorkerLeft,
    WorkerRestarted,
    WorkerUnresponsive,
)

__all__ = ["Bar", "Mark", "Stage", "Timeline", "Worker"]

# Bars that are kept one by one; bins of time; workers that have bins of their own; marks and evaluations that are kept.
MOST_BARS, BINS, MOST_WORKERS, MOST_MARKS, MOST_SPANS = 3000, 240, 20_000, 500, 20_000
# Seconds: the first width of a bin, which is doubled as time goes on; a time beyond which no run goes.
FINEST, LONGEST = 0.05, 1e10
# What is marked in the row of the worker that it is about, or, where there is none, above all.
MARKS: dict[type[Event], str] = {
    ShotRetried: "a shot is started again",
    WorkerDied: "died",
    WorkerUnresponsive: "sent no heartbeats",
    WorkerRestarted: "restarted",
    TaskFailed: "a task failed",
    TaskOverdue: "a task is overdue",
    JobLost: "a worker job was lost",
    NodeLost: "a node was lost",
    ShotExcluded: "a shot is left out",
    HostExcluded: "a host gets no more shots",
}
# Where a stage begins.
STAGES: dict[type[Event], str] = {
    RunStarted: "start",
    StagingData: "data",
    DataStaged: "inversion",
    Optimised: "pictures",
    RunDone: "end",
    RunFailed: "end",
    RunInterrupted: "end",
}


@dataclass
class Worker:
    """A worker process; all times of this module are seconds since the first start, without those when no driver was there.

    Parameters
    ----------
    host, name, address
        Where it is, Dask's name for it, and its address.
    came, left
        When it was there; ``left`` is None while it still is.
    shots, seconds
        Shots that it has done, of data and of evaluations, and the time that it took for them.
    end
        What ended it, where it did not end by itself.
    """

    host: str
    name: str
    address: str
    came: float
    left: float | None = None
    shots: int = 0
    seconds: float = 0.0
    end: str = ""
    busy: array[float] = field(default_factory=lambda: array("d", bytes(8 * BINS)))


@dataclass(frozen=True)
class Bar:
    """A shot: on which worker (its place in the list), from when to when, of which evaluation (0: of the data)."""

    worker: int
    begin: float
    end: float
    evaluation: int
    shot: str


@dataclass(frozen=True)
class Mark:
    """Something that went wrong, on which worker (-1: on none in particular)."""

    worker: int
    time: float
    text: str


@dataclass
class Stage:
    """What the run as a whole was at."""

    name: str
    begin: float
    end: float


class Timeline:
    """Takes events and keeps what can be drawn of them.

    Attributes
    ----------
    workers
        Those that there were, in the order of their coming; not more than ``MOST_WORKERS``.
    came
        How many there were.
    bars
        Shots; empty where there are too many (``crowded``).
    width
        Of a bin of ``Worker.busy``, s.
    spans
        Of each evaluation its number, begin and end.
    starts
        When drivers began, and for how long there was none before.
    now
        The last moment that is known.
    """

    def __init__(self) -> None:
        self.workers: list[Worker] = []
        self.came = 0
        self.bars: list[Bar] = []
        self.crowded = False
        self.marks: list[Mark] = []
        self.stages: list[Stage] = []
        self.spans: list[tuple[int, float, float]] = []
        self.starts: list[tuple[float, float]] = []
        self.width = FINEST
        self.now = 0.0
        # subtracted from the time of day; and the last one of any event but those that begin a file
        self._zero: float | None = None
        self._last = 0.0
        # places of workers by their addresses
        self._here: dict[str, int] = {}
        self._gone: dict[str, int] = {}
        self._evaluating = 0.0

    def apply(self, event: Event) -> None:
        """Take the next event."""
        kind, when = type(event), event.time
        if isinstance(event, LogSegment):
            return
        if isinstance(event, RunStarted):
            self._start(event, when)
        self._zero = when if self._zero is None else self._zero
        now = min(max(when - self._zero, 0.0), LONGEST)
        self._last, self.now = max(self._last, when), max(self.now, now)
        if kind in STAGES:
            self._stage(STAGES[kind], now)
        if isinstance(event, (ShotDone, ShotStaged)):
            self._shot(event, now)
        elif isinstance(event, WorkerJoined):
            self._came(event, now)
        elif isinstance(event, WorkerLeft):
            self._left(event.worker, now)
        elif isinstance(event, EvaluationStarted):
            self._evaluating = now
        elif isinstance(event, EvaluationDone) and not event.replayed and len(self.spans) < MOST_SPANS:
            self.spans.append((event.evaluation, self._evaluating, now))
        if kind in MARKS:
            self._mark(event, now)
        if isinstance(event, RunClosed):
            for address in list(self._here):
                self._left(address, now)

    def close(self) -> None:
        """All events are there."""
        if self.stages:
            self.stages[-1].end = self.now
        self.stages = [stage for stage in self.stages if stage.name != "end" and stage.end > stage.begin]

    def _start(self, event: RunStarted, when: float) -> None:
        """Earlier workers are gone; the time in which there was no driver is left out."""
        for address in list(self._here):
            self._left(address, self.now)
        began = event.process_start if when - 3600 < event.process_start <= when else when
        begin = max(began, self._last)
        pause = 0.0 if self._zero is None else begin - self._last
        self._zero = begin if self._zero is None else self._zero + pause
        if len(self.starts) < MOST_MARKS:
            self.starts.append((max(0.0, begin - self._zero), pause))
        self._stage("start", max(0.0, begin - self._zero))

    def _stage(self, name: str, now: float) -> None:
        if self.stages:
            self.stages[-1].end = max(now, self.stages[-1].begin)
            if name == self.stages[-1].name:
                return
        if len(self.stages) < MOST_MARKS:
            self.stages.append(Stage(name, now, now))

    def _came(self, event: WorkerJoined, now: float) -> None:
        self._left(event.worker, now)
        self._new(event.host, event.name, event.worker, now)

    def _new(self, host: str, name: str, address: str, now: float) -> None:
        self.came += 1
        if len(self.workers) < MOST_WORKERS:
            self._here[address] = len(self.workers)
            self.workers.append(Worker(host, name, address, now))

    def _left(self, address: str, now: float) -> None:
        place = self._here.pop(address, None)
        if place is not None:
            self.workers[place].left = now
            self._gone[address] = place

    def _shot(self, event: ShotDone | ShotStaged, now: float) -> None:
        address, seconds = event.worker, event.seconds
        if not seconds < LONGEST:
            return
        begin = max(0.0, now - seconds)
        if address not in self._here:  # its coming is not in the log, or it is one too many
            if len(self.workers) == MOST_WORKERS:
                return
            self._new(event.host, "", address, begin)
        place = self._here[address]
        worker = self.workers[place]
        worker.shots += 1
        worker.seconds += seconds
        self._fill(worker, begin, now)
        if len(self.bars) < MOST_BARS and not self.crowded:
            evaluation = event.evaluation if isinstance(event, ShotDone) else 0
            self.bars.append(Bar(place, begin, now, evaluation, event.shot))
        else:
            self.crowded, self.bars = True, []

    def _fill(self, worker: Worker, begin: float, end: float) -> None:
        while end >= self.width * BINS:
            self._widen()
        width = self.width
        first, last = int(begin / width), int(end / width)
        if first == last:
            worker.busy[first] += end - begin
            return
        worker.busy[first] += (first + 1) * width - begin
        worker.busy[last] += end - last * width
        for i in range(first + 1, last):
            worker.busy[i] += width

    def _widen(self) -> None:
        """Bins of twice the width."""
        for worker in self.workers:
            busy = worker.busy
            worker.busy = array("d", [busy[i] + busy[i + 1] for i in range(0, BINS, 2)]) + array("d", bytes(4 * BINS))
        self.width *= 2

    def _mark(self, event: Event, now: float) -> None:
        text, address = MARKS[type(event)], getattr(event, "worker", "")
        # that it died, and what it had is started again, is told after it has left
        place = self._here.get(address, self._gone.get(address, -1))
        if place >= 0 and isinstance(event, (WorkerDied, WorkerRestarted)):
            self.workers[place].end = text
        if len(self.marks) < MOST_MARKS:
            about = ", ".join(
                str(getattr(event, key))[:100] for key in ("shot", "host", "job", "node") if hasattr(event, key)
            )
            self.marks.append(Mark(place, now, f"{text}{f' ({about})' if about else ''}"))

    def present(self, worker: Worker) -> tuple[float, float]:
        """From when to when a worker was there."""
        return worker.came, self.now if worker.left is None else max(worker.left, worker.came)

    @property
    def bins(self) -> int:
        """Bins that time has reached."""
        return min(BINS, max(1, math.ceil(self.now / self.width)))
