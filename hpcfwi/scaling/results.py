"""Scaling studies: a ladder of runs over node counts, what they say together, and what they let expect.

Called by ``hpcfwi scale``; :mod:`hpcfwi.scaling.output` writes down what is found here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean

from hpcfwi.execution.batching import NO_OVERHEAD, TaskOverhead
from hpcfwi.scaling.forecast import CostModel, Prediction, fit, replay
from hpcfwi.scaling.runs import MeasuredRun
from hpcfwi.scaling.time_breakdown import PARTS

__all__ = ["Estimate", "Forecast", "Level", "Scaling", "Validation", "predict", "summarise", "validate"]

# Nodes that are predicted for, and shots of a large survey.
NODES = tuple(2**k for k in range(13))
LARGE = 100_000
# Of an inversion, for each iteration.
EVALUATIONS = 1.3
# Confidence of intervals.
CONFIDENCE = 0.95
# The part of an evaluation that a loss has to take before it is called a bottleneck.
NOTABLE = 0.05


@dataclass(frozen=True)
class Estimate:
    """A mean and its confidence interval; one value has none."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Of ratios or times, whose logarithms are taken as normal: geometric mean and Student's interval."""
        if len(values) < 2 or min(values) <= 0:
            return cls(mean(values))
        from scipy.special import stdtrit

        logs = [math.log(value) for value in values]
        centre = mean(logs)
        variance = sum((log - centre) ** 2 for log in logs) / (len(logs) - 1)
        half = float(stdtrit(len(logs) - 1, 0.5 + CONFIDENCE / 2)) * math.sqrt(variance / len(logs))
        return cls(math.exp(centre), math.exp(centre - half), math.exp(centre + half))


@dataclass(frozen=True)
class Level:
    """All repetitions of one node count.

    Parameters
    ----------
    nodes, workers, cores, shots, evaluations
        Of each run.
    evaluation_seconds, wall
        Of an evaluation, and of the whole job, s.
    speedup, efficiency
        Of an evaluation, against the lowest rung: the part that computes.
    job_speedup, job_efficiency
        Of the whole job, from the command to the end.
    core_hours
        Of a run.
    parts
        Where the wall time went, s; means over the repetitions.
    """

    nodes: int
    workers: int
    cores: int
    shots: int
    evaluations: int
    evaluation_seconds: Estimate
    wall: Estimate
    speedup: Estimate
    efficiency: Estimate
    job_speedup: Estimate
    job_efficiency: Estimate
    core_hours: float
    parts: dict[str, float]


@dataclass(frozen=True)
class Validation:
    """How well the model predicts what it has not seen, and the simulator what was measured.

    Parameters
    ----------
    nodes
        The rung that was left out; 0 where there are too few.
    evaluation_error, wall_error
        Predicted over measured, less one.
    replay_errors
        Wall time as the simulator has it over that which was measured, less one; by rung.
    """

    nodes: int
    evaluation_error: float
    wall_error: float
    replay_errors: dict[str, float]


@dataclass(frozen=True)
class Forecast:
    """A series of predictions over node counts.

    Parameters
    ----------
    title
        What is predicted.
    weak
        Whether shots grow with nodes.
    predictions
        In the order of the nodes.
    """

    title: str
    weak: bool
    predictions: list[Prediction]

    def efficiency(self, prediction: Prediction, job: bool = False) -> float:
        """Against the first, of an evaluation or of the whole job; shots are counted, which need not be the same."""
        first = self.predictions[0]
        time, base = (prediction.wall, first.wall) if job else (prediction.evaluation_seconds, first.evaluation_seconds)
        return base * prediction.shots * first.nodes / (time * first.shots * prediction.nodes)

    @property
    def takeovers(self) -> list[tuple[Prediction, str]]:
        """From which node count on which loss is the largest one of an evaluation, where it is notable."""
        found: list[tuple[Prediction, str]] = []
        for prediction in self.predictions:
            name = prediction.bottleneck
            notable = prediction.losses[name] >= NOTABLE * prediction.evaluation_seconds
            if notable and (not found or found[-1][1] != name):
                found.append((prediction, name))
        return found


@dataclass(frozen=True)
class Scaling:
    """The results of a study.

    Parameters
    ----------
    weak
        Whether the shots grow with the nodes.
    measured
        All runs.
    levels
        By node count.
    model
        Fitted to all of them.
    validation
        Of model and simulator.
    forecasts
        What is to be expected.
    """

    weak: bool
    measured: list[MeasuredRun]
    levels: list[Level]
    model: CostModel
    validation: Validation
    forecasts: list[Forecast]


