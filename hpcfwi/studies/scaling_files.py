"""The files of a scaling study: ``scaling.csv``, a row for each run, and ``scaling.json``, which has everything."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcfwi.data.staging import write_aside
from hpcfwi.studies.accounting import PARTS
from hpcfwi.studies.costs import LOSSES
from hpcfwi.studies.ladder import Measured, Study
from hpcfwi.studies.scaling import Scaling, gain

__all__ = ["git_revision", "write_results"]


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
    write_aside(paths[0], lambda file: file.write(table.getvalue().encode()))
    text = json.dumps(_without_nan(facts), indent=1)
    write_aside(paths[1], lambda file: file.write(text.encode()))
    return paths


def _per_node(found: Measured, scaling: Scaling, name: str) -> float:
    return gain(found, scaling.measured, name) * scaling.levels[0].nodes / found.rung.nodes


Column = Callable[[Measured, Scaling], Any]
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


def _parts(found: Measured) -> list[float]:
    return [round(found.account.parts[name], 4) for name in PARTS]


def _provenance(measured: Sequence[Measured]) -> dict[str, Any]:
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
