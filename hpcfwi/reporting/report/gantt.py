"""The time line as it is drawn: a lane for each worker, for each host, or for several hosts, whatever has room on a page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from hpcfwi.reporting.formatting import counted
from hpcfwi.reporting.report.charts import Axis, number
from hpcfwi.reporting.report.timeline import BINS, Bar, Timeline, Worker

__all__ = ["Block", "Gantt", "Lane", "Sign", "make_gantt"]

# Lanes on a page; width of the drawing in its own units; the narrowest bar; shades of a busy part.
MOST_LANES, WIDTH, NARROWEST, SHADES = 60, 1000.0, 0.6, 10
# Colours that take turns, so that one evaluation can be told from the next; evaluations that have a block of their own.
TURNS, MOST_BLOCKS = 6, 300
# Seconds from which time is told in minutes, and in hours.
MINUTES, HOURS = 180.0, 3 * 3600.0
NAMES = {"start": "start, waiting for workers", "data": "data", "inversion": "inversion", "pictures": "pictures"}


@dataclass
class Lane:
    """One line: what it is of, workers in it, and when they were there (begin and width)."""

    label: str
    workers: list[int]
    present: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Block:
    """A rectangle: its lane, begin and width, its class in the style sheet, and what it is."""

    lane: int
    begin: float
    width: float
    look: str
    title: str


@dataclass(frozen=True)
class Sign:
    """Something that went wrong: percent of the way, its lane (-1: above all), what it is."""

    at: float
    lane: int
    title: str


@dataclass(frozen=True)
class Gantt:
    """What is drawn.

    Parameters
    ----------
    of
        What a lane is: ``"worker"``, ``"host"`` or ``"hosts"``.
    x
        Axis of time.
    lanes
        From top to bottom.
    blocks
        Shots, one by one; empty where there are too many.
    shades
        Of each shade the path of what is as busy.
    stages, evaluations
        Above the lanes.
    signs
        Failures.
    pauses
        Where a driver began again (percent), and what it is.
    summary
        In words.
    """

    of: str
    x: Axis
    lanes: list[Lane]
    blocks: list[Block]
    shades: list[tuple[int, str]]
    stages: list[Block]
    evaluations: list[Block]
    signs: list[Sign]
    pauses: list[tuple[float, str]]
    summary: str


def make_gantt(timeline: Timeline) -> Gantt | None:
    """Arrange what a time line has; None where nothing has happened yet."""
    total = timeline.now
    if not total > 0:
        return None
    unit, seconds = ("h", 3600.0) if total > HOURS else ("min", 60.0) if total > MINUTES else ("s", 1.0)
    x = Axis(f"Time with a driver at work ({unit})", 0.0, total / seconds, most=9)

    def place(time: float) -> float:
        return WIDTH * min(1.0, max(0.0, time / total))

    of, lanes = _lanes(timeline.workers)
    lane_of = {worker: i for i, lane in enumerate(lanes) for worker in lane.workers}
    for lane in lanes:
        spans = [timeline.present(timeline.workers[i]) for i in lane.workers]
        lane.present = [(place(a), max(NARROWEST, place(b) - place(a))) for a, b in _merged(spans)]
    whole = of == "worker" and not timeline.crowded
    signs = [Sign(place(mark.time) / 10, lane_of.get(mark.worker, -1), mark.text) for mark in timeline.marks]
    shots = sum(worker.shots for worker in timeline.workers)
    busy, there = (
        sum(worker.seconds for worker in timeline.workers),
        sum(b - a for a, b in map(timeline.present, timeline.workers)),
    )
    more = timeline.came - len(timeline.workers)
    marked = f" Marked: {counted(len(signs), 'failure')}." if signs else ""
    summary = (
        f"{counted(timeline.came, 'worker')} on {counted(len({w.host for w in timeline.workers}), 'host')} did "
        f"{counted(shots, 'shot')}, those of the data included, in {number(total)} s; they were busy for "
        f"{number(100 * min(1.0, busy / there) if there else 0.0, 3)} % of the time for which they were "
        f"there.{marked}{f' The last {more} workers are left out.' if more else ''}"
    )
    return Gantt(
        of,
        x,
        lanes,
        [_block(bar, lane_of[bar.worker], place) for bar in timeline.bars if bar.worker in lane_of] if whole else [],
        [] if whole else list(_shades(timeline, lanes, place)),
        [
            Block(0, place(s.begin), max(NARROWEST, place(s.end) - place(s.begin)), s.name, NAMES.get(s.name, s.name))
            for s in timeline.stages
        ],
        _evaluations(timeline, place),
        signs,
        [
            (place(at) / 10, f"driver started again after a pause of {number(pause, 3)} s")
            for at, pause in timeline.starts[1:]
        ],
        summary,
    )


def _lanes(workers: list[Worker]) -> tuple[str, list[Lane]]:
    hosts: dict[str, list[int]] = {}
    for i in sorted(range(len(workers)), key=lambda i: [_natural(workers[i].host), _natural(workers[i].name)]):
        hosts.setdefault(workers[i].host, []).append(i)
    if len(workers) <= MOST_LANES:
        return "worker", [
            Lane(f"{host} · {workers[i].name}" if workers[i].name else host, [i]) for host in hosts for i in hosts[host]
        ]
    names = list(hosts)
    if len(names) <= MOST_LANES:
        return "host", [Lane(host, hosts[host]) for host in names]
    each = -(-len(names) // MOST_LANES)
    groups = [names[i : i + each] for i in range(0, len(names), each)]
    return "hosts", [
        Lane(f"{g[0]} … {g[-1]}" if len(g) > 1 else g[0], [i for h in g for i in hosts[h]]) for g in groups
    ]


def _natural(name: str) -> list[tuple[int, str]]:
    """For sorting: node9 comes before node10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Times in which at least one of them was there."""
    merged: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((begin, end))
    return merged


def _block(bar: Bar, lane: int, place: Callable[[float], float]) -> Block:
    what = f"evaluation {bar.evaluation}" if bar.evaluation else "data"
    look = f"turn{bar.evaluation % TURNS}" if bar.evaluation else "data"
    title = f"shot {bar.shot}, {what}: {number(bar.end - bar.begin, 3)} s"
    return Block(lane, place(bar.begin), max(NARROWEST, place(bar.end) - place(bar.begin)), look, title)


def _evaluations(timeline: Timeline, place: Callable[[float], float]) -> list[Block]:
    spans = timeline.spans
    # of many, several are one block
    each = max(1, -(-len(spans) // MOST_BLOCKS))
    blocks = []
    for i in range(0, len(spans), each):
        some = spans[i : i + each]
        (first, begin, end), last = some[0], some[-1][0]
        if each == 1:
            name = f"evaluation {first}: {number(end - begin, 3)} s"
        else:
            end, name = some[-1][2], f"evaluations {first} to {last}"
        turn = f"turn{(first if each == 1 else i // each) % TURNS}"
        blocks.append(Block(0, place(begin), max(NARROWEST, place(end) - place(begin)), turn, name))
    return blocks


def _shades(timeline: Timeline, lanes: list[Lane], place: Callable[[float], float]) -> Iterator[tuple[int, str]]:
    """How busy each lane's workers were, in bins of time: rectangles of the same shade are one path."""
    bins, width = timeline.bins, timeline.width
    edges = width * np.arange(bins + 1)
    paths: dict[int, list[str]] = {}
    for row, lane in enumerate(lanes):
        busy, there = np.zeros(bins), np.zeros(bins)
        for i in lane.workers:
            worker = timeline.workers[i]
            begin, end = timeline.present(worker)
            busy += np.frombuffer(worker.busy, dtype=float, count=BINS)[:bins]
            there += np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], begin), 0, None)
        shade = np.ceil(SHADES * np.clip(busy / np.maximum(there, 1e-3 * width), 0, 1)).astype(int)
        shade[busy <= 0] = 0
        changes = [0, *(np.flatnonzero(np.diff(shade)) + 1).tolist(), bins]
        for first, after in pairwise(changes):
            if shade[first]:
                a, b = place(edges[first]), place(edges[after])
                paths.setdefault(int(shade[first]), []).append(f"M{a:.1f} {row + 0.1:.1f}H{b:.1f}v.8H{a:.1f}z")
    for level in sorted(paths):
        yield level, "".join(paths[level])
