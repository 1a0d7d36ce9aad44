"""What the workers did when: bars of shots while they are few, busy parts of a worker's or host's time when they are many.

Fed with one event after the other, in memory that does not grow with their number.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Bar", "Mark", "Stage", "Timeline", "Worker"]

# Bars that are kept one by one; bins of time; workers that have bins of their own; marks and evaluations that are kept.
MOST_BARS, BINS, MOST_WORKERS, MOST_MARKS, MOST_SPANS = 3000, 240, 20_000, 500, 20_000
# Seconds: the first width of a bin, which is doubled as time goes on; a time beyond which no run goes.
FINEST, LONGEST = 0.05, 1e10
# What is marked in the row of the worker that it is about, or, where there is none, above all.
MARKS = {
    "retry": "a shot is started again",
    "worker died": "died",
    "worker silent": "not heard of",
    "worker put out": "put out",
    "failure": "a task failed",
    "overdue": "a task is overdue",
    "job lost": "a worker job was lost",
    "node lost": "a node was lost",
    "shot lost": "a shot is left out",
    "host excluded": "a host gets no more shots",
}
# Where a stage begins.
STAGES = {
    "start": "start",
    "observing": "data",
    "observed": "inversion",
    "optimised": "pictures",
    "done": "end",
    "stopped": "end",
    "interrupted": "end",
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

    def heed(self, event: dict[str, Any]) -> None:
        """Take the next event."""
        kind, when = event.get("event"), event.get("time")
        if not isinstance(kind, str) or not isinstance(when, (float, int)) or not abs(when) < LONGEST or kind == "log":
            return
        if kind == "start":
            self._start(event, float(when))
        self._zero = when if self._zero is None else self._zero
        now = min(max(when - self._zero, 0.0), LONGEST)
        self._last, self.now = max(self._last, when), max(self.now, now)
        if kind in STAGES:
            self._stage(STAGES[kind], now)
        if kind in ("shot", "staged"):
            self._shot(event, now)
        elif kind == "worker came":
            self._came(event, now)
        elif kind == "worker left":
            self._left(str(event["worker"]), now)
        elif kind == "evaluating":
            self._evaluating = now
        elif kind == "evaluation" and not event.get("replayed") and len(self.spans) < MOST_SPANS:
            self.spans.append((int(event["evaluation"]), self._evaluating, now))
        if kind in MARKS:
            self._mark(kind, event, now)
        if kind == "closed":
            for address in list(self._here):
                self._left(address, now)

    def close(self) -> None:
        """All events are there."""
        if self.stages:
            self.stages[-1].end = self.now
        self.stages = [stage for stage in self.stages if stage.name != "end" and stage.end > stage.begin]

    def _start(self, event: dict[str, Any], when: float) -> None:
        """Earlier workers are gone; the time in which there was no driver is left out."""
        for address in list(self._here):
            self._left(address, self.now)
        began = event.get("began")
        told = isinstance(began, (float, int)) and when - 3600 < began <= when
        begin = max(float(began) if told else when, self._last)  # type: ignore[arg-type]
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

    def _came(self, event: dict[str, Any], now: float) -> None:
        address = str(event["worker"])
        self._left(address, now)
        self._new(str(event["host"]), str(event["name"]), address, now)

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

    def _shot(self, event: dict[str, Any], now: float) -> None:
        address, seconds = str(event["worker"]), float(event["seconds"])
        if not 0 <= seconds < LONGEST:
            return
        begin = max(0.0, now - seconds)
        if address not in self._here:  # its coming is not in the log, or it is one too many
            if len(self.workers) == MOST_WORKERS:
                return
            self._new(str(event["host"]), "", address, begin)
        place = self._here[address]
        worker = self.workers[place]
        worker.shots += 1
        worker.seconds += seconds
        self._fill(worker, begin, now)
        if len(self.bars) < MOST_BARS and not self.crowded:
            evaluation = int(event["evaluation"]) if event["event"] == "shot" else 0
            self.bars.append(Bar(place, begin, now, evaluation, str(event["shot"])))
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

    def _mark(self, kind: str, event: dict[str, Any], now: float) -> None:
        address = str(event.get("worker", ""))
        # that it died, and what it had is started again, is told after it has left
        place = self._here.get(address, self._gone.get(address, -1))
        if place >= 0 and kind in ("worker died", "worker put out"):
            self.workers[place].end = MARKS[kind]
        if len(self.marks) < MOST_MARKS:
            about = ", ".join(str(event[key])[:100] for key in ("shot", "host", "job", "node") if key in event)
            self.marks.append(Mark(place, now, f"{MARKS[kind]}{f' ({about})' if about else ''}"))

    def present(self, worker: Worker) -> tuple[float, float]:
        """From when to when a worker was there."""
        return worker.came, self.now if worker.left is None else max(worker.left, worker.came)

    @property
    def bins(self) -> int:
        """Bins that time has reached."""
        return min(BINS, max(1, math.ceil(self.now / self.width)))
