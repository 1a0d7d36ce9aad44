"""The results of a scaling study as tables, lines, files and figures."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from hpcfwi.io import write_atomic
from hpcfwi.reporting.formatting import counted
from hpcfwi.reporting.plotting import new_figure, save_figure
from hpcfwi.scaling.forecast import LOSSES, Prediction
from hpcfwi.scaling.results import NOTABLE_SHARE, Estimate, Forecast, NodeCount, Scaling, speedup
from hpcfwi.scaling.runs import MeasuredRun, Study
from hpcfwi.scaling.time_breakdown import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Numbers of nodes in the printed forecast, and on the axis of its figure.
PRINTED_NODES, NODE_TICKS = (1, 8, 128, 1024, 4096), (1, 4, 16, 64, 256, 1024, 4096)
# Parts with a smaller share of the wall time are drawn together, or have no row in the table.
MIN_COLOURED_SHARE, MIN_PRINTED_SHARE = 0.01, 0.0005
FORECAST_COLOURS = ("#1b9e77", "#d95f02", "#7570b3", "#e7298a")
EVALUATION_COLOUR, JOB_COLOUR, IDEAL_COLOUR, OTHERS_COLOUR = "#1f77b4", "#d95f02", "0.45", "#fee08b"
# Colour maps of matplotlib for kinds of parts, from the bottom to the top of a bar.
PART_COLOURS = {
    "Greens_r": ("kernels", "shot_overhead", "dispatch"),
    "OrRd_r": ("sum", "imbalance"),
    "Purples_r": ("optimiser_and_driver", "model_staging", "journal"),
    "Blues_r": ("driver_start", "queue_wait", "worker_start", "solver", "observed_data"),
    "Greys_r": ("missing_workers", "results", "closing"),
    "gray": ("unexplained",),
}


def scaling_table(scaling: Scaling) -> Table:
    """Times, speed-up and efficiency by number of nodes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    times = ("evaluation s", "speed-up", "efficiency %", "whole job s", "job efficiency %", "core-hours")
    for title in ("nodes", "workers", "shots", *times):
        table.add_column(title, justify="right")
    for count in scaling.node_counts:
        table.add_row(
            *map(str, (count.nodes, count.workers, count.shots)),
            *map(_with_interval, (count.evaluation_seconds, count.speedup)),
            *(_with_interval(count.efficiency, 100), _with_interval(count.wall_seconds)),
            *(_with_interval(count.job_efficiency, 100), f"{count.core_hours:.3g}"),
        )
    return table


def _with_interval(estimate: Estimate, factor: float = 1.0) -> str:
    value = f"{factor * estimate.value:.3g}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({factor * estimate.low:.3g}..{factor * estimate.high:.3g})"


