"""Results of a scaling study: speed-up, efficiency, quality of the cost model, and predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Literal

from hpcfwi.execution.window import NO_OVERHEAD, TaskOverhead
from hpcfwi.scaling.forecast import CostModel, Prediction, fit, replay
from hpcfwi.scaling.runs import MeasuredRun
from hpcfwi.scaling.time_breakdown import PARTS

# Predicted node counts, and the shots of a large survey.
PREDICTED_NODES, LARGE_SURVEY = tuple(2**k for k in range(13)), 100_000
# A typical number for an inversion.
EVALUATIONS_PER_ITERATION = 1.3
CONFIDENCE = 0.95
# A loss is a bottleneck if it takes at least this share of an evaluation.
NOTABLE_SHARE = 0.05

Duration = Literal["evaluation_seconds", "wall_seconds"]


@dataclass(frozen=True)
class Estimate:
    """A mean and its confidence interval; a single value has none."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Return the geometric mean of times or ratios, with Student's confidence interval of their logarithms."""
        if len(values) < 2 or min(values) <= 0:
            return cls(mean(values))
        from scipy.special import stdtrit

        logs = [math.log(value) for value in values]
        half = float(stdtrit(len(logs) - 1, 0.5 + CONFIDENCE / 2)) * stdev(logs) / math.sqrt(len(logs))
        return cls(math.exp(mean(logs)), math.exp(mean(logs) - half), math.exp(mean(logs) + half))


@dataclass(frozen=True)
class NodeCount:
    """All runs on one number of nodes."""

    nodes: int
    workers: int
    cores: int
    shots: int
    evaluations: int
    evaluation_seconds: Estimate  # wall time of an evaluation
    wall_seconds: Estimate  # wall time of the whole job
    speedup: Estimate  # of evaluations, relative to the smallest number of nodes
    efficiency: Estimate  # parallel efficiency of evaluations
    job_speedup: Estimate  # of whole jobs
    job_efficiency: Estimate
    core_hours: float
    parts: dict[str, float]  # seconds of the wall time by PARTS

    def share(self, part: str) -> float:
        """Share of the wall time."""
        return self.parts[part] / sum(self.parts.values())


@dataclass(frozen=True)
class Validation:
    """Errors of the cost model: predicted over measured, minus 1."""

    nodes: int  # the largest number of nodes, predicted from the smaller ones
    evaluation_error: float | None  # None if there is only one number of nodes
    wall_error: float | None
    replay_errors: dict[str, float]  # of the wall time computed from the measured shots, by run


@dataclass(frozen=True)
class Forecast:
    """Predictions for a survey on increasing numbers of nodes."""

    title: str  # the survey
    weak: bool  # whether the number of shots grows with the number of nodes
    predictions: list[Prediction]

    def efficiency(self, prediction: Prediction, job: bool = False) -> float:
        """Return the parallel efficiency of evaluations or whole jobs (from shots per second), relative to the first."""
        first = self.predictions[0]
        name = "wall_seconds" if job else "evaluation_seconds"
        speedup = prediction.shots / first.shots * getattr(first, name) / getattr(prediction, name)
        return float(speedup * first.nodes / prediction.nodes)

    @property
    def bottlenecks(self) -> list[tuple[Prediction, str]]:
        """The predictions at which the largest notable loss changes, with the new one."""
        found: list[tuple[Prediction, str]] = []
        for prediction in self.predictions:
            name = prediction.bottleneck
            notable = prediction.losses[name] >= NOTABLE_SHARE * prediction.evaluation_seconds
            if notable and (not found or found[-1][1] != name):
                found.append((prediction, name))
        return found


@dataclass(frozen=True)
class Scaling:
    """The results of a study."""

    weak: bool  # whether the number of shots grows with the number of nodes
    runs: list[MeasuredRun]  # by number of nodes and repetition
    node_counts: list[NodeCount]
    model: CostModel
    validation: Validation
    forecasts: list[Forecast]


