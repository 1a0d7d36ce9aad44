"""The timeline of the report: which worker computed which shot when, and what failed.

:class:`Timeline` reduces events to constant memory: it keeps single shots while they are few, then only how busy each worker
was in each bin of time. :func:`draw_gantt` lays it out in rows of workers, hosts or groups of hosts that fit on a page.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import add
from typing import TypeVar

import numpy as np

from hpcfwi.events import types as events
from hpcfwi.events.state import failure_line, one_line
from hpcfwi.events.types import Event, RunStarted, ShotDone, ShotStaged
from hpcfwi.reporting.formatting import counted, natural_order, number
from hpcfwi.reporting.plotting import round_ticks

T = TypeVar("T")
# Limits of a timeline: single shots, bins of time, workers, marks (and phases, and starts), evaluations.
MAX_SHOTS, BINS, MAX_WORKERS, MAX_MARKS, MAX_EVALUATIONS = 3000, 240, 20_000, 500, 20_000
# Initial width of a bin, which doubles when time exceeds the bins; longest time from a driver's start to its first event.
FIRST_WIDTH_S, MAX_STARTUP_S = 0.05, 3600.0
# Layout: rows, width of the drawing and of the narrowest block, shades of busy bins, colours of evaluations, and evaluations
# with a block each.
MAX_ROWS, WIDTH, NARROWEST, SHADES, COLOURS, MAX_BLOCKS = 60, 1000.0, 0.6, 10, 6, 300
# Units of the time axis, their seconds, and the shortest run for which each is used.
TIME_UNITS = (("h", 3600.0, 3 * 3600.0), ("min", 60.0, 180.0), ("s", 1.0, 0.0))
# Events with a mark besides failures, and those after which a worker has failed.
MARKS: dict[type[Event], str] = {events.TaskFailed: "a task failed", events.TaskOverdue: "a task is overdue"}
ENDS: dict[type[Event], str] = {events.WorkerDied: "died", events.WorkerRestarted: "restarted"}
# Events that begin a phase, and the name of the phase.
PHASES: dict[type[Event], str] = {
    RunStarted: "start",
    events.StagingData: "data",
    events.DataStaged: "inversion",
    events.Optimised: "results",
    **dict.fromkeys((events.RunDone, events.RunFailed, events.RunInterrupted), "end"),
}
PHASE_TITLES = {"start": "start, waiting for workers"}


@dataclass
class Worker:
    """A worker process; times are seconds of the timeline."""

    host: str
    name: str  # Dask's
    joined: float
    left: float | None = None  # None while it is connected
    shots: int = 0  # of data and of evaluations
    seconds: float = 0.0  # of these shots
    end: str = ""  # how it failed
    busy: array[float] = field(default_factory=lambda: array("d", bytes(8 * BINS)))  # seconds in each bin of time


@dataclass
class Span:
    """A phase, an evaluation or a shot."""

    name: str
    begin: float
    end: float
    evaluation: int = 0  # 0: the observed data
    worker: int = -1  # -1: none


class Timeline:
    """Reduces events to a drawing; times are seconds since the first start, without pauses between drivers."""

    def __init__(self) -> None:
        self.workers: list[Worker] = []  # in the order in which they joined
        self.joined = 0  # number of workers, including those beyond MAX_WORKERS
        self.shots: list[Span] = []  # empty if crowded
        self.crowded = False  # whether there are more than MAX_SHOTS
        self.phases: list[Span] = []
        self.evaluations: list[Span] = []
        self.marks: list[tuple[int, float, str]] = []  # failures: worker (-1: none), time and text
        self.starts: list[tuple[float, float]] = []  # of drivers: time, and length of the pause before
        self.width, self.now = FIRST_WIDTH_S, 0.0  # of a bin; time of the last event
        self._zero: float | None = None  # time of day at which the timeline is zero; pauses move it forward
        self._last = 0.0  # time of day of the last event
        self._connected: dict[str, int] = {}  # indices of workers by address
        self._gone: dict[str, int] = {}
        self._evaluation_begin = 0.0

    def apply(self, event: Event) -> None:
        """Add the next event."""
        if isinstance(event, events.LogSegment):
            return  # it comes just before a start, and would hide the pause
        if isinstance(event, RunStarted):
            self._start(event)
        self._zero = event.time if self._zero is None else self._zero
        now = max(event.time - self._zero, 0.0)
        self._last, self.now = max(self._last, event.time), max(self.now, now)
        if isinstance(event, ShotDone | ShotStaged):  # like nearly all events
            self._add_shot(event, now)
            return
        if type(event) in PHASES:
            self._begin_phase(PHASES[type(event)], now)
        text = failure_line(event) or MARKS.get(type(event))
        if text is not None:
            self._mark(event, one_line(text), now)
        match event:
            case events.WorkerJoined():
                self._leave(event.worker, now=now)
                self._join(event.host, event.name, event.worker, now)
            case events.WorkerLeft():
                self._leave(event.worker, now=now)
            case events.RunClosed():
                self._leave(*self._connected, now=now)
            case events.EvaluationStarted():
                self._evaluation_begin = now
            case events.EvaluationDone(replayed=False) if len(self.evaluations) < MAX_EVALUATIONS:
                self.evaluations.append(Span("", self._evaluation_begin, now, event.evaluation))

    def close(self) -> None:
        """End the last phase, after all events."""
        if self.phases:
            self.phases[-1].end = self.now
        self.phases = [phase for phase in self.phases if phase.name != "end" and phase.end > phase.begin]

    def presence(self, worker: Worker) -> tuple[float, float]:
        """Begin and end of the time for which a worker was connected."""
        return worker.joined, self.now if worker.left is None else max(worker.left, worker.joined)

    def _start(self, event: RunStarted) -> None:
        """Begin with a new driver: earlier workers are gone, and time without a driver is left out."""
        self._leave(*self._connected, now=self.now)
        recent = event.time - MAX_STARTUP_S < event.command_start <= event.time
        begin = max(event.command_start if recent else event.time, self._last)
        pause = 0.0 if self._zero is None else begin - self._last
        self._zero = begin if self._zero is None else self._zero + pause
        now = max(0.0, begin - self._zero)
        if len(self.starts) < MAX_MARKS:
            self.starts.append((now, pause))
        self._begin_phase("start", now)

    def _begin_phase(self, name: str, now: float) -> None:
        if self.phases:
            self.phases[-1].end = max(now, self.phases[-1].begin)
            if name == self.phases[-1].name:
                return
        if len(self.phases) < MAX_MARKS:
            self.phases.append(Span(name, now, now))

    def _join(self, host: str, name: str, address: str, now: float) -> None:
        self.joined += 1
        if len(self.workers) < MAX_WORKERS:
            self._connected[address] = len(self.workers)
            self.workers.append(Worker(host, name, now))

    def _leave(self, *addresses: str, now: float) -> None:
        for address in self._connected.keys() & addresses:
            index = self._gone[address] = self._connected.pop(address)
            self.workers[index].left = now

    def _add_shot(self, event: ShotDone | ShotStaged, now: float) -> None:
        begin = max(0.0, now - event.seconds)
        if event.worker not in self._connected:  # its event is missing, or there are too many workers
            if len(self.workers) == MAX_WORKERS:
                return
            self._join(event.host, "", event.worker, begin)
        index = self._connected[event.worker]
        worker = self.workers[index]
        worker.shots += 1
        worker.seconds += event.seconds
        while now >= self.width * BINS:
            self.width *= 2
            for each in self.workers:
                each.busy = array("d", map(add, each.busy[::2], each.busy[1::2])) + array("d", bytes(4 * BINS))
        for i in range(int(begin / self.width), int(now / self.width) + 1):
            worker.busy[i] += min(now, (i + 1) * self.width) - max(begin, i * self.width)
        if len(self.shots) < MAX_SHOTS and not self.crowded:
            evaluation = event.evaluation if isinstance(event, ShotDone) else 0
            self.shots.append(Span(event.shot, begin, now, evaluation, index))
        else:
            self.crowded, self.shots = True, []

    def _mark(self, event: Event, text: str, now: float) -> None:
        """Mark an event in the row of its worker or above all rows."""
        address = getattr(event, "worker", "")
        # the cause of a death is logged after the worker has left
        index = self._connected.get(address, self._gone.get(address, -1))
        if index >= 0 and type(event) in ENDS:
            self.workers[index].end = ENDS[type(event)]
        if len(self.marks) < MAX_MARKS:
            self.marks.append((index, now, text))


@dataclass
class Row:
    """A row of the drawing; ``presence`` has starts and widths."""

    label: str
    workers: list[int]
    presence: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Block:
    """A rectangle in a row; ``style`` is its class in the style sheet."""

    row: int
    begin: float
    width: float
    style: str
    title: str


@dataclass(frozen=True)
class Gantt:
    """The layout of a timeline; its width is 100 for ticks, marks and pauses, else ``WIDTH``."""

    unit: str  # what a row is: "worker", "host" or "hosts"
    label: str  # of the time axis
    ticks: list[tuple[float, str]]
    rows: list[Row]
    shots: list[Block]  # empty if there are too many
    shades: list[tuple[int, str]]  # instead of shots: for each shade, the SVG path of the bins that are that busy
    phases: list[Block]
    evaluations: list[Block]
    marks: list[tuple[float, int, str]]  # place, row (-1: above all rows) and title of failures
    pauses: list[tuple[float, str]]  # place and title of restarts of the driver
    summary: str


def draw_gantt(timeline: Timeline) -> Gantt | None:
    """Lay out a timeline; None if it is empty."""
    total, workers = timeline.now, timeline.workers
    if not total > 0:
        return None

    def place(time: float) -> float:
        return WIDTH * min(1.0, max(0.0, time / total))

    def block(span: Span, row: int, title: str, style: str = "") -> Block:
        style = style or (f"turn{span.evaluation % COLOURS}" if span.evaluation else "data")
        return Block(row, place(span.begin), max(NARROWEST, place(span.end) - place(span.begin)), style, title)

    def shot(span: Span) -> Block:
        of_what = f"evaluation {span.evaluation}" if span.evaluation else "data"
        title = f"shot {span.name}, {of_what}: {number(span.end - span.begin, 3)} s"
        return block(span, row_of[span.worker], title)

    unit, rows = _rows(workers)
    row_of = {worker: i for i, row in enumerate(rows) for worker in row.workers}
    for row in rows:
        spans = (map(place, timeline.presence(workers[i])) for i in row.workers)
        row.presence = sorted({(round(a, 1), round(max(NARROWEST, b - a), 1)) for a, b in spans})
    one_by_one = unit == "worker" and not timeline.crowded
    scale, seconds = next((name, size) for name, size, least in TIME_UNITS if total >= least)
    ticks = [x for x in round_ticks(9).tick_values(0, total / seconds) if x * seconds <= total]
    return Gantt(
        unit,
        f"Time with a running driver ({scale})",
        [(round(100 * x * seconds / total, 3), number(x)) for x in ticks],
        rows,
        list(map(shot, timeline.shots)) if one_by_one else [],
        [] if one_by_one else list(_shades(timeline, rows, place)),
        [block(s, 0, PHASE_TITLES.get(s.name, s.name), f"phase-{s.name}") for s in timeline.phases],
        [block(s, 0, s.name) for s in _grouped(timeline.evaluations)],
        [(place(time) / 10, row_of.get(worker, -1), text) for worker, time, text in timeline.marks],
        [(place(t) / 10, f"driver started again after a pause of {number(p, 3)} s") for t, p in timeline.starts[1:]],
        _summary(timeline),
    )


def _summary(timeline: Timeline) -> str:
    workers = timeline.workers
    busy = sum(worker.seconds for worker in workers)
    present = sum(end - begin for begin, end in map(timeline.presence, workers))
    share = number(100 * min(1.0, busy / present) if present else 0.0, 3)
    hosts, shots = counted(len({worker.host for worker in workers}), "host"), sum(worker.shots for worker in workers)
    text = (
        f"{counted(timeline.joined, 'worker')} on {hosts} finished {counted(shots, 'shot')}, including those of the data, in "
        f"{number(timeline.now)} s; they were busy for {share} % of the time for which they were connected."
    )
    if timeline.marks:
        text += f" Marked: {counted(len(timeline.marks), 'failure')}."
    missing = timeline.joined - len(workers)
    return f"{text} The last {missing} workers are not shown." if missing else text


def _grouped(evaluations: Sequence[Span]) -> Iterator[Span]:
    """Evaluations with titles, grouped if there are too many."""
    for group in _groups(evaluations, MAX_BLOCKS):
        first, last = group[0], group[-1]
        single = f"evaluation {first.evaluation}: {number(first.end - first.begin, 3)} s"
        title = single if first is last else f"evaluations {first.evaluation} to {last.evaluation}"
        yield Span(title, first.begin, last.end, first.evaluation // len(group) or 1)


def _groups(items: Sequence[T], limit: int) -> list[Sequence[T]]:
    """Split items into at most ``limit`` groups of equal size, in their order."""
    size = max(1, -(-len(items) // limit))
    return [items[i : i + size] for i in range(0, len(items), size)]


def _rows(workers: Sequence[Worker]) -> tuple[str, list[Row]]:
    """The unit of the rows, and a row for each worker, host or group of hosts, so that at most MAX_ROWS rows result."""
    order = sorted(range(len(workers)), key=lambda i: (natural_order(workers[i].host), natural_order(workers[i].name)))
    unit, found = "worker", [(" · ".join(filter(None, (workers[i].host, workers[i].name))), [i]) for i in order]
    if len(workers) > MAX_ROWS:
        unit, found = "host", [(host, list(there)) for host, there in groupby(order, key=lambda i: workers[i].host)]
    groups = _groups(found, MAX_ROWS)
    labels = (" … ".join(dict.fromkeys((group[0][0], group[-1][0]))) for group in groups)
    rows = [Row(label, [i for _, each in group for i in each]) for label, group in zip(labels, groups, strict=True)]
    return unit if len(groups) == len(found) else "hosts", rows


def _shades(timeline: Timeline, rows: list[Row], place: Callable[[float], float]) -> Iterator[tuple[int, str]]:
    """For each shade, an SVG path of the bins in which the workers of a row were that busy."""
    width = timeline.width
    bins = min(BINS, max(1, math.ceil(timeline.now / width)))
    edges = width * np.arange(bins + 1)
    paths: dict[int, list[str]] = {}
    for y, row in enumerate(rows):
        busy, present = np.zeros(bins), np.zeros(bins)
        for i in row.workers:
            begin, end = timeline.presence(timeline.workers[i])
            busy += np.frombuffer(timeline.workers[i].busy, dtype=float, count=BINS)[:bins]
            present += np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], begin), 0, None)
        shade = np.ceil(SHADES * np.clip(busy / np.maximum(present, 1e-3 * width), 0, 1)).astype(int)
        shade[busy <= 0] = 0
        changes = [0, *(np.flatnonzero(np.diff(shade)) + 1).tolist(), bins]
        for first, after in pairwise(changes):
            if shade[first]:
                a, b = place(edges[first]), place(edges[after])
                paths.setdefault(int(shade[first]), []).append(f"M{a:.1f} {y + 0.1:.1f}H{b:.1f}v.8H{a:.1f}z")
    for level in sorted(paths):
        yield level, "".join(paths[level])
