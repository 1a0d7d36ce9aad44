"""A scaling study in words and tables, as ``hpcfwi scale`` prints it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.table import Table

from hpcfwi.studies.accounting import PARTS
from hpcfwi.studies.costs import LOSSES
from hpcfwi.studies.scaling import Estimate, Forecast, Scaling

__all__ = ["forecast_lines", "levels_table", "parts_table", "validation_lines"]

# Node counts of forecasts that are told in a line.
TOLD = (1, 8, 128, 1024, 4096)


def levels_table(scaling: Scaling) -> Table:
    """Times, speed-up and efficiency by node count."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in (
        "nodes",
        "workers",
        "shots",
        "evaluation s",
        "speed-up",
        "efficiency %",
        "whole job s",
        "job efficiency %",
        "core-hours",
    ):
        table.add_column(name, justify="right")
    for level in scaling.levels:
        table.add_row(
            str(level.nodes),
            str(level.workers),
            str(level.shots),
            _told(level.evaluation_seconds),
            _told(level.speedup),
            _told(level.efficiency, 100),
            _told(level.wall),
            _told(level.job_efficiency, 100),
            f"{level.core_hours:.3g}",
        )
    return table


def parts_table(scaling: Scaling) -> Table:
    """Where the wall time went, in per cent of it, by node count."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("% of the wall time on nodes:")
    for level in scaling.levels:
        table.add_column(str(level.nodes), justify="right")
    for name, words in PARTS.items():
        shares = [100 * level.parts[name] / level.wall.value for level in scaling.levels]
        if name == "unexplained" or any(abs(share) >= 0.05 for share in shares):
            table.add_row(words, *(f"{share:.1f}" for share in shares))
    return table


def validation_lines(scaling: Scaling) -> Iterator[str]:
    """How well model and simulator agree with what was measured."""
    told = scaling.validation
    if told.nodes:
        yield (
            f"the model, fitted without the rung of {told.nodes} nodes, predicts its evaluations to "
            f"{100 * told.evaluation_error:+.1f} % and its whole job to {100 * told.wall_error:+.1f} %"
        )
    worst = max(told.replay_errors.values(), key=abs)
    yield f"the simulator replays the {len(told.replay_errors)} runs to {100 * worst:+.1f} % of their wall time or better"


def forecast_lines(forecast: Forecast) -> Iterator[str]:
    """Efficiency at some node counts, and which bottleneck comes when."""
    chosen = [prediction for prediction in forecast.predictions if prediction.nodes in TOLD] or forecast.predictions[
        -1:
    ]
    kind = "weak" if forecast.weak else "strong"
    told = ", ".join(
        f"{p.nodes}: {100 * forecast.efficiency(p):.1f} ({100 * forecast.efficiency(p, job=True):.1f})" for p in chosen
    )
    yield f"{kind} scaling, {forecast.title}, {forecast.predictions[0].evaluations} evaluations; efficiency % of evaluations"
    yield f"  (and of whole jobs) on nodes: {told}"
    for prediction, name in forecast.takeovers:
        share = 100 * prediction.losses[name] / prediction.evaluation_seconds
        yield f"  from {prediction.nodes} nodes on most is lost to {LOSSES[name]}: {share:.0f} % of an evaluation there"
    bundled = [prediction for prediction in forecast.predictions if prediction.in_one_task > 1]
    if bundled:
        yield f"  on {bundled[0].nodes} to {bundled[-1].nodes} nodes {bundled[0].in_one_task} shots make a task"
    if not forecast.takeovers:
        yield f"  nothing takes as much as 5 % of an evaluation up to {forecast.predictions[-1].nodes} nodes"


def _told(estimate: Estimate, factor: float = 1.0) -> str:
    value = f"{factor * estimate.value:.3g}"
    if estimate.low is None or estimate.high is None or not math.isfinite(estimate.high):
        return value
    return f"{value} ({factor * estimate.low:.3g}..{factor * estimate.high:.3g})"