def evaluate_study(
    runs: Sequence[MeasuredRun], weak: bool, overhead: TaskOverhead = NO_OVERHEAD, iterations: int = 0
) -> Scaling:
    """Evaluate the runs of a study; also predict whole jobs for an inversion of ``iterations`` iterations."""
    ordered = sorted(runs, key=lambda run: (run.point.nodes, run.point.repeat))
    model = fit([run.times for run in ordered], overhead)
    counts = sorted({run.point.nodes for run in ordered})
    node_counts = [_node_count(nodes, ordered) for nodes in counts]
    return Scaling(weak, ordered, node_counts, model, validate(ordered, overhead), _predict(model, ordered, iterations))


def speedup(run: MeasuredRun, runs: Sequence[MeasuredRun], duration: Duration, per_node: bool = False) -> float:
    """Return shots per second of a run, relative to the smallest number of nodes in the same repetition.

    ``per_node`` divides by the ratio of nodes, which gives the parallel efficiency.
    """
    fewest = min(other.point.nodes for other in runs)
    smallest = [other for other in runs if other.point.nodes == fewest]
    # runs of one repetition ran at about the same time
    base = next((other for other in smallest if other.point.repeat == run.point.repeat), smallest[0])
    ratio = run.times.shots / base.times.shots * getattr(base.times, duration) / getattr(run.times, duration)
    return float(ratio * fewest / run.point.nodes if per_node else ratio)


def _node_count(nodes: int, runs: Sequence[MeasuredRun]) -> NodeCount:
    here = [run for run in runs if run.point.nodes == nodes]
    times = [run.times for run in here]

    def relative(duration: Duration, per_node: bool = False) -> Estimate:
        return Estimate.of([speedup(run, runs, duration, per_node) for run in here])

    return NodeCount(
        nodes=nodes,
        workers=times[0].workers,
        cores=times[0].cores,
        shots=times[0].shots,
        evaluations=times[0].evaluations,
        evaluation_seconds=Estimate.of([run.evaluation_seconds for run in times]),
        wall_seconds=Estimate.of([run.wall_seconds for run in times]),
        speedup=relative("evaluation_seconds"),
        efficiency=relative("evaluation_seconds", per_node=True),
        job_speedup=relative("wall_seconds"),
        job_efficiency=relative("wall_seconds", per_node=True),
        core_hours=mean(run.core_hours for run in times),
        parts={name: mean(run.parts[name] for run in times) for name in PARTS},
    )


def validate(runs: Sequence[MeasuredRun], overhead: TaskOverhead = NO_OVERHEAD) -> Validation:
    """Predict the largest number of nodes from the others, and replay every run."""
    replay_errors = {str(run.point): replay(run.times, overhead) / run.times.wall_seconds - 1 for run in runs}
    most = max(run.point.nodes for run in runs)
    largest = [run.times for run in runs if run.point.nodes == most]
    smaller = [run.times for run in runs if run.point.nodes < most]
    if not smaller:
        return Validation(most, None, None, replay_errors)
    predicted = fit(smaller, overhead).predict(most, largest[0].shots, largest[0].evaluations)
    return Validation(
        most,
        predicted.evaluation_seconds / mean(run.evaluation_seconds for run in largest) - 1,
        predicted.wall_seconds / mean(run.wall_seconds for run in largest) - 1,
        replay_errors,
    )


def _predict(model: CostModel, runs: Sequence[MeasuredRun], iterations: int) -> list[Forecast]:
    """Predict strong scaling of this survey and a large one, and weak scaling of short and long runs."""
    largest = max((run.times for run in runs), key=lambda times: times.nodes)
    shots, evaluations = max(run.times.shots for run in runs), largest.evaluations
    per_node = max(1, largest.shots // largest.nodes)
    strong = [model.predict(nodes, shots, evaluations) for nodes in PREDICTED_NODES if nodes <= shots]
    large = [model.predict(nodes, LARGE_SURVEY, evaluations) for nodes in PREDICTED_NODES]
    weak = [model.predict(nodes, per_node * nodes, evaluations) for nodes in PREDICTED_NODES]
    most = max(evaluations, round(EVALUATIONS_PER_ITERATION * iterations))
    weak_and_long = [model.predict(nodes, per_node * nodes, most) for nodes in PREDICTED_NODES]
    return [
        Forecast(f"{shots} shots", False, strong),
        Forecast(f"{LARGE_SURVEY} shots", False, large),
        Forecast(f"{per_node} shots a node", True, weak),
        Forecast(f"{per_node} shots a node", True, weak_and_long),
    ]
