"""A model of what a run costs, fitted to measured ones: how it would scale to more nodes and shots, and what stops it there.

An evaluation takes the schedule of its shots (:mod:`hpcfwi.scaling.simulator`), the levels of the sum above the last of them,
and what the driver does until the next one. A run takes as many of those as it has evaluations; before them the driver's start,
the queue, the start of workers and solvers and the observed data, and after them its end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean, median

import numpy as np

from hpcfwi.errors import InputError
from hpcfwi.execution.batching import NO_OVERHEAD, TaskOverhead, should_batch
from hpcfwi.execution.window import queue_depth
from hpcfwi.inversion.misfit import BLOCK
from hpcfwi.scaling.simulator import Schedule, simulate, tree_depth
from hpcfwi.scaling.time_breakdown import EvaluationTimes, TimeBreakdown

__all__ = ["LOSSES", "CostModel", "Prediction", "fit", "replay"]

# What keeps an evaluation, or a job, from being nothing but shots.
LOSSES = {
    "start_and_end": "start and end of the job",
    "imbalance": "imbalance: workers without a shot at the end of an evaluation",
    "scheduler": "the scheduler, which hands out one task after the other",
    "dispatch": "the way to the scheduler and back between two shots",
    "sum": "the sum of gradients",
    "driver": "optimiser and driver between evaluations",
}
# Draws of shots that a prediction is the mean of, and shots from which on one is enough.
DRAWS, MANY = 5, 20_000


@dataclass(frozen=True)
class Prediction:
    """What a run would take.

    Parameters
    ----------
    nodes, shots, evaluations
        Of the run.
    in_one_task
        Shots that a task computes.
    evaluation_seconds, wall
        Of one evaluation, and of all from the command to the end, s.
    work
        Seconds of shots in an evaluation, over the workers.
    losses
        What is added to the work in an evaluation, s, by :data:`LOSSES`; start and end are shared out over the evaluations.
    """

    nodes: int
    shots: int
    evaluations: int
    in_one_task: int
    evaluation_seconds: float
    wall: float
    work: float
    losses: dict[str, float]

    @property
    def bottleneck(self) -> str:
        """The largest loss within evaluations."""
        inside = {name: seconds for name, seconds in self.losses.items() if name != "start_and_end"}
        return max(inside, key=lambda name: inside[name])


@dataclass(frozen=True)
class CostModel:
    """The costs of a problem on a machine, seconds.

    Parameters
    ----------
    lengths
        Of the shots of a measured run, in their order.
    first
        How much longer they are in the first evaluation, a factor.
    workers_per_node
        Worker processes of a node.
    gap
        Between two tasks of a worker.
    handling
        Of driver and scheduler for a shot, which is the least time between any two.
    level
        Of a level of the sum.
    between
        Of the driver, from one evaluation to the next.
    driver_start, queue_wait, solver, observing, results
        Before and after; ``observing`` for each shot on a worker.
    worker_start, closing
        Constant, and what each node adds.
    """

    lengths: tuple[float, ...]
    first: float
    workers_per_node: float
    gap: float
    handling: TaskOverhead
    level: float
    between: float
    driver_start: float
    queue_wait: float
    solver: float
    observing: float
    results: float
    worker_start: tuple[float, float]
    closing: tuple[float, float]

    @property
    def mean_length(self) -> float:
        """Of a shot."""
        return mean(self.lengths)

    def predict(self, nodes: int, shots: int, evaluations: int) -> Prediction:
        """What a run on so many nodes, with so many shots, would take."""
        workers = max(1, round(nodes * self.workers_per_node))
        in_one_task = BLOCK if should_batch(shots, workers, self.mean_length) else 1
        schedules, alone, busy, first = [], [], [], []
        for lengths in self._draws(shots):
            whole = self.schedule(lengths, workers, in_one_task)
            schedules.append(whole.seconds)
            alone.append(replace(self, handling=NO_OVERHEAD).schedule(lengths, workers, in_one_task).seconds)
            busy.append(whole.busy / workers)
            # before its end nobody knows how long shots are
            first.append(self.schedule(lengths, workers).seconds if in_one_task > 1 else whole.seconds)
        shots_seconds, work = mean(schedules), mean(busy)
        dispatch = self.gap * math.ceil(shots / in_one_task) / workers
        losses = {
            "imbalance": max(0.0, mean(alone) - work - dispatch),
            "scheduler": max(0.0, shots_seconds - mean(alone)),
            "dispatch": dispatch,
            "sum": self.level * tree_depth(shots),
            "driver": self.between,
        }
        evaluation = shots_seconds + losses["sum"] + self.between
        observed = self.schedule([self.observing] * shots, workers).seconds
        around = (
            self.driver_start
            + self.queue_wait
            + self.solver
            + observed
            + self.results
            + _at(self.worker_start, nodes)
            + _at(self.closing, nodes)
            + (self.first - 1) * work
            + max(0.0, mean(first) - shots_seconds)
        )
        losses["start_and_end"] = around / evaluations
        wall = around + evaluations * evaluation
        return Prediction(nodes, shots, evaluations, in_one_task, evaluation, wall, work, losses)

    def schedule(self, lengths: Sequence[float], workers: int, in_one_task: int = 1) -> Schedule:
        """Of shots on workers that are all there."""
        each = self.handling.alone if in_one_task == 1 else self.handling.bundled
        tasks = [sum(lengths[i : i + in_one_task]) for i in range(0, len(lengths), in_one_task)]
        held = queue_depth(in_one_task * self.mean_length, workers)
        return simulate(tasks, [0.0] * workers, self.gap, in_one_task * each, held)

    def _draws(self, shots: int) -> list[list[float]]:
        """Lengths of so many shots: the measured ones, or some as they may be."""
        if shots == len(self.lengths):
            return [list(self.lengths)]
        draws = 1 if shots > MANY else DRAWS
        return [np.random.default_rng(seed).choice(self.lengths, shots).tolist() for seed in range(draws)]


def fit(accounts: Sequence[TimeBreakdown], handling: TaskOverhead = NO_OVERHEAD) -> CostModel:
    """Fit the model to measured runs of one problem on one machine.

    Parameters
    ----------
    accounts
        At least one run.
    handling
        Of driver and scheduler for a shot (:func:`hpcfwi.scaling.runs.measure_overhead`).

    Raises
    ------
    InputError
        If there is none with two evaluations.
    """
    chosen = [account for account in accounts if account.times]
    if not chosen:
        raise InputError("a model of the cost needs a run with at least one evaluation that was computed")
    times = [time for account in chosen for time in account.times[1:] or account.times]
    largest = max(chosen, key=lambda account: account.shots)
    return CostModel(
        tuple(_typical(largest)),
        median(_first(account) for account in chosen),
        median(account.workers / account.nodes for account in chosen),
        _gap(times),
        handling,
        median(
            time.sum_seconds / max(1, tree_depth(account.shots))
            for account in chosen
            for time in account.times[1:] or account.times
        ),
        median(time.between_seconds for time in times),
        _part(chosen, "driver_start"),
        _part(chosen, "queue_wait"),
        _part(chosen, "solver"),
        median(mean(account.observing) for account in chosen if account.observing),
        _part(chosen, "results"),
        _line(chosen, "worker_start"),
        _line(chosen, "closing"),
    )


def replay(account: TimeBreakdown, handling: TaskOverhead = NO_OVERHEAD) -> float:
    """The wall time of a measured run as the simulator has it: from the lengths of its shots, and the run's typical costs.

    Where its workers were, before and after the evaluations, is taken from the measurement; how long its evaluations took
    is not.
    """
    model = fit([account], handling)
    around = sum(
        account.parts[name]
        for name in (
            "driver_start",
            "queue_wait",
            "worker_start",
            "solver",
            "observed_data",
            "results",
            "closing",
            "missing_workers",
        )
    )
    evaluations = sum(
        model.schedule([*time.lengths.values()], account.workers, time.in_one_task).seconds
        + model.level * tree_depth(account.shots)
        + model.between
        for time in account.times
    )
    return around + evaluations


def _typical(account: TimeBreakdown) -> list[float]:
    """The length of each shot, in their order: the median over the evaluations in which all were computed."""
    whole = [time.lengths for time in account.times[1:] or account.times if len(time.lengths) == account.shots]
    if not whole:
        return [*max((time.lengths for time in account.times), key=len).values()]
    return [median(lengths[name] for lengths in whole) for name in whole[0]]


def _first(account: TimeBreakdown) -> float:
    """How much longer shots are in the first evaluation."""
    later = [length for time in account.times[1:] for length in time.lengths.values()]
    first = [*account.times[0].lengths.values()]
    return max(1.0, mean(first) / mean(later)) if later and first and mean(later) else 1.0


def _gap(times: Sequence[EvaluationTimes]) -> float:
    # those of a bundle follow each other at once
    return median(time.in_one_task * time.dispatch for time in times)


def _part(accounts: Sequence[TimeBreakdown], name: str) -> float:
    return median(account.parts[name] for account in accounts)


def _line(accounts: Sequence[TimeBreakdown], name: str) -> tuple[float, float]:
    """A constant, and what each node adds, which is never negative."""
    nodes = np.array([account.nodes for account in accounts], dtype=float)
    seconds = np.array([account.parts[name] for account in accounts])
    if len(set(nodes)) < 3:  # two points say nothing of how well a line fits
        return float(np.median(seconds)), 0.0
    slope, constant = np.polyfit(nodes, seconds, 1)
    return (float(constant), float(slope)) if slope > 0 and constant > 0 else (float(np.median(seconds)), 0.0)


def _at(line: tuple[float, float], nodes: int) -> float:
    return line[0] + line[1] * nodes