def parts_table(scaling: Scaling) -> Table:
    """Parts of the wall time, %, by number of nodes."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("% of the wall time on nodes:")
    for count in scaling.node_counts:
        table.add_column(str(count.nodes), justify="right")
    for name, label in PARTS.items():
        shares = [count.share(name) for count in scaling.node_counts]
        if name == "unexplained" or any(abs(share) >= MIN_PRINTED_SHARE for share in shares):
            table.add_row(label, *(f"{100 * share:.1f}" for share in shares))
    return table


def summary_lines(scaling: Scaling) -> Iterator[str]:
    """Errors of the cost model, and its predictions."""
    checked = scaling.validation
    if checked.evaluation_error is not None and checked.wall_error is not None:
        errors = (
            f"{100 * checked.evaluation_error:+.1f} % (evaluations) and {100 * checked.wall_error:+.1f} % (whole jobs)"
        )
        yield f"runs on {counted(checked.nodes, 'node')} are predicted from the other runs with errors of {errors}"
    worst = max(checked.replay_errors.values(), key=abs)
    yield f"the wall time of a run, computed from its measured shots, is wrong by at most {100 * worst:+.1f} %"
    for forecast in scaling.forecasts:
        yield from _forecast_lines(forecast)


def _forecast_lines(forecast: Forecast) -> Iterator[str]:
    first, last = forecast.predictions[0], forecast.predictions[-1]
    efficiency = ", ".join(
        f"{each.nodes}: {100 * forecast.efficiency(each):.1f} ({100 * forecast.efficiency(each, job=True):.1f})"
        for each in forecast.predictions
        if each.nodes in PRINTED_NODES
    )
    kind = "weak" if forecast.weak else "strong"
    yield f"{kind} scaling, {forecast.title}, {counted(first.evaluations, 'evaluation')}:"
    yield f"  efficiency of evaluations (of whole jobs), %, by nodes: {efficiency}"
    for prediction, name in forecast.bottlenecks:
        share, nodes = 100 * prediction.losses[name] / prediction.evaluation_seconds, counted(prediction.nodes, "node")
        yield f"  largest loss from {nodes} on: {share:.0f} % of an evaluation for {LOSSES[name]}"
    if not forecast.bottlenecks:
        yield f"  up to {last.nodes} nodes, no loss takes {100 * NOTABLE_SHARE:.0f} % of an evaluation"
    batched = [prediction for prediction in forecast.predictions if prediction.shots_per_task > 1]
    if batched:
        yield f"  on {batched[0].nodes} to {batched[-1].nodes} nodes, a task computes {batched[0].shots_per_task} shots"


CSV_COLUMNS: dict[str, Callable[[MeasuredRun, Scaling], Any]] = {
    "scaling": lambda _, scaling: "weak" if scaling.weak else "strong",
    "nodes": lambda run, _: run.point.nodes,
    "repeat": lambda run, _: run.point.repeat,
    "workers": lambda run, _: run.times.workers,
    "cores": lambda run, _: run.times.cores,
    "shots": lambda run, _: run.times.shots,
    "evaluations": lambda run, _: run.times.evaluations,
    "wall_seconds": lambda run, _: run.times.wall_seconds,
    "evaluation_seconds": lambda run, _: run.times.evaluation_seconds,
    "speedup": lambda run, scaling: speedup(run, scaling.runs, "evaluation_seconds"),
    "efficiency": lambda run, scaling: speedup(run, scaling.runs, "evaluation_seconds", per_node=True),
    "job_speedup": lambda run, scaling: speedup(run, scaling.runs, "wall_seconds"),
    "job_efficiency": lambda run, scaling: speedup(run, scaling.runs, "wall_seconds", per_node=True),
    "core_hours": lambda run, _: run.times.core_hours,
    **{f"{name}_seconds": lambda run, _, name=name: run.times.parts[name] for name in PARTS},  # type: ignore[misc]
}


def write_results(folder: Path, study: Study, scaling: Scaling) -> list[Path]:
    """Write ``scaling.csv``, a row for each run, and ``scaling.json``, with everything."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for run in scaling.runs:
        cells = [column(run, scaling) for column in CSV_COLUMNS.values()]
        writer.writerow([round(cell, 4) if isinstance(cell, float) else cell for cell in cells])
    # facts of the first run, which all runs share, and the jobs and hosts of all runs
    facts = {
        name: sorted({each for run in scaling.runs for each in run.times.facts[name]}) for name in ("jobs", "hosts")
    }
    content = {
        "study": asdict(study),
        "provenance": {"git_revision": _git_revision(), **scaling.runs[0].times.facts, **facts},
        "node_counts": [asdict(count) for count in scaling.node_counts],
        "runs": [{"run": str(run.point), **asdict(run.point), **asdict(run.times)} for run in scaling.runs],
        "model": asdict(scaling.model),
        "validation": asdict(scaling.validation),
        "forecasts": [_forecast_json(forecast) for forecast in scaling.forecasts],
    }
    texts = {"scaling.csv": table.getvalue(), "scaling.json": json.dumps(content, indent=1, allow_nan=False)}
    for name, text in texts.items():
        write_atomic(folder / name, lambda file, text=text: file.write(text.encode()))  # type: ignore[misc]
    return [folder / name for name in texts]


