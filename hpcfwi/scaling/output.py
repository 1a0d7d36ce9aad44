"""A scaling study in words and tables, as ``hpcfwi scale`` prints it."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from hpcfwi.io import write_atomic
from hpcfwi.scaling.forecast import LOSSES
from hpcfwi.scaling.results import Estimate, Forecast, Scaling, gain
from hpcfwi.scaling.runs import MeasuredRun, Study
from hpcfwi.scaling.time_breakdown import PARTS

__all__ = ["forecast_lines", "git_revision", "levels_table", "parts_table", "validation_lines", "write_results"]

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


def write_results(folder: Path, study: Study, scaling: Scaling) -> list[Path]:
    """Write ``scaling.csv`` and ``scaling.json``."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"{name}_seconds" for name in PARTS)])
    for found in scaling.measured:
        writer.writerow([*(column(found, scaling) for column in COLUMNS.values()), *_parts(found)])
    facts = {
        "study": asdict(study),
        "provenance": {"git_revision": git_revision(), **_provenance(scaling.measured)},
        "levels": [asdict(level) for level in scaling.levels],
        "runs": [
            {"rung": str(found.rung), **asdict(found.rung), **asdict(found.account)} for found in scaling.measured
        ],
        "model": asdict(scaling.model),
        "validation": asdict(scaling.validation),
        "forecasts": [
            {
                "title": forecast.title,
                "weak": forecast.weak,
                "predictions": [
                    asdict(prediction)
                    | {
                        "efficiency": forecast.efficiency(prediction),
                        "job_efficiency": forecast.efficiency(prediction, job=True),
                        "bottleneck": prediction.bottleneck,
                    }
                    for prediction in forecast.predictions
                ],
                "takeovers": [
                    {"nodes": prediction.nodes, "what": name, "in_words": LOSSES[name]}
                    for prediction, name in forecast.takeovers
                ],
            }
            for forecast in scaling.forecasts
        ],
    }
    paths = [folder / "scaling.csv", folder / "scaling.json"]
    write_atomic(paths[0], lambda file: file.write(table.getvalue().encode()))
    text = json.dumps(_without_nan(facts), indent=1)
    write_atomic(paths[1], lambda file: file.write(text.encode()))
    return paths


def _per_node(found: MeasuredRun, scaling: Scaling, name: str) -> float:
    return gain(found, scaling.measured, name) * scaling.levels[0].nodes / found.rung.nodes


Column = Callable[[MeasuredRun, Scaling], Any]
COLUMNS: dict[str, Column] = {
    "scaling": lambda _, scaling: "weak" if scaling.weak else "strong",
    "nodes": lambda found, _: found.rung.nodes,
    "repeat": lambda found, _: found.rung.repeat,
    "workers": lambda found, _: found.account.workers,
    "cores": lambda found, _: found.account.cores,
    "shots": lambda found, _: found.account.shots,
    "evaluations": lambda found, _: found.account.evaluations,
    "wall_seconds": lambda found, _: round(found.account.wall, 4),
    "evaluation_seconds": lambda found, _: round(found.account.evaluation_seconds, 4),
    "speedup": lambda found, scaling: round(gain(found, scaling.measured, "evaluation_seconds"), 4),
    "efficiency": lambda found, scaling: round(_per_node(found, scaling, "evaluation_seconds"), 4),
    "job_speedup": lambda found, scaling: round(gain(found, scaling.measured, "wall"), 4),
    "job_efficiency": lambda found, scaling: round(_per_node(found, scaling, "wall"), 4),
    "core_hours": lambda found, _: found.account.core_hours,
}


def _parts(found: MeasuredRun) -> list[float]:
    return [round(found.account.parts[name], 4) for name in PARTS]


def _provenance(measured: Sequence[MeasuredRun]) -> dict[str, Any]:
    """What was the same in all runs, and all jobs and hosts."""
    first = measured[0].account.facts
    return {
        **{name: value for name, value in first.items() if name not in ("jobs", "hosts")},
        "jobs": sorted({job for found in measured for job in found.account.facts["jobs"]}),
        "hosts": sorted({host for found in measured for host in found.account.facts["hosts"]}),
    }


def git_revision() -> str | None:
    """The revision of the checkout that this code is in, with a plus where it was changed; None outside of one."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        told = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return told.stdout.strip() or None


def _without_nan(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
