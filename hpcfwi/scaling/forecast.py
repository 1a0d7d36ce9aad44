"""Predict runs on more nodes with a cost model that is fitted to measured runs.

An evaluation schedules shots on workers; the sum and the driver follow. A run has a start, the observed data, evaluations and
an end.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

import numpy as np

from hpcfwi.errors import InputError
from hpcfwi.execution.window import NO_OVERHEAD, TaskOverhead, queue_depth, should_batch
from hpcfwi.inversion.functional_gradient import BLOCK
from hpcfwi.scaling.time_breakdown import TimeBreakdown

# Time of an evaluation beyond its shots; "start_and_end" is the time of a run beyond its evaluations.
LOSSES = {
    "start_and_end": "start and end of the job",
    "imbalance": "imbalance: workers idle at the end of an evaluation",
    "scheduler": "the scheduler, which handles one task at a time",
    "dispatch": "the round trip to the scheduler between two shots",
    "sum": "the sum of gradients",
    "driver": "optimiser and driver between evaluations",
}
# Parts of the wall time that are independent of the number of nodes, and parts that may grow with it.
CONSTANT_PARTS, GROWING_PARTS = ("driver_start", "queue_wait", "solver", "results"), ("worker_start", "closing")
# A prediction is the mean over DRAWS random surveys; with more than MAX_DRAWN_SHOTS, one is enough.
DRAWS, MAX_DRAWN_SHOTS = 5, 20_000


def makespan(
    durations: Sequence[float], workers: int, gap: float = 0.0, handling: float = 0.0, depth: int = 1
) -> float:
    """Compute the time of tasks that start, in order, on the first free worker (list scheduling).

    A worker needs ``gap`` seconds between two tasks and holds up to ``depth`` of them, the running one included. The scheduler
    needs ``handling`` seconds for each task, one after the other.

    Notes
    -----
    R. L. Graham (1969), Bounds on multiprocessing timing anomalies, SIAM J. Appl. Math. 17.
    """
    # times at which workers can take a task; all get their first one before any gets its second
    free = [(0.0, slot, worker) for slot in range(depth) for worker in range(workers)]
    ends, handled = [0.0] * workers, 0.0
    for seconds in durations:
        when, _, worker = heapq.heappop(free)
        handled = max(handled, when) + handling
        ends[worker] = max(ends[worker] + gap, handled) + seconds
        heapq.heappush(free, (ends[worker], depth - 1, worker))
    return max(ends) + gap


def tree_depth(shots: int) -> int:
    """Number of levels of the sum over the shots."""
    depth = 0
    while shots > 1:
        shots, depth = math.ceil(shots / BLOCK), depth + 1
    return depth


@dataclass(frozen=True)
class Prediction:
    """A predicted run."""

    nodes: int
    shots: int
    evaluations: int
    shots_per_task: int  # shots that a task computes
    evaluation_seconds: float  # wall time of an evaluation
    wall_seconds: float  # wall time of the run
    work_seconds: float  # duration of all shots divided by the number of workers
    losses: dict[str, float]  # seconds per evaluation by LOSSES; start and end of the job are spread over all

    @property
    def bottleneck(self) -> str:
        """The largest loss within an evaluation."""
        return max((name for name in self.losses if name != "start_and_end"), key=lambda name: self.losses[name])


@dataclass(frozen=True)
class CostModel:
    """The costs of a problem on a machine."""

    shot_seconds: tuple[float, ...]  # duration of each shot of a measured run, in their order
    first_ratio: float  # duration of shots in the first evaluation divided by that in later ones
    workers_per_node: float
    gap_seconds: float  # between two tasks of a worker
    overhead: TaskOverhead  # of driver and scheduler for a shot
    level_seconds: float  # of a level of the sum
    driver_seconds: float  # of the driver between two evaluations
    observed_seconds: float  # duration of a shot of the observed data
    start_and_end: dict[str, tuple[float, float]]  # by part of the wall time: constant seconds, and seconds per node

    def predict(self, nodes: int, shots: int, evaluations: int) -> Prediction:
        workers = max(1, round(nodes * self.workers_per_node))
        typical = fmean(self.shot_seconds)
        shots_per_task = BLOCK if should_batch(shots, workers, typical) else 1
        surveys = self._surveys(shots)
        shots_seconds = fmean(self.schedule(survey, workers, shots_per_task) for survey in surveys)
        ideal = replace(self, overhead=NO_OVERHEAD)
        without_overhead = fmean(ideal.schedule(survey, workers, shots_per_task) for survey in surveys)
        # the first evaluation has no batches, because durations are unknown
        first = fmean(self.schedule(survey, workers) for survey in surveys) if shots_per_task > 1 else shots_seconds
        work = fmean(map(sum, surveys)) / workers
        dispatch = self.gap_seconds * math.ceil(shots / shots_per_task) / workers
        losses = {
            "imbalance": max(0.0, without_overhead - work - dispatch),
            "scheduler": max(0.0, shots_seconds - without_overhead),
            "dispatch": dispatch,
            "sum": self.level_seconds * tree_depth(shots),
            "driver": self.driver_seconds,
        }
        evaluation = shots_seconds + losses["sum"] + self.driver_seconds
        start_and_end = sum(constant + slope * nodes for constant, slope in self.start_and_end.values())
        start_and_end += self.schedule([self.observed_seconds] * shots, workers)
        start_and_end += (self.first_ratio - 1) * work + max(0.0, first - shots_seconds)
        losses["start_and_end"] = start_and_end / evaluations
        wall = start_and_end + evaluations * evaluation
        return Prediction(nodes, shots, evaluations, shots_per_task, evaluation, wall, work, losses)

    def schedule(self, shot_seconds: Sequence[float], workers: int, shots_per_task: int = 1) -> float:
        """Compute the wall time of the shots of an evaluation, s."""
        handling = self.overhead.alone if shots_per_task == 1 else self.overhead.batched
        tasks = [sum(shot_seconds[i : i + shots_per_task]) for i in range(0, len(shot_seconds), shots_per_task)]
        depth = queue_depth(shots_per_task * fmean(self.shot_seconds), workers)
        return makespan(tasks, workers, self.gap_seconds, shots_per_task * handling, depth)

    def _surveys(self, shots: int) -> list[list[float]]:
        """Durations of ``shots`` shots: the measured ones, or random draws from them."""
        if shots == len(self.shot_seconds):
            return [list(self.shot_seconds)]
        draws = 1 if shots > MAX_DRAWN_SHOTS else DRAWS
        return [np.random.default_rng(seed).choice(self.shot_seconds, shots).tolist() for seed in range(draws)]


def fit(runs: Sequence[TimeBreakdown], overhead: TaskOverhead = NO_OVERHEAD) -> CostModel:
    """Fit the cost model to runs of one problem on one machine; raise InputError if none has computed an evaluation."""
    runs = [run for run in runs if run.times]
    if not runs:
        raise InputError("a cost model needs a run with at least one computed evaluation")
    typical = [(run, times) for run in runs for times in run.typical_times]
    return CostModel(
        shot_seconds=tuple(_typical_shots(max(runs, key=lambda run: run.shots))),
        first_ratio=median(_first_ratio(run) for run in runs),
        workers_per_node=median(run.workers / run.nodes for run in runs),
        # there is no gap between the shots of a batch
        gap_seconds=median(times.shots_per_task * times.dispatch_seconds for _, times in typical),
        overhead=overhead,
        level_seconds=median(times.sum_seconds / max(1, tree_depth(run.shots)) for run, times in typical),
        driver_seconds=median(times.driver_seconds for _, times in typical),
        observed_seconds=median([fmean(run.observed_seconds) for run in runs if run.observed_seconds] or [0.0]),
        start_and_end={name: _fit_line(runs, name) for name in (*CONSTANT_PARTS, *GROWING_PARTS)},
    )


def replay(run: TimeBreakdown, overhead: TaskOverhead = NO_OVERHEAD) -> float:
    """Compute the wall time of a measured run, s, by scheduling its shots between its measured start and end."""
    model = fit([run], overhead)
    start_and_end = sum(run.parts[name] for name in (*model.start_and_end, "observed_data", "missing_workers"))
    return start_and_end + sum(
        model.schedule([*times.shot_seconds.values()], run.workers, times.shots_per_task)
        + model.level_seconds * tree_depth(run.shots)
        + model.driver_seconds
        for times in run.times
    )


def _typical_shots(run: TimeBreakdown) -> list[float]:
    """Duration of each shot: the median over complete evaluations."""
    complete = [times.shot_seconds for times in run.typical_times if len(times.shot_seconds) == run.shots]
    if not complete:
        return [*max((times.shot_seconds for times in run.times), key=len).values()]
    return [median(seconds[name] for seconds in complete) for name in complete[0]]


def _first_ratio(run: TimeBreakdown) -> float:
    """Duration of shots in the first evaluation divided by that in later ones; at least 1."""
    first = [*run.times[0].shot_seconds.values()]
    later = [seconds for times in run.times[1:] for seconds in times.shot_seconds.values()]
    return max(1.0, fmean(first) / fmean(later)) if first and later and fmean(later) else 1.0


def _fit_line(runs: Sequence[TimeBreakdown], name: str) -> tuple[float, float]:
    """Fit constant seconds and seconds per node to a part of the wall time; both are positive or zero."""
    nodes = [run.nodes for run in runs]
    if name in GROWING_PARTS and len(set(nodes)) > 2:  # a line through two points fits any noise
        slope, constant = np.polyfit(nodes, [run.parts[name] for run in runs], 1)
        if slope > 0 and constant > 0:
            return float(constant), float(slope)
    return median(run.parts[name] for run in runs), 0.0