def _forecast_json(forecast: Forecast) -> dict[str, Any]:
    def fields(each: Prediction) -> dict[str, Any]:
        efficiency = {"efficiency": forecast.efficiency(each), "job_efficiency": forecast.efficiency(each, job=True)}
        return {**asdict(each), **efficiency, "bottleneck": each.bottleneck}

    predictions = [*map(fields, forecast.predictions)]
    bottlenecks = [{"nodes": each.nodes, "loss": name, "meaning": LOSSES[name]} for each, name in forecast.bottlenecks]
    return {"title": forecast.title, "weak": forecast.weak, "predictions": predictions, "bottlenecks": bottlenecks}


def _git_revision() -> str | None:
    """The commit of the checkout of this code, with a plus if files have changed; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def draw_scaling(folder: Path, scaling: Scaling) -> list[Path]:
    """Draw ``scaling.png`` (speed-up and efficiency), ``parts.png`` (parts of the wall time) and ``forecast.png``."""
    figures = {"scaling.png": _scaling_figure, "parts.png": _parts_figure, "forecast.png": _forecast_figure}
    return [save_figure(folder / name, partial(draw, scaling)) for name, draw in figures.items()]


def _scaling_figure(scaling: Scaling) -> Figure:
    figure = new_figure((9.5, 4.2))
    left, right = figure.subplots(1, 2)
    nodes = [count.nodes for count in scaling.node_counts]
    ideal = [count / nodes[0] for count in nodes]
    _draw_band(left, scaling, lambda count: count.speedup, EVALUATION_COLOUR, "evaluation")
    _draw_band(left, scaling, lambda count: count.job_speedup, JOB_COLOUR, "whole job")
    left.plot(nodes, ideal, color=IDEAL_COLOUR, linestyle="--", label="ideal")
    lowest = min(min(count.speedup.value, count.job_speedup.value) for count in scaling.node_counts)
    left.set(yscale="log", ylim=(0.8 * min(1.0, lowest), 1.3 * ideal[-1]))
    left.set_ylabel("shots per second, relative" if scaling.weak else "speed-up")
    left.set_yticks(ideal, [f"{value:g}" for value in ideal])
    _draw_band(right, scaling, lambda count: count.efficiency, EVALUATION_COLOUR, "evaluation", 100)
    _draw_band(right, scaling, lambda count: count.job_efficiency, JOB_COLOUR, "whole job", 100)
    right.axhline(100, color=IDEAL_COLOUR, linestyle="--", label="ideal")
    highest = max(max(count.efficiency.value, count.job_efficiency.value) for count in scaling.node_counts)
    right.set(ylabel="efficiency, %", ylim=(0, 110 * max(1.0, highest)))
    for axes in (left, right):
        _use_node_axis(axes, nodes)
        axes.legend(frameon=False)
    repeats = max(run.point.repeat for run in scaling.runs)
    bands = f"{repeats} runs each, bands of 95 % confidence" if repeats > 1 else "one run each"
    _set_title(figure, scaling, f"{'Weak' if scaling.weak else 'Strong'} scaling, {_survey(scaling)}, {bands}")
    return figure


def _draw_band(
    axes: Axes, scaling: Scaling, value: Callable[[NodeCount], Estimate], colour: str, label: str, factor: float = 1.0
) -> None:
    nodes = [count.nodes for count in scaling.node_counts]
    estimates = [value(count) for count in scaling.node_counts]
    axes.plot(nodes, [factor * estimate.value for estimate in estimates], "o-", color=colour, label=label, markersize=4)
    low = [factor * (estimate.low or estimate.value) for estimate in estimates]
    high = [factor * (estimate.high or estimate.value) for estimate in estimates]
    axes.fill_between(nodes, low, high, color=colour, alpha=0.2, linewidth=0)


def _use_node_axis(axes: Axes, ticks: list[int]) -> None:
    axes.set(xscale="log", xlabel="nodes")
    axes.set_xticks(ticks, [str(count) for count in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def _parts_figure(scaling: Scaling) -> Figure:
    from matplotlib import colormaps

    figure = new_figure((9.5, 4.6))
    axes = figure.subplots()
    shares = {name: np.array([count.share(name) for count in scaling.node_counts]) for name in PARTS}
    shown = {name for name in PARTS if name == "unexplained" or shares[name].max() >= MIN_COLOURED_SHARE}
    bars: list[tuple[str, Any, Any]] = [
        (PARTS[name], colormaps[colours]((i + 0.5) / (len(names) + 1)), 100 * shares[name])
        for colours, names in PART_COLOURS.items()
        for i, name in enumerate(names)
        if name in shown
    ]
    others = sum((100 * shares[name] for name in PARTS if name not in shown), np.zeros(len(scaling.node_counts)))
    if others.max() > 0:
        bars.append((f"others, each below {100 * MIN_COLOURED_SHARE:.0f} %", OTHERS_COLOUR, others))
    positions, bottom = np.arange(len(others)), np.zeros(len(others))
    for label, colour, percent in bars:
        axes.bar(positions, percent, 0.7, bottom=bottom, color=colour, label=label)
        bottom += np.maximum(percent, 0)
    labels = [f"{count.nodes}\n{count.wall_seconds.value:.3g} s" for count in scaling.node_counts]
    axes.set_xticks(positions, labels)
    axes.set(xlabel="nodes, wall time of the whole job", ylabel="share of the wall time, %", ylim=(0, 100))
    axes.set_xlim(-0.6, len(positions) - 0.4)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), reverse=True)
    _set_title(figure, scaling, f"Parts of the wall time, means over the workers, {_survey(scaling)}")
    return figure


def _forecast_figure(scaling: Scaling) -> Figure:
    figure = new_figure((9.5, 4.2))
    left, right = figure.subplots(1, 2, sharey=True)
    # the last forecast differs only in the number of evaluations
    for forecast, colour in zip(scaling.forecasts[:-1], FORECAST_COLOURS, strict=False):
        _draw_forecast(left, forecast, colour, job=False)
        changes = [(each.nodes, 100 * forecast.efficiency(each)) for each, _ in forecast.bottlenecks]
        left.plot(*np.array(changes).reshape(-1, 2).T, "v", color=colour, markersize=6)
    for forecast, colour in zip(scaling.forecasts, FORECAST_COLOURS, strict=True):
        _draw_forecast(right, forecast, colour, job=True)
    nodes = [count.nodes for count in scaling.node_counts]
    left.plot(nodes, [100 * c.efficiency.value for c in scaling.node_counts], "ko", markersize=4, label="measured")
    right.plot(nodes, [100 * c.job_efficiency.value for c in scaling.node_counts], "ko", markersize=4, label="measured")
    left.set(ylabel="predicted efficiency, %", ylim=(0, 110))
    left.set_title("evaluations (▼: the largest loss changes)", fontsize=9)
    right.set_title("whole jobs", fontsize=9)
    for axes in (left, right):
        _use_node_axis(axes, list(NODE_TICKS))
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8)
    _set_title(figure, scaling, "Predicted by the cost model")
    return figure


def _draw_forecast(axes: Axes, forecast: Forecast, colour: str, job: bool) -> None:
    label = f"{'weak' if forecast.weak else 'strong'}, {forecast.title}"
    if job:
        label += f", {counted(forecast.predictions[0].evaluations, 'evaluation')}"
    points = [(each.nodes, 100 * forecast.efficiency(each, job)) for each in forecast.predictions]
    axes.plot(*np.array(points).T, color=colour, label=label)


def _survey(scaling: Scaling) -> str:
    shots = sorted({count.shots for count in scaling.node_counts})
    return counted(shots[0], "shot") if len(shots) == 1 else f"{shots[0]} to {shots[-1]} shots"


def _set_title(figure: Figure, scaling: Scaling, title: str) -> None:
    stand_in = scaling.runs[0].times.facts.get("stand_in")
    figure.suptitle(f"{title}\nkernels replaced by {stand_in}" if stand_in else title, fontsize=9)