def gain(found: MeasuredRun, measured: Sequence[MeasuredRun], name: str) -> float:
    """How many times as many shots in a second as the lowest rung, by ``"evaluation_seconds"`` or ``"wall"``.

    A run is compared with the lowest rung of its own repetition, which ran at about the same time.
    """
    lowest = [other for other in measured if other.rung.nodes == min(one.rung.nodes for one in measured)]
    same = [other for other in lowest if other.rung.repeat == found.rung.repeat] or lowest
    here, base = found.account, same[0].account
    return float(here.shots / base.shots * getattr(base, name) / getattr(here, name))


def summarise(measured: Sequence[MeasuredRun]) -> list[Level]:
    """Put the repetitions of each node count together."""
    counts = sorted({found.rung.nodes for found in measured})
    levels = []
    for nodes in counts:
        runs = [found for found in measured if found.rung.nodes == nodes]
        accounts = [found.account for found in runs]
        gains = {name: [gain(found, measured, name) for found in runs] for name in ("evaluation_seconds", "wall")}
        per_node = {name: [value * counts[0] / nodes for value in values] for name, values in gains.items()}
        first = accounts[0]
        levels.append(
            Level(
                nodes,
                first.workers,
                first.cores,
                first.shots,
                first.evaluations,
                Estimate.of([account.evaluation_seconds for account in accounts]),
                Estimate.of([account.wall for account in accounts]),
                Estimate.of(gains["evaluation_seconds"]),
                Estimate.of(per_node["evaluation_seconds"]),
                Estimate.of(gains["wall"]),
                Estimate.of(per_node["wall"]),
                mean(account.core_hours for account in accounts),
                {name: mean(account.parts[name] for account in accounts) for name in PARTS},
            )
        )
    return levels


def validate(measured: Sequence[MeasuredRun], handling: TaskOverhead = NO_OVERHEAD) -> Validation:
    """Leave the largest rung out and predict it; replay every run."""
    errors = {str(found.rung): replay(found.account, handling) / found.account.wall - 1 for found in measured}
    counts = sorted({found.rung.nodes for found in measured})
    if len(counts) < 2:
        return Validation(0, math.nan, math.nan, errors)
    largest = [found.account for found in measured if found.rung.nodes == counts[-1]]
    model = fit([found.account for found in measured if found.rung.nodes < counts[-1]], handling)
    predicted = model.predict(counts[-1], largest[0].shots, largest[0].evaluations)
    return Validation(
        counts[-1],
        predicted.evaluation_seconds / mean(account.evaluation_seconds for account in largest) - 1,
        predicted.wall / mean(account.wall for account in largest) - 1,
        errors,
    )


def predict(model: CostModel, measured: Sequence[MeasuredRun], iterations: int) -> list[Forecast]:
    """Strong scaling of this survey and of one of 100,000 shots; weak scaling with as many shots a node as were measured."""
    largest = max((found.account for found in measured), key=lambda account: account.nodes)
    shots, evaluations = max(found.account.shots for found in measured), largest.evaluations
    each = max(1, largest.shots // largest.nodes)
    whole = max(evaluations, round(EVALUATIONS * iterations))
    own = [model.predict(nodes, shots, evaluations) for nodes in NODES if nodes <= max(shots, 1)]
    grown = [model.predict(nodes, each * nodes, evaluations) for nodes in NODES]
    return [
        Forecast(f"{shots} shots", False, own),
        Forecast(f"{LARGE} shots", False, [model.predict(nodes, LARGE, evaluations) for nodes in NODES]),
        Forecast(f"{each} shots a node", True, grown),
        Forecast(f"{each} shots a node", True, [longer(prediction, whole) for prediction in grown]),
    ]


def longer(prediction: Prediction, evaluations: int) -> Prediction:
    """The same with another number of evaluations, over which start and end are shared out."""
    around = prediction.losses["start_and_end"] * prediction.evaluations
    losses = {**prediction.losses, "start_and_end": around / evaluations}
    return replace(
        prediction,
        evaluations=evaluations,
        wall=around + evaluations * prediction.evaluation_seconds,
        losses=losses,
    )


def evaluate_study(
    runs: Sequence[MeasuredRun], weak: bool, handling: TaskOverhead = NO_OVERHEAD, iterations: int = 0
) -> Scaling:
    """What the runs of a ladder say together.

    Parameters
    ----------
    runs
        Of the ladder.
    weak
        Whether the shots grow with the nodes.
    handling
        What driver and scheduler do for each shot.
    iterations
        Of an inversion as it is meant.
    """
    measured = sorted(runs, key=lambda found: (found.rung.nodes, found.rung.repeat))
    model = fit([found.account for found in measured], handling)
    return Scaling(
        weak, measured, summarise(measured), model, validate(measured, handling), predict(model, measured, iterations)
    )
